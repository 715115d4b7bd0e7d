-- Requests with an `Idempotency-Key` that make something: whose they are, what they ask for (a digest), and the first answer, without its
-- secrets. Without a status it was begun and nobody knows how it ended. Kept as long as events are.
CREATE TABLE idempotency (
    whose  TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    at     INTEGER NOT NULL,
    status INTEGER,
    answer TEXT,
    PRIMARY KEY (whose, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (at);
