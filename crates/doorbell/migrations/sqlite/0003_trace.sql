-- The trace of the delivery that made the run, which the run's tries go on with (a `traceparent` of W3C Trace Context);
-- NULL, and nothing on the disk, while nothing is traced.
ALTER TABLE runs ADD COLUMN trace TEXT;
