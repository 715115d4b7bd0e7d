-- An event that replays another one: the id of that, and of the replay. It says the same again, so what was forgotten of
-- the one must be forgotten of the other.
ALTER TABLE events ADD COLUMN replay_of BLOB;
ALTER TABLE events ADD COLUMN replay BLOB;
CREATE INDEX events_replays ON events (replay_of) WHERE replay_of IS NOT NULL;
