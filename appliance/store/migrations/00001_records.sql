-- +goose Up
-- A column is what queries ask for; doc is the whole record as JSON. Every record has a version, raised by each change.
CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
INSERT INTO epoch (one, epoch) VALUES (1, 1);

CREATE TABLE machines    (id TEXT PRIMARY KEY, version INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE TABLE deployments (id TEXT PRIMARY KEY, version INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE TABLE sessions    (id TEXT PRIMARY KEY, version INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE TABLE jobs        (id TEXT PRIMARY KEY, version INTEGER NOT NULL, machine TEXT NOT NULL,
                          ended INTEGER NOT NULL, -- seconds since 1970, 0 while the job has not ended
                          doc TEXT NOT NULL);
CREATE INDEX jobs_ended ON jobs (ended);

CREATE TABLE events   (id INTEGER PRIMARY KEY AUTOINCREMENT, doc TEXT NOT NULL);
CREATE TABLE frames   (job TEXT NOT NULL, digest TEXT NOT NULL, at INTEGER NOT NULL, -- nanoseconds since 1970
                       bytes BLOB NOT NULL, PRIMARY KEY (job, digest));
CREATE TABLE receipts (job TEXT PRIMARY KEY, at INTEGER NOT NULL, receipt BLOB NOT NULL, signature BLOB NOT NULL,
                       countersignature BLOB NOT NULL);

-- +goose Down
DROP TABLE receipts;
DROP TABLE frames;
DROP TABLE events;
DROP TABLE jobs;
DROP TABLE sessions;
DROP TABLE deployments;
DROP TABLE machines;
DROP TABLE epoch;
