-- +goose Up
-- A column is what queries ask for; doc is the whole record as JSON. Every record has a version, raised by each change.
-- The statements hold for SQLite and PostgreSQL alike.
CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
INSERT INTO epoch (one, epoch) VALUES (1, 1);

CREATE TABLE machines    (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE deployments (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE sessions    (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE jobs        (id TEXT PRIMARY KEY, version BIGINT NOT NULL, machine TEXT NOT NULL,
                          ended BIGINT NOT NULL, -- seconds since 1970, 0 while the job has not ended
                          doc TEXT NOT NULL);
CREATE INDEX jobs_ended ON jobs (ended);

CREATE TABLE events   (id BIGINT PRIMARY KEY, doc TEXT NOT NULL);
CREATE TABLE frames   (job TEXT NOT NULL, digest TEXT NOT NULL, at BIGINT NOT NULL, -- nanoseconds since 1970
                       bytes BYTEA NOT NULL, PRIMARY KEY (job, digest));
CREATE TABLE receipts (job TEXT PRIMARY KEY, at BIGINT NOT NULL, receipt BYTEA NOT NULL, signature BYTEA NOT NULL,
                       countersignature BYTEA NOT NULL);

-- +goose Down
DROP TABLE receipts;
DROP TABLE frames;
DROP TABLE events;
DROP TABLE jobs;
DROP TABLE sessions;
DROP TABLE deployments;
DROP TABLE machines;
DROP TABLE epoch;
