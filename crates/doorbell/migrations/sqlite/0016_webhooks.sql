-- Webhooks that are made at run time. One that is deleted stays as inactive, so that it can be activated again.
CREATE TABLE webhooks (
    id         BLOB    NOT NULL PRIMARY KEY,
    agent      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    provider   TEXT    NOT NULL,
    -- Of an agent's own webhook, which has the agent's URL, how it is proved: bearer, hmac, none. Null: one with a URL of its own.
    own        TEXT,
    active     INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX webhooks_own ON webhooks (agent) WHERE own IS NOT NULL;

-- Their secrets, sealed with the master key that `master` names, and bound to both ids. `until`: when one that was replaced
-- stops to verify.
CREATE TABLE webhook_secrets (
    id         BLOB    NOT NULL PRIMARY KEY,
    webhook    BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    master     TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    until      INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX webhook_secrets_in_order ON webhook_secrets (webhook, number);
