-- Times are milliseconds since the Unix epoch, ids are their 16 bytes. `seq` is the order of commits, by which lists
-- page: whatever deletes rows must leave the newest one, or its number would be given again.

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL,
    source      TEXT    NOT NULL,
    provider    TEXT    NOT NULL,
    event       TEXT    NOT NULL,
    action      TEXT,
    delivery_id TEXT,
    verified_by TEXT,
    received_at INTEGER NOT NULL,
    handshake   INTEGER NOT NULL,
    trigger_set INTEGER NOT NULL,
    body_size   INTEGER NOT NULL,
    duplicates  INTEGER NOT NULL,
    -- Whether no agent has an outcome for it.
    silent      INTEGER NOT NULL,
    context     TEXT    NOT NULL
);
CREATE UNIQUE INDEX events_by_id ON events (id);
-- Lists of one source or event: the newest of each pair, merged.
CREATE INDEX events_by_name ON events (source, event);
CREATE INDEX events_silent ON events (seq) WHERE silent = 1;

-- Headers and raw body, one after the other, apart from what is listed.
CREATE TABLE bodies (
    event_seq INTEGER PRIMARY KEY,
    -- 0: as they are; 1: zstd.
    encoding  INTEGER NOT NULL,
    -- Bytes of the headers, and of both.
    head      INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    data      BLOB    NOT NULL
);

-- The constraint that finds duplicates.
CREATE TABLE delivery_keys (
    source    TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    event_seq INTEGER NOT NULL,
    PRIMARY KEY (source, key)
) WITHOUT ROWID;

-- One row an event and agent. kind: 0 started, 1 absorbed, 2 skipped, 3 dropped.
CREATE TABLE outcomes (
    event_seq INTEGER NOT NULL,
    agent     TEXT    NOT NULL,
    kind      INTEGER NOT NULL,
    run_seq   INTEGER,
    trigger   INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    reason    TEXT,
    PRIMARY KEY (event_seq, agent)
) WITHOUT ROWID;
CREATE INDEX outcomes_unlike_started ON outcomes (kind, event_seq) WHERE kind <> 0;

-- state: 0 held, 1 waiting, 2 queued, 3 running, 4 succeeded, 5 failed, 6 cancelled, 7 superseded, 8 dropped.
CREATE TABLE runs (
    seq              INTEGER PRIMARY KEY,
    id               BLOB    NOT NULL,
    agent            TEXT    NOT NULL,
    event_seq        INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    attempt          INTEGER NOT NULL DEFAULT 0,
    failures         INTEGER NOT NULL DEFAULT 0,
    losses           INTEGER NOT NULL DEFAULT 0,
    dead_letter      INTEGER NOT NULL DEFAULT 0,
    reason           TEXT,
    started_at       INTEGER,
    finished_at      INTEGER,
    due              INTEGER,
    cancel_requested TEXT,
    lease            BLOB,
    lease_until      INTEGER,
    pid              INTEGER,
    process_started  INTEGER,
    boot             TEXT
);
CREATE UNIQUE INDEX runs_by_id ON runs (id);
-- Claims take the oldest queued of an agent; lists take the newest of each agent and state, merged.
CREATE INDEX runs_by_state ON runs (agent, state);
CREATE INDEX runs_waiting ON runs (due) WHERE state = 1;

CREATE TABLE attempts (
    run_seq    INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    ended      TEXT,
    reason     TEXT,
    exit_code  INTEGER,
    PRIMARY KEY (run_seq, number)
) WITHOUT ROWID;

-- May be large, so apart from what is listed.
CREATE TABLE results (
    run_seq INTEGER PRIMARY KEY,
    result  TEXT    NOT NULL
);

-- Lines `first` to `first + count - 1` of a run's log, packed as a body is.
CREATE TABLE log_chunks (
    run_seq  INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    encoding INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    data     BLOB    NOT NULL,
    PRIMARY KEY (run_seq, first)
) WITHOUT ROWID;

-- `number` counts within the source, so that the oldest beyond the bound are found without counting.
CREATE TABLE rejections (
    seq        INTEGER PRIMARY KEY,
    source     TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    code       TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    remote     TEXT    NOT NULL,
    suppressed INTEGER NOT NULL,
    headers    TEXT    NOT NULL,
    body       BLOB
);
CREATE UNIQUE INDEX rejections_by_source ON rejections (source, number);

CREATE TABLE trigger_sets (
    version  INTEGER PRIMARY KEY,
    digest   BLOB    NOT NULL UNIQUE,
    kept_at  INTEGER NOT NULL,
    triggers TEXT    NOT NULL
);

CREATE TABLE api_keys (
    id         BLOB    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    agent      TEXT,
    hash       BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

-- One row, written to find out whether writing works.
CREATE TABLE pulse (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    at   INTEGER NOT NULL
);
INSERT INTO pulse (only, at) VALUES (1, 0);
