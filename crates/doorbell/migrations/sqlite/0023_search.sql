-- The index over what events say, for search: a group is 2,048 events that follow each other. It holds no text: each part has the
-- hashes of words and of their beginnings that fall into it, with the blocks of 32 events in which they are, sorted and packed.
-- A group without a row is not indexed, and its events are looked at themselves. `format`: how it was made.
CREATE TABLE search_groups (
    number INTEGER PRIMARY KEY,
    format INTEGER NOT NULL
);

-- `id` is the group's number times 64, and the part's.
CREATE TABLE search_parts (
    id   INTEGER PRIMARY KEY,
    data BLOB    NOT NULL
);
