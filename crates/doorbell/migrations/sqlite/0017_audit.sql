-- What was asked to be changed through the API, by whom and from where. Written before the change is made, so that none is
-- missing; `status` is what was answered then, and stays NULL if the gateway ended before it knew.
CREATE TABLE audit (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    who       TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    role      TEXT    NOT NULL,
    operation TEXT    NOT NULL,
    target    TEXT    NOT NULL,
    remote    TEXT    NOT NULL,
    status    INTEGER,
    code      TEXT
);
CREATE INDEX audit_by_at ON audit (at);
-- A key may end by itself, and when it was used last is kept once a minute.
ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;
