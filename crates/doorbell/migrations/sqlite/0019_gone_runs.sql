-- Runs that retention removed and whose folders may still be there: written with the removal, taken off with the folder.
CREATE TABLE gone_runs (
    id BLOB PRIMARY KEY
) WITHOUT ROWID;
