-- When what an event said was removed for good. Its row, keys and outcomes stay, so that a redelivery starts nothing.
ALTER TABLE events ADD COLUMN forgotten_at INTEGER;

-- An event goes with its keys. Written at its right end only, as events are.
CREATE INDEX delivery_digests_by_event ON delivery_digests (event_seq);

-- One row: what retention removed.
CREATE TABLE sweep (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    -- The greatest sequence of a removed event: who has seen less missed something.
    pruned_through INTEGER NOT NULL,
    -- Events removed ever. Sequences have no gaps but these, so that events are counted without reading them.
    events_gone    INTEGER NOT NULL,
    -- The last sweep that ended; NULL before the first.
    started_at     INTEGER,
    ended_at       INTEGER,
    events         INTEGER NOT NULL DEFAULT 0,
    runs           INTEGER NOT NULL DEFAULT 0,
    rejections     INTEGER NOT NULL DEFAULT 0,
    trigger_sets   INTEGER NOT NULL DEFAULT 0
);
INSERT INTO sweep (only, pruned_through, events_gone)
SELECT 1, 0, coalesce(max(seq), 0) - count(*) FROM events;

-- `kept_at` becomes when a trigger set was last seen in force. Until now nobody looked: at the latest when the newest
-- event came.
UPDATE trigger_sets SET kept_at = max(kept_at, (SELECT received_at FROM events ORDER BY seq DESC LIMIT 1))
WHERE EXISTS (SELECT 1 FROM events);

-- Few outcomes name a set of their own, and a set goes only when none does.
CREATE INDEX outcomes_by_trigger_set ON outcomes (trigger_set) WHERE trigger_set IS NOT NULL;
