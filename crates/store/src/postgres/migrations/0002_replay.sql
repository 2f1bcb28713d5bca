-- The replay that made an event's delivery due again.
ALTER TABLE event ADD COLUMN replay UUID;

-- start, position, until: places in the feed. open: places of deliveries made due that had not ended.
CREATE TABLE replay (
  id UUID PRIMARY KEY,
  sbx BIGINT NOT NULL REFERENCES sandbox (sbx),
  settings TEXT NOT NULL,
  state SMALLINT NOT NULL,
  reason TEXT,
  start BIGINT NOT NULL,
  position BIGINT NOT NULL,
  until BIGINT NOT NULL,
  replayed BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  open BIGINT[] NOT NULL,
  ended_at BIGINT,
  stamps TEXT NOT NULL,
  revision BIGINT NOT NULL
);
CREATE INDEX replay_of ON replay (sbx, id);
CREATE UNIQUE INDEX replay_running ON replay (sbx) WHERE state = 0;
