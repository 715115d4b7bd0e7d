-- Sources that are paused: a run that is held until its source is resumed names it. Nothing else has it, so the runs of a
-- source are found by an index that holds only what is held for it.
ALTER TABLE runs ADD COLUMN paused_source TEXT;
CREATE INDEX runs_of_paused_sources ON runs (paused_source, seq) WHERE paused_source IS NOT NULL AND state = 0;

-- Runs of an agent that failed one after the other, since it last succeeded. An agent that does not fail has no row, and its
-- runs cost none.
CREATE TABLE streaks (
    agent  TEXT    PRIMARY KEY,
    failed INTEGER NOT NULL,
    since  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER runs_failed AFTER UPDATE OF state ON runs WHEN new.state = 5 AND old.state <> 5
BEGIN
    INSERT INTO streaks VALUES (new.agent, 1, coalesce(new.finished_at, 0))
    ON CONFLICT DO UPDATE SET failed = failed + 1;
END;

CREATE TRIGGER runs_succeeded AFTER UPDATE OF state ON runs WHEN new.state = 4 AND old.state <> 4
BEGIN
    DELETE FROM streaks WHERE agent = new.agent;
END;
