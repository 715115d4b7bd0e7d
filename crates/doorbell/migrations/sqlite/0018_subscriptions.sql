-- Subscriptions of MCP Events: who wants the events of a source posted to a URL. `id`: a digest of key, url, source and arguments.
-- Their secrets are in webhook_secrets, under the same id. `agent`: whose events the key is confined to. `position`: the sequence of
-- the last event that was held against it, in the transaction that made the runs of what it wants.
CREATE TABLE subscriptions (
    id          BLOB    NOT NULL PRIMARY KEY,
    key         BLOB    NOT NULL,
    agent       TEXT,
    source      TEXT    NOT NULL,
    arguments   TEXT    NOT NULL,
    url         TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    verified_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    position    INTEGER NOT NULL
) WITHOUT ROWID;
