-- Flow control. A run of an agent without any has NULL in all of these, and costs no row and no entry of an index more.
--
-- Runs that share a key are in one lane. `turn` is the round in which a queued run is taken: each lane has one run in each
-- round, and what comes gets a round after the one that is served. So whoever takes the lowest turn serves lanes fairly:
-- while the first run of a lane waits, two of any other are taken before it at most.
ALTER TABLE runs ADD COLUMN lane TEXT;
-- 1: of the runs of this lane that are alone, one at a time runs or has a turn; the others wait without one.
ALTER TABLE runs ADD COLUMN alone INTEGER;
ALTER TABLE runs ADD COLUMN priority INTEGER;
-- What throttles it: the place of its trigger and the rate. Empty: nothing.
ALTER TABLE runs ADD COLUMN gate TEXT;
ALTER TABLE runs ADD COLUMN turn INTEGER;
-- 1: it replaces what is older, so it never follows what is newer.
ALTER TABLE runs ADD COLUMN replaces INTEGER;
-- How long it may gather events; NULL: it does not.
ALTER TABLE runs ADD COLUMN gathers_until INTEGER;
-- Events that it took in beside its own.
ALTER TABLE runs ADD COLUMN absorbed INTEGER;
-- When it was made, if its lane is limited and it was not held.
ALTER TABLE runs ADD COLUMN counted_at INTEGER;
-- The run that replaces it while it is asked to end.
ALTER TABLE runs ADD COLUMN replaced_by INTEGER;

CREATE INDEX runs_in_lane ON runs (agent, lane, alone, state, turn) WHERE lane IS NOT NULL;
CREATE INDEX runs_in_turn ON runs (agent, gate, priority DESC, turn) WHERE turn IS NOT NULL AND state = 2;
-- The last turn of a lane that is not alone.
CREATE INDEX runs_in_round ON runs (agent, lane, gate, priority, turn) WHERE turn IS NOT NULL AND state = 2;
CREATE INDEX runs_counted ON runs (agent, lane, counted_at) WHERE counted_at IS NOT NULL;
CREATE INDEX outcomes_absorbed ON outcomes (run_seq, event_seq) WHERE kind = 1;

-- How far each class of an agent's runs is: the round of the last one that was taken, and when it was its class's turn.
CREATE TABLE turns (
    agent    TEXT    NOT NULL,
    gate     TEXT    NOT NULL,
    priority INTEGER NOT NULL,
    turn     INTEGER NOT NULL,
    served   INTEGER NOT NULL,
    PRIMARY KEY (agent, gate, priority)
) WITHOUT ROWID;

-- The starts that count for a throttle; older ones are removed with each new one.
CREATE TABLE throttled (
    number INTEGER PRIMARY KEY,
    agent  TEXT    NOT NULL,
    gate   TEXT    NOT NULL,
    at     INTEGER NOT NULL
);
CREATE INDEX throttled_by_gate ON throttled (agent, gate, at);

-- Turns follow the state of runs, whatever changes it: a lane can neither be forgotten nor be taken twice. A new run gets
-- its turn by whoever writes it, as most runs are in no lane and should not be asked.
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
                        AND r.state = 2 AND r.turn IS NOT NULL)));
END;

-- The next one of the lane, in the order of commits: in the next round, or in the place of one that left before its turn.
CREATE TRIGGER runs_lane_left AFTER UPDATE OF state ON runs
WHEN new.lane IS NOT NULL AND new.alone = 1 AND old.state IN (2, 3) AND new.state NOT IN (2, 3)
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
                    AND r.state = 2 AND r.turn IS NOT NULL);
END;
