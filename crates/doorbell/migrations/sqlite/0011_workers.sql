-- Who carries a running run out. NULL: the gateway that claimed it. 0: an agent behind a URL, which took it and tells later how
-- it ended. Else a worker, whose lease is extended by so many milliseconds.
ALTER TABLE runs ADD COLUMN holder INTEGER;
-- The worker that a try was handed to.
ALTER TABLE attempts ADD COLUMN worker TEXT;
