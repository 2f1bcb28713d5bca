-- Ids are 16-byte UUIDs at the edges and small integers inside (sbx, q, ver, k), to keep the hot rows short.
-- Times are milliseconds since the Unix epoch. State codes are those of the model and never change.

CREATE TABLE organization (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE sandbox (
  sbx INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  org TEXT NOT NULL REFERENCES organization (id),
  name TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  UNIQUE (org, name)
);

CREATE TABLE api_key (
  k INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  org TEXT NOT NULL REFERENCES organization (id),
  role TEXT NOT NULL,
  name TEXT NOT NULL,
  sandboxes TEXT,
  hash BLOB NOT NULL UNIQUE,
  expires_at INTEGER,
  revoked_at INTEGER,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL
);
CREATE INDEX api_key_of ON api_key (org, k);

CREATE TABLE audit_log (
  org TEXT NOT NULL,
  id BLOB NOT NULL,
  sandbox TEXT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (org, id)
) WITHOUT ROWID;

CREATE TABLE shard (
  shard INTEGER PRIMARY KEY,
  owner BLOB,
  epoch INTEGER NOT NULL,
  until INTEGER NOT NULL
);

CREATE TABLE webhook (
  id BLOB PRIMARY KEY,
  sbx INTEGER NOT NULL UNIQUE REFERENCES sandbox (sbx),
  name TEXT NOT NULL,
  settings TEXT NOT NULL,
  keys TEXT NOT NULL,
  control TEXT NOT NULL,
  sealed BLOB,
  stamps TEXT NOT NULL,
  revision INTEGER NOT NULL,
  deleting INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Deleted ones leave their q unused (AUTOINCREMENT), because q is remembered.
CREATE TABLE channel_configuration (
  q INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  sbx INTEGER NOT NULL REFERENCES sandbox (sbx),
  settings TEXT NOT NULL,
  paused INTEGER NOT NULL,
  sealed BLOB,
  stamps TEXT NOT NULL,
  revision INTEGER NOT NULL
);
CREATE INDEX channel_configuration_of ON channel_configuration (sbx, id);

CREATE TABLE campaign (
  id BLOB PRIMARY KEY,
  sbx INTEGER NOT NULL REFERENCES sandbox (sbx),
  status TEXT NOT NULL,
  live INTEGER,
  draft TEXT,
  stamps TEXT NOT NULL,
  revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX campaign_of ON campaign (sbx, id);

CREATE TABLE campaign_version (
  ver INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  campaign BLOB NOT NULL,
  sbx INTEGER NOT NULL,
  q INTEGER NOT NULL REFERENCES channel_configuration (q),
  settings TEXT NOT NULL
);
CREATE INDEX campaign_version_of ON campaign_version (campaign, ver);
CREATE INDEX campaign_version_through ON campaign_version (q);

-- body: a digest of the request, which tells a repetition from a conflict.
CREATE TABLE execution (
  sbx INTEGER NOT NULL,
  exec INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  ver INTEGER NOT NULL,
  prio INTEGER NOT NULL,
  expires_at INTEGER,
  created_at INTEGER NOT NULL,
  k INTEGER NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (sbx, exec)
) WITHOUT ROWID;
CREATE INDEX execution_request ON execution (sbx, request_id, exec);

-- due_at: when the next try, or the planned outcome, is due; null once nothing is.
CREATE TABLE message (
  sbx INTEGER NOT NULL,
  exec INTEGER NOT NULL,
  ord INTEGER NOT NULL,
  state INTEGER NOT NULL,
  delayed INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  events INTEGER NOT NULL,
  last_event INTEGER,
  q INTEGER NOT NULL,
  prio INTEGER NOT NULL,
  first_due INTEGER NOT NULL,
  due_at INTEGER,
  user_id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  address TEXT,
  planned TEXT,
  personal BLOB,
  PRIMARY KEY (sbx, exec, ord)
) WITHOUT ROWID;
CREATE INDEX message_due ON message (q, prio, due_at) WHERE due_at IS NOT NULL;

-- A feedback event with its delivery. seq rises in commit order. prev: the message's event before this one.
-- followed: an event of the same message waits for the end of this one. The attempt that succeeded is in the row.
CREATE TABLE event (
  sbx INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  exec INTEGER NOT NULL,
  ord INTEGER NOT NULL,
  n INTEGER NOT NULL,
  prev INTEGER,
  status INTEGER NOT NULL,
  occurred_at INTEGER NOT NULL,
  recorded_at INTEGER NOT NULL,
  retry_count INTEGER NOT NULL,
  payload INTEGER NOT NULL,
  response_code INTEGER,
  response_ms INTEGER,
  encoding TEXT,
  parts INTEGER,
  why TEXT,
  delivery INTEGER NOT NULL,
  followed INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  first_due INTEGER,
  due_at INTEGER,
  ended_at INTEGER,
  attempt_at INTEGER,
  attempt_ms INTEGER,
  attempt_status INTEGER,
  attempt_excerpt TEXT,
  PRIMARY KEY (sbx, seq)
) WITHOUT ROWID;
CREATE INDEX event_due ON event (sbx, due_at, seq) WHERE delivery = 1;
-- SQLite sees that one of the states implies the condition only where it is written with OR.
CREATE INDEX event_ended ON event (sbx, delivery, seq) WHERE delivery = 2 OR delivery = 4 OR delivery = 5;

CREATE TABLE attempt (
  sbx INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  n INTEGER NOT NULL,
  at INTEGER NOT NULL,
  ms INTEGER NOT NULL,
  status INTEGER,
  excerpt TEXT,
  error_kind TEXT,
  error TEXT,
  PRIMARY KEY (sbx, seq, n)
) WITHOUT ROWID;
