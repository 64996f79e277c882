-- A file of stored format 1 as a killed process left it: `ended`, `waiting` for its callback `approval`, and `in-flight`.
PRAGMA application_id = 1396787009;
BEGIN TRANSACTION;
CREATE TABLE journal (
    pos INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    "key" TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    label TEXT NOT NULL,
    payload BLOB,
    error BLOB,
    started_at_ns BIGINT,
    at_ns BIGINT NOT NULL,
    due_at_ns BIGINT,
    worker TEXT NOT NULL
);
INSERT INTO "journal" VALUES(1,1,1,'started','pack',1,'step',X'5B2266617374225D',NULL,NULL,1796126106556565466,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(2,1,2,'succeeded','pack',1,'',X'2266617374207061636B656422',NULL,1796126106558599335,1796126106558644364,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(3,1,3,'ended','',0,'completed',X'2266617374207061636B656422',NULL,NULL,1796126106558953959,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(4,2,1,'started','pack',1,'step',X'5B22746561225D',NULL,NULL,1796126106560156353,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(5,2,2,'succeeded','pack',1,'',X'22746561207061636B656422',NULL,1796126106561062868,1796126106561086448,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(6,2,3,'armed','approval',0,'callback',X'7B2274797065223A226275696C74696E733A737472222C226865617274626561745F6E73223A307D',NULL,NULL,1796126106561217006,NULL,'w-1@old:1');
INSERT INTO "journal" VALUES(8,4,1,'started','pack',1,'step',X'5B22736C6F77225D',NULL,NULL,1796126106565087412,NULL,'w-1@old:1');
CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('format',1);
INSERT INTO "meta" VALUES('next_num',1048577);
INSERT INTO "meta" VALUES('secret',X'C34C464108001CA9B2407546CC218DD1F327900D69BB9DF398D070D9AA9CC6E4');
CREATE TABLE runs (
    num INTEGER NOT NULL,
    id TEXT NOT NULL,
    uid BLOB NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    status TEXT NOT NULL,
    phase TEXT DEFAULT '' NOT NULL,
    owner TEXT,
    wake_at_ns BIGINT,
    deadline_at_ns BIGINT,
    paused BIGINT DEFAULT 0 NOT NULL,
    input BLOB NOT NULL,
    output BLOB,
    error BLOB,
    reason TEXT,
    detail BLOB,
    parent BIGINT,
    traceparent TEXT,
    created_at_ns BIGINT NOT NULL,
    updated_at_ns BIGINT NOT NULL,
    ended_at_ns BIGINT,
    PRIMARY KEY (num),
    UNIQUE (id)
);
INSERT INTO "runs" VALUES(1,'ended',X'EAC0D914DA39BC9B9898C77F94B8876E','order',1,'completed','',NULL,NULL,NULL,0,X'5B2266617374225D',X'2266617374207061636B656422',NULL,NULL,NULL,NULL,NULL,1796126106556102626,1796126106558959413,1796126106558959413);
INSERT INTO "runs" VALUES(2,'waiting',X'6B05F29B03D999377F365F12A0AA4C99','ask',1,'waiting','',NULL,NULL,NULL,0,X'5B22746561225D',NULL,NULL,NULL,NULL,NULL,NULL,1796126106559991095,1796126106562637307,NULL);
INSERT INTO "runs" VALUES(4,'in-flight',X'B8F61BC601FB855137B7E2B823F6214D','order',1,'running','','w-1@old:1',NULL,NULL,0,X'5B22736C6F77225D',NULL,NULL,NULL,NULL,NULL,NULL,1796126106564153080,1796126106564153080,NULL);
CREATE TABLE served (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    PRIMARY KEY (name, version)
);
INSERT INTO "served" VALUES('ask',1,'618e289e1cc5f3b3',1796126106555065881);
INSERT INTO "served" VALUES('order',1,'a1012b995c116067',1796126106555065881);
CREATE TABLE serving (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    worker TEXT NOT NULL,
    PRIMARY KEY (name, version, worker)
);
INSERT INTO "serving" VALUES('ask',1,'w-1@old:1');
INSERT INTO "serving" VALUES('order',1,'w-1@old:1');
CREATE TABLE signals (
    num INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run BIGINT NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    at_ns BIGINT NOT NULL
);
CREATE TABLE tombstones (
    num INTEGER NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    status TEXT NOT NULL,
    phase TEXT NOT NULL,
    created_at_ns BIGINT NOT NULL,
    ended_at_ns BIGINT NOT NULL,
    purged_at_ns BIGINT NOT NULL,
    until_ns BIGINT,
    unswept BIGINT DEFAULT 1 NOT NULL,
    PRIMARY KEY (num),
    UNIQUE (id)
);
CREATE TABLE traced (
    worker TEXT NOT NULL,
    pos BIGINT NOT NULL,
    payer TEXT,
    PRIMARY KEY (worker)
);
CREATE TABLE workers (
    id TEXT NOT NULL,
    pid BIGINT NOT NULL,
    host TEXT NOT NULL,
    started_at_ns BIGINT NOT NULL,
    lease_until_ns BIGINT DEFAULT 0 NOT NULL,
    batch BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO "workers" VALUES('w-1@old:1',1,'old',1796126106000000000,0,0);
CREATE INDEX runs_children ON runs (parent) WHERE parent IS NOT NULL
;
CREATE INDEX runs_ended ON runs (ended_at_ns) WHERE ended_at_ns IS NOT NULL
;
CREATE INDEX runs_open ON runs (owner, wake_at_ns) WHERE ended_at_ns IS NULL
;
CREATE UNIQUE INDEX journal_run_seq ON journal (run, seq)
;
CREATE INDEX signals_run ON signals (run)
;
CREATE INDEX tombstones_unswept ON tombstones (num) WHERE unswept = 1
;
CREATE INDEX tombstones_until ON tombstones (until_ns) WHERE until_ns IS NOT NULL
;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('journal',8);
COMMIT;
