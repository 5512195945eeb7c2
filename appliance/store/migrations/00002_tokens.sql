-- +goose Up
CREATE TABLE tokens (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);

-- +goose Down
DROP TABLE tokens;
