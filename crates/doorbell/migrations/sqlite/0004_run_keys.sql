-- What a run is about: the value of its trigger's `key`. Most triggers have none.
ALTER TABLE runs ADD COLUMN key TEXT;
CREATE INDEX runs_by_key ON runs (key) WHERE key IS NOT NULL;

-- Outcomes have a further kind: 4, filter_error. It is the only one that may be replaced, when the event is delivered
-- again.
