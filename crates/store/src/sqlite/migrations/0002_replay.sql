-- The replay that made an event's delivery due again. Null for all others: one byte of a row.
ALTER TABLE event ADD COLUMN replay BLOB;

-- start, position, until: places in the feed. open: places of deliveries made due that had not ended, as JSON.
CREATE TABLE replay (
  id BLOB PRIMARY KEY,
  sbx INTEGER NOT NULL REFERENCES sandbox (sbx),
  settings TEXT NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT,
  start INTEGER NOT NULL,
  position INTEGER NOT NULL,
  until INTEGER NOT NULL,
  replayed INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  open TEXT NOT NULL,
  ended_at INTEGER,
  stamps TEXT NOT NULL,
  revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX replay_of ON replay (sbx, id);
CREATE UNIQUE INDEX replay_running ON replay (sbx) WHERE state = 0;
