-- The constraint that finds duplicates, in an order in which deliveries that came together are kept together, so that a commit
-- writes one page for many of them. `key`: 48 bits of milliseconds, when the sender's id says that it was made (or, where it
-- says nothing, the beginning of the digest); then the digest that `delivery_digests` has.
--
-- `follows`: 1 if the key follows from the event's source and delivery id, so that it is found without an index.
CREATE TABLE claimed_keys (
    key       BLOB    PRIMARY KEY,
    event_seq INTEGER NOT NULL,
    follows   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX claimed_keys_by_event ON claimed_keys (event_seq) WHERE follows = 0;

-- `delivery_digests` gets no new rows: those that it has are asked until their events are removed. What they stand for is not
-- known any more, and to look for it would keep the first start from being ready.

-- Calls are found by a column, and no longer by what is in their context: a function in an index has SQLite prepare to undo each
-- statement that writes events, by a copy of every page that it changes.
ALTER TABLE events ADD COLUMN parent TEXT;
UPDATE events SET parent = json_extract(context, '$.parent')
WHERE provider = 'agent' AND json_valid(context) AND json_extract(context, '$.parent') IS NOT NULL;
DROP INDEX events_calls;
CREATE INDEX events_calls ON events (parent) WHERE parent IS NOT NULL;
