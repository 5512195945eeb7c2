-- +goose Up
CREATE TABLE tokens (id TEXT PRIMARY KEY, version INTEGER NOT NULL, doc TEXT NOT NULL);

-- +goose Down
DROP TABLE tokens;
