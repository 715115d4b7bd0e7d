-- The version of the trigger set that an outcome was decided by, where it is not the event's own: a redelivery starts
-- agents whose triggers came later.
ALTER TABLE outcomes ADD COLUMN trigger_set INTEGER;
