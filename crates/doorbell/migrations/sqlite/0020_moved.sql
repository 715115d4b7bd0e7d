-- Who had a run go on last that was held, waited, or had ended badly (JSON); NULL if nobody did.
ALTER TABLE runs ADD COLUMN moved TEXT;

-- The calls of a run: what other agents it started.
CREATE INDEX events_calls ON events (json_extract(context, '$.parent')) WHERE provider = 'agent' AND json_valid(context);
