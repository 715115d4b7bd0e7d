-- 1: somebody put it into the queue (released, resumed, tried again, replayed), or its agent came back. It takes no place
-- there, and nothing displaces it.
ALTER TABLE runs ADD COLUMN kept INTEGER;
-- Of a replay: the sequence of the event that it says again, which is how old it is to others; 0: that is gone.
ALTER TABLE runs ADD COLUMN age INTEGER;
-- What its reason was when it was held.
ALTER TABLE runs ADD COLUMN reason_before TEXT;

-- Runs under flow control that give way when their agent's queue is full: the lowest priority first, and of these the
-- oldest.
CREATE INDEX runs_giving_way ON runs (agent, priority, seq)
WHERE lane IS NOT NULL AND attempt = 0 AND kept IS NULL AND state IN (1, 2);
