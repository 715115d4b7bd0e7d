-- How many deliveries each credential of a source verified, redeliveries too, and when last. Added to once a second, so
-- that it costs deliveries nothing; begins with what the events say.
CREATE TABLE secret_uses (
    source     TEXT    NOT NULL,
    credential TEXT    NOT NULL,
    deliveries INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    PRIMARY KEY (source, credential)
) WITHOUT ROWID;
INSERT INTO secret_uses (source, credential, deliveries, last_at)
    SELECT source, verified_by, count(*) + sum(duplicates), max(received_at) FROM events
    WHERE verified_by IS NOT NULL GROUP BY source, verified_by;
