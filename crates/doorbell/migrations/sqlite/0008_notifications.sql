-- Dead letters that nobody was told of yet. A trigger fills it, so that a run's end and the duty to tell of it are one
-- transaction, whoever ended the run.
CREATE TABLE untold (
    number  INTEGER PRIMARY KEY,
    run_seq INTEGER NOT NULL
);
CREATE TRIGGER runs_untold AFTER UPDATE OF dead_letter ON runs
WHEN new.dead_letter = 1 AND old.dead_letter = 0
BEGIN
    INSERT INTO untold (run_seq) VALUES (new.seq);
END;

-- What notifications remember: messages on their way, and what each source is used to.
CREATE TABLE notes (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
