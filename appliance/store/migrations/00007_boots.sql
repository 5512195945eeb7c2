-- +goose Up
-- The last boots of the machines, as each appliance saw them: it writes its own rows alone, outside the commits, so that a room that boots
-- holds up nobody. Times are nanoseconds since 1970 by that appliance's clock; doc is the boot with its steps.
CREATE TABLE boots (
  mac       TEXT   NOT NULL,
  appliance TEXT   NOT NULL,
  began     BIGINT NOT NULL,
  latest    BIGINT NOT NULL,
  doc       TEXT   NOT NULL,
  PRIMARY KEY (mac, appliance, began)
);
CREATE INDEX boots_latest ON boots (latest);

-- +goose Down
DROP TABLE boots;
