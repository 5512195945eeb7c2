-- +goose Up
-- The last commit of each process that shares the records, so that one whose connection broke learns what became of it.
CREATE TABLE writers (writer TEXT PRIMARY KEY, commit_number BIGINT NOT NULL);

-- +goose Down
DROP TABLE writers;
