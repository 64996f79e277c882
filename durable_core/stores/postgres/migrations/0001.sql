-- 1: the tables. Made from tables.py by `python -m tools.store_sql`.

CREATE TABLE runs (
    num BIGINT NOT NULL,
    id TEXT NOT NULL,
    uid BYTEA NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    status TEXT NOT NULL,
    phase TEXT DEFAULT '' NOT NULL,
    owner TEXT,
    wake_at_ns BIGINT,
    deadline_at_ns BIGINT,
    paused BIGINT DEFAULT 0 NOT NULL,
    input BYTEA NOT NULL,
    output BYTEA,
    error BYTEA,
    reason TEXT,
    detail BYTEA,
    parent BIGINT,
    traceparent TEXT,
    created_at_ns BIGINT NOT NULL,
    updated_at_ns BIGINT NOT NULL,
    ended_at_ns BIGINT,
    PRIMARY KEY (num),
    UNIQUE (id)
);

CREATE INDEX runs_children ON runs (parent) WHERE parent IS NOT NULL;

CREATE INDEX runs_due ON runs (name, version, wake_at_ns, updated_at_ns, num) WHERE ended_at_ns IS NULL AND owner IS NULL;

CREATE INDEX runs_ended ON runs (ended_at_ns) WHERE ended_at_ns IS NOT NULL;

CREATE INDEX runs_open ON runs (owner, wake_at_ns) WHERE ended_at_ns IS NULL;

CREATE TABLE journal (
    pos BIGSERIAL NOT NULL,
    run BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    label TEXT NOT NULL,
    payload BYTEA,
    error BYTEA,
    started_at_ns BIGINT,
    at_ns BIGINT NOT NULL,
    due_at_ns BIGINT,
    worker TEXT NOT NULL,
    PRIMARY KEY (pos)
);

CREATE UNIQUE INDEX journal_run_seq ON journal (run, seq);

CREATE TABLE signals (
    num BIGSERIAL NOT NULL,
    run BIGINT NOT NULL,
    name TEXT NOT NULL,
    payload BYTEA NOT NULL,
    at_ns BIGINT NOT NULL,
    PRIMARY KEY (num)
);

CREATE INDEX signals_run ON signals (run);

CREATE TABLE tombstones (
    num BIGINT NOT NULL,
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

CREATE INDEX tombstones_unswept ON tombstones (num) WHERE unswept = 1;

CREATE INDEX tombstones_until ON tombstones (until_ns) WHERE until_ns IS NOT NULL;

CREATE TABLE workers (
    id TEXT NOT NULL,
    pid BIGINT NOT NULL,
    host TEXT NOT NULL,
    started_at_ns BIGINT NOT NULL,
    lease_until_ns BIGINT DEFAULT 0 NOT NULL,
    batch BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE served (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE serving (
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    worker TEXT NOT NULL,
    PRIMARY KEY (name, version, worker)
);

CREATE TABLE traced (
    worker TEXT NOT NULL,
    pos BIGINT NOT NULL,
    payer TEXT,
    PRIMARY KEY (worker)
);

CREATE TABLE meta (
    key TEXT NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (key)
);

CREATE SEQUENCE run_numbers INCREMENT BY 1048576;
