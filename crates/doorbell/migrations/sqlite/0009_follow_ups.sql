-- When it was told where the event came from how its run ended, or was given up; then why. NULL: nobody was told.
ALTER TABLE runs ADD COLUMN followed_up_at INTEGER;
ALTER TABLE runs ADD COLUMN follow_up_error TEXT;
