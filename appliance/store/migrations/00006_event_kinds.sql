-- +goose Up
-- Events are asked for by kind, by the beginning of a kind as far as its dot (rtrim takes what is behind it away), and by who did it,
-- always in the order of their numbers.
CREATE INDEX events_kind  ON events (kind, id);
CREATE INDEX events_topic ON events (rtrim(kind, 'abcdefghijklmnopqrstuvwxyz0123456789-'), id);
CREATE INDEX events_actor ON events (actor, id);

-- +goose Down
DROP INDEX events_actor;
DROP INDEX events_topic;
DROP INDEX events_kind;
