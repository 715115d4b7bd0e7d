-- What the bodies of a source have in common, so that each is compressed to what is its own. `number` is the `encoding`
-- of the bodies packed with it; the newest of a source is in use.
CREATE TABLE dictionaries (
    number INTEGER PRIMARY KEY CHECK (number >= 2),
    source TEXT    NOT NULL,
    data   BLOB    NOT NULL
);

-- The constraint that finds duplicates. Its places are random, so a commit writes a page for nearly each key: a key is
-- the first 16 bytes of SHA-256 over source, a zero byte and the delivery's key, of which a page holds most.
CREATE TABLE delivery_digests (
    digest    BLOB    PRIMARY KEY,
    event_seq INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO delivery_digests (digest, event_seq)
    SELECT delivery_digest(source, key), event_seq FROM delivery_keys;
DROP TABLE delivery_keys;
