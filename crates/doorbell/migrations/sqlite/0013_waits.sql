-- Runs that wait. What for (JSON), and of these the run whose end is waited for; only while it waits or is held meanwhile.
ALTER TABLE runs ADD COLUMN wait TEXT;
ALTER TABLE runs ADD COLUMN wait_run BLOB;
-- What its last wait was over by (JSON); NULL while it waits, and before the first one.
ALTER TABLE runs ADD COLUMN resumed TEXT;
-- Events after this sequence are new to it: those since its first try began, or since the one that it went on by.
ALTER TABLE runs ADD COLUMN heard INTEGER;
-- The same of the try that began then.
ALTER TABLE attempts ADD COLUMN resumed TEXT;

-- What steps of a run came to, so that its later tries need not take them again.
CREATE TABLE steps (
    run_seq INTEGER NOT NULL,
    key     TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    value   TEXT    NOT NULL,
    PRIMARY KEY (run_seq, key)
) WITHOUT ROWID;

CREATE INDEX runs_that_wait ON runs (agent, lane, alone) WHERE wait IS NOT NULL;
CREATE INDEX runs_waited_for ON runs (wait_run) WHERE wait_run IS NOT NULL;
-- Whoever has a lease shows it without naming its run. Only runs that run have one.
CREATE INDEX runs_by_lease ON runs (lease) WHERE lease IS NOT NULL;

-- A wait is over with the state: by whatever queued the run, by its time if nothing else did, or by its end.
CREATE TRIGGER runs_wait_over AFTER UPDATE OF state ON runs
WHEN old.wait IS NOT NULL AND new.state NOT IN (0, 1)
BEGIN
    UPDATE runs SET wait = NULL, wait_run = NULL, resumed = iif(new.state <> 2, resumed, coalesce(resumed,
        iif(json_extract(old.wait, '$.kind') = 'sleep', '{"kind":"sleep"}', '{"kind":"timeout"}')))
    WHERE seq = new.seq;
END;

-- Whoever waits for the end of a run goes on with it, however it ended: due at once.
CREATE TRIGGER runs_waited_for_over AFTER UPDATE OF state ON runs
WHEN new.state >= 4 AND old.state < 4
BEGIN
    UPDATE runs SET due = 0, resumed = json_object('kind', 'run', 'run_id', json_extract(wait, '$.run'), 'state',
        CASE new.state WHEN 4 THEN 'succeeded' WHEN 5 THEN 'failed' WHEN 6 THEN 'cancelled' WHEN 7 THEN 'superseded'
                       ELSE 'dropped' END)
    WHERE wait_run = new.id AND resumed IS NULL;
END;

-- A run that waits keeps its key: the others of a lane that is alone have no turn meanwhile. As in `0010_flow`, with the
-- last condition new in both.
DROP TRIGGER runs_lane_entered;
CREATE TRIGGER runs_lane_entered AFTER UPDATE OF state ON runs
WHEN new.lane IS NOT NULL AND new.state = 2 AND old.state <> 2
BEGIN
    -- What it had before is of another time.
    UPDATE runs SET turn = NULL WHERE seq = new.seq;
    UPDATE runs SET turn = 1 + max(
        coalesce((SELECT turn FROM turns WHERE agent = new.agent AND gate = new.gate AND priority = new.priority), 0),
        coalesce((SELECT r.turn FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.gate = new.gate
                  AND r.priority = new.priority AND r.turn IS NOT NULL AND r.state = 2 ORDER BY r.turn DESC LIMIT 1), 0))
    WHERE seq = new.seq AND (new.alone = 0 OR (
        NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.alone = 1
                    AND r.state = 3)
        AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.alone = 1
                        AND r.state = 2 AND r.turn IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM runs r INDEXED BY runs_that_wait WHERE r.agent = new.agent AND r.lane = new.lane
                        AND r.alone = 1 AND r.wait IS NOT NULL AND r.seq <> new.seq)));
END;

DROP TRIGGER runs_lane_left;
CREATE TRIGGER runs_lane_left AFTER UPDATE OF state ON runs
WHEN new.lane IS NOT NULL AND new.alone = 1 AND new.state NOT IN (2, 3)
     AND ((old.state IN (2, 3) AND new.wait IS NULL) OR (old.wait IS NOT NULL AND new.state NOT IN (0, 1)))
BEGIN
    UPDATE runs SET turn = max(
        1 + coalesce((SELECT t.turn FROM turns t WHERE t.agent = runs.agent AND t.gate = runs.gate
                      AND t.priority = runs.priority), 0),
        iif(runs.gate = old.gate AND runs.priority = old.priority, coalesce(old.turn, 0), 0))
    WHERE seq = (SELECT r.seq FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.alone = 1
                 AND r.state = 2 AND r.turn IS NULL ORDER BY r.seq LIMIT 1)
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.alone = 1
                    AND r.state = 3)
    AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.agent = new.agent AND r.lane = new.lane AND r.alone = 1
                    AND r.state = 2 AND r.turn IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM runs r INDEXED BY runs_that_wait WHERE r.agent = new.agent AND r.lane = new.lane
                    AND r.alone = 1 AND r.wait IS NOT NULL AND r.seq <> new.seq);
END;
