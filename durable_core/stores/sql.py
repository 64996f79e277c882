"""SQL of the tables, as text: definitions, column lists, and the statements that bind whole tuples.

Made from ``tables.py`` by ``python -m tools.store_sql``; edit the tables, not this file.
"""

CREATE = (
    """
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
    traceparent TEXT,
    created_at_ns BIGINT NOT NULL,
    updated_at_ns BIGINT NOT NULL,
    ended_at_ns BIGINT,
    tags TEXT,
    retagged TEXT,
    awaits TEXT,
    restarts TEXT,
    PRIMARY KEY (num),
    UNIQUE (id)
)
""",
    """
CREATE INDEX runs_ended ON runs (ended_at_ns) WHERE ended_at_ns IS NOT NULL
""",
    """
CREATE INDEX runs_named ON runs (name, created_at_ns, num)
""",
    """
CREATE INDEX runs_open ON runs (owner, wake_at_ns) WHERE ended_at_ns IS NULL
""",
    """
CREATE INDEX runs_restarts ON runs (restarts) WHERE restarts IS NOT NULL
""",
    """
CREATE INDEX runs_started ON runs (created_at_ns, num)
""",
    """
CREATE INDEX runs_undone ON runs (status, created_at_ns, num) WHERE ended_at_ns IS NOT NULL AND status <> 'completed'
""",
    """
CREATE INDEX runs_unwell ON runs (created_at_ns, num) WHERE reason IS NOT NULL AND ended_at_ns IS NULL
""",
    """
CREATE TABLE run_tags (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    started_at_ns BIGINT NOT NULL,
    run BIGINT NOT NULL,
    PRIMARY KEY ("key", value, started_at_ns, run)
)
 WITHOUT ROWID
""",
    """
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
)
""",
    """
CREATE UNIQUE INDEX journal_run_seq ON journal (run, seq)
""",
    """
CREATE TABLE signals (
    num INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run BIGINT NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    at_ns BIGINT NOT NULL
)
""",
    """
CREATE INDEX signals_run ON signals (run)
""",
    """
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
)
""",
    """
CREATE INDEX tombstones_unswept ON tombstones (num) WHERE unswept = 1
""",
    """
CREATE INDEX tombstones_until ON tombstones (until_ns) WHERE until_ns IS NOT NULL
""",
    """
CREATE TABLE workers (
    id TEXT NOT NULL,
    pid BIGINT NOT NULL,
    host TEXT NOT NULL,
    started_at_ns BIGINT NOT NULL,
    lease_until_ns BIGINT DEFAULT 0 NOT NULL,
    batch BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (id)
)
""",
    """
CREATE TABLE served (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    PRIMARY KEY (name, version)
)
""",
    """
CREATE TABLE serving (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    worker TEXT NOT NULL,
    PRIMARY KEY (name, version, worker)
)
""",
    """
CREATE TABLE traced (
    worker TEXT NOT NULL,
    pos BIGINT NOT NULL,
    payer TEXT,
    PRIMARY KEY (worker)
)
""",
    """
CREATE TABLE meta (
    "key" TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY ("key")
)
""",
    """
CREATE TRIGGER runs_tag AFTER INSERT ON runs WHEN new.tags IS NOT NULL
BEGIN
    INSERT INTO run_tags (key, value, started_at_ns, run)
    SELECT key, value, new.created_at_ns, new.num FROM json_each(coalesce(new.retagged, new.tags));
END
""",
    """
CREATE TRIGGER runs_tag_again AFTER UPDATE OF retagged ON runs WHEN new.retagged IS NOT old.retagged
BEGIN
    DELETE FROM run_tags WHERE (key, value, started_at_ns, run) IN
        (SELECT key, value, old.created_at_ns, old.num FROM json_each(coalesce(old.retagged, old.tags)));
    INSERT INTO run_tags (key, value, started_at_ns, run)
    SELECT key, value, new.created_at_ns, new.num FROM json_each(coalesce(new.retagged, new.tags));
END
""",
    """
CREATE TRIGGER runs_untag AFTER DELETE ON runs WHEN coalesce(old.retagged, old.tags) IS NOT NULL
BEGIN
    DELETE FROM run_tags WHERE (key, value, started_at_ns, run) IN
        (SELECT key, value, old.created_at_ns, old.num FROM json_each(coalesce(old.retagged, old.tags)));
END
""",
)

RUN_COLUMNS = (
    "num, id, uid, name, version, status, phase, owner, wake_at_ns, deadline_at_ns, paused, input, "
    "output, error, reason, detail, traceparent, created_at_ns, updated_at_ns, ended_at_ns, tags, "
    "retagged, awaits, restarts"
)

INSERT_RUNS = (
    "INSERT INTO runs (num, id, uid, name, version, status, owner, wake_at_ns, deadline_at_ns, input, "
    "traceparent, created_at_ns, tags, restarts, updated_at_ns) VALUES "
)

RUN_MARKS = (
    "(?, ?, ?, ?, ?, ?, NULLIF(?, 0.5), NULLIF(?, 0.5), NULLIF(?, 0.5), ?, NULLIF(?, 0.5), ?, NULLIF(?, "
    "0.5), NULLIF(?, 0.5), ?)"
)

UPDATE_RUN = (
    "UPDATE runs SET status = ?, phase = ?, owner = NULLIF(?, 0.5), wake_at_ns = NULLIF(?, 0.5), paused "
    "= ?, output = NULLIF(?, 0.5), error = NULLIF(?, 0.5), reason = NULLIF(?, 0.5), detail = NULLIF(?, "
    "0.5), updated_at_ns = ?, ended_at_ns = NULLIF(?, 0.5), retagged = NULLIF(?, 0.5), awaits = "
    "NULLIF(?, 0.5) WHERE num = ?"
)

ENTRY_COLUMNS = "run, seq, kind, key, attempt, label, payload, error, started_at_ns, at_ns, due_at_ns, worker"

INSERT_ENTRIES = (
    "INSERT INTO journal (run, seq, kind, key, attempt, label, payload, error, started_at_ns, at_ns, "
    "due_at_ns, worker) VALUES "
)

ENTRY_MARKS = "(?, ?, ?, ?, ?, ?, NULLIF(?, 0.5), NULLIF(?, 0.5), NULLIF(?, 0.5), ?, NULLIF(?, 0.5), ?)"

INSERT_SIGNAL = "INSERT INTO signals (run, name, payload, at_ns) VALUES (?, ?, ?, ?)"

TOMBSTONE_COLUMNS = "num, id, name, version, status, phase, created_at_ns, ended_at_ns, purged_at_ns, until_ns"

INSERT_WORKER = "INSERT INTO workers (id, pid, host, started_at_ns) VALUES (?, ?, ?, ?)"
