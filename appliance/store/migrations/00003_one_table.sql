-- +goose Up
-- All records are in one table, numbered by the commit that wrote them last, so that appliances that share them read what
-- the others wrote. A record that was removed leaves an empty doc for a while.
CREATE TABLE records (
  kind    TEXT   NOT NULL,
  id      TEXT   NOT NULL,
  version BIGINT NOT NULL,
  commit_number BIGINT NOT NULL,
  owner   TEXT   NOT NULL, -- whose history it is: of a job, the machine
  parent  TEXT   NOT NULL, -- what it belongs to: of a job, the deployment
  ended   BIGINT NOT NULL, -- seconds since 1970, 0 while it has not
  doc     TEXT   NOT NULL,
  PRIMARY KEY (kind, id)
);
CREATE INDEX records_commit ON records (commit_number);
CREATE INDEX records_ended  ON records (kind, ended);
CREATE INDEX records_owner  ON records (kind, owner, ended);
CREATE INDEX records_parent ON records (kind, parent, ended);

INSERT INTO records SELECT 'machine',    id, version, 0, '', '', 0, doc FROM machines;
INSERT INTO records SELECT 'deployment', id, version, 0, '', '', 0, doc FROM deployments;
INSERT INTO records SELECT 'session',    id, version, 0, '', '', 0, doc FROM sessions;
INSERT INTO records SELECT 'token',      id, version, 0, '', '', 0, doc FROM tokens;
INSERT INTO records SELECT 'job',        id, version, 0, machine, '', ended, doc FROM jobs;

-- One row: the number of the last commit, below which number removals are forgotten, the last event, who schedules.
CREATE TABLE site (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  commit_number BIGINT NOT NULL,
  forgot BIGINT NOT NULL,
  event  BIGINT NOT NULL,
  epoch  BIGINT NOT NULL,
  holder TEXT   NOT NULL,
  beat   BIGINT NOT NULL
);
INSERT INTO site SELECT 1, 0, 0, COALESCE((SELECT MAX(id) FROM events), 0), epoch, '', 0 FROM epoch;

CREATE TABLE attendance (appliance TEXT PRIMARY KEY, beat BIGINT NOT NULL, doc TEXT NOT NULL);

ALTER TABLE events ADD COLUMN kind       TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN machine    TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN job        TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN deployment TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN actor      TEXT NOT NULL DEFAULT '';
CREATE INDEX events_machine    ON events (machine, id);
CREATE INDEX events_job        ON events (job, id);
CREATE INDEX events_deployment ON events (deployment, id);

DROP TABLE machines;
DROP TABLE deployments;
DROP TABLE sessions;
DROP TABLE tokens;
DROP TABLE jobs;
DROP TABLE epoch;

-- +goose Down
CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
INSERT INTO epoch SELECT 1, epoch FROM site;
CREATE TABLE machines    (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE deployments (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE sessions    (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE tokens      (id TEXT PRIMARY KEY, version BIGINT NOT NULL, doc TEXT NOT NULL);
CREATE TABLE jobs        (id TEXT PRIMARY KEY, version BIGINT NOT NULL, machine TEXT NOT NULL, ended BIGINT NOT NULL, doc TEXT NOT NULL);
INSERT INTO machines    SELECT id, version, doc FROM records WHERE kind = 'machine' AND doc <> '';
INSERT INTO deployments SELECT id, version, doc FROM records WHERE kind = 'deployment' AND doc <> '';
INSERT INTO sessions    SELECT id, version, doc FROM records WHERE kind = 'session' AND doc <> '';
INSERT INTO tokens      SELECT id, version, doc FROM records WHERE kind = 'token' AND doc <> '';
INSERT INTO jobs        SELECT id, version, owner, ended, doc FROM records WHERE kind = 'job' AND doc <> '';
CREATE INDEX jobs_ended ON jobs (ended);
DROP INDEX events_machine;
DROP INDEX events_job;
DROP INDEX events_deployment;
ALTER TABLE events DROP COLUMN kind;
ALTER TABLE events DROP COLUMN machine;
ALTER TABLE events DROP COLUMN job;
ALTER TABLE events DROP COLUMN deployment;
ALTER TABLE events DROP COLUMN actor;
DROP TABLE attendance;
DROP TABLE site;
DROP TABLE records;
