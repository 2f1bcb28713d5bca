-- Ids are UUIDs at the edges and small integers inside (sbx, q, ver, k), to keep the hot rows short.
-- Times are milliseconds since the Unix epoch. State codes are those of the model and never change.
-- COLLATE "C": lists are in the order of bytes, as their cursors are.
-- JSON is kept as text: nothing of it is looked into here, and what is looked for has a column.

CREATE TABLE organization (
  id TEXT COLLATE "C" PRIMARY KEY,
  name TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL
);

CREATE TABLE sandbox (
  sbx BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  org TEXT COLLATE "C" NOT NULL REFERENCES organization (id),
  name TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  UNIQUE (org, name)
);

-- The last place given in a sandbox's feed. Whoever records holds the row until the commit, so that places are given in
-- commit order. Half-empty pages: each commit leaves a version behind, and it is to stay in the page.
CREATE TABLE feed (
  sbx BIGINT PRIMARY KEY REFERENCES sandbox (sbx),
  last BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE api_key (
  k BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  org TEXT COLLATE "C" NOT NULL REFERENCES organization (id),
  role TEXT NOT NULL,
  name TEXT NOT NULL,
  sandboxes TEXT,
  hash BYTEA NOT NULL UNIQUE,
  expires_at BIGINT,
  revoked_at BIGINT,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL
);
CREATE INDEX api_key_of ON api_key (org, id);

CREATE TABLE audit_log (
  org TEXT COLLATE "C" NOT NULL,
  id UUID NOT NULL,
  sandbox TEXT,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  resource TEXT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (org, id)
);

-- owner: whose lease it is; null: nobody's.
CREATE TABLE shard (
  shard INTEGER PRIMARY KEY,
  owner UUID,
  epoch BIGINT NOT NULL,
  until BIGINT NOT NULL
) WITH (fillfactor = 50);
INSERT INTO shard SELECT n, NULL, 0, 0 FROM generate_series(0, 255) n;

-- Each process that works here takes the next number, for the ids that it makes.
CREATE SEQUENCE node;

-- failing_since and last_error are what attempts note, and change without a new revision.
CREATE TABLE webhook (
  id UUID PRIMARY KEY,
  sbx BIGINT NOT NULL UNIQUE REFERENCES sandbox (sbx),
  name TEXT NOT NULL,
  settings TEXT NOT NULL,
  keys TEXT NOT NULL,
  has_jwt_keys BOOLEAN NOT NULL,
  control TEXT NOT NULL,
  failing_since BIGINT,
  last_error TEXT,
  sealed BYTEA,
  stamps TEXT NOT NULL,
  revision BIGINT NOT NULL,
  deleting BOOLEAN NOT NULL DEFAULT false
);

CREATE TABLE channel_configuration (
  q BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  sbx BIGINT NOT NULL REFERENCES sandbox (sbx),
  settings TEXT NOT NULL,
  paused BOOLEAN NOT NULL,
  sealed BYTEA,
  stamps TEXT NOT NULL,
  revision BIGINT NOT NULL
);
CREATE INDEX channel_configuration_of ON channel_configuration (sbx, id);

-- draft_channel: the channel configuration that the draft names.
CREATE TABLE campaign (
  id UUID PRIMARY KEY,
  sbx BIGINT NOT NULL REFERENCES sandbox (sbx),
  status TEXT NOT NULL,
  live BIGINT,
  draft TEXT,
  draft_channel UUID,
  stamps TEXT NOT NULL,
  revision BIGINT NOT NULL
);
CREATE INDEX campaign_of ON campaign (sbx, id);

CREATE TABLE campaign_version (
  ver BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  campaign UUID NOT NULL,
  sbx BIGINT NOT NULL,
  q BIGINT NOT NULL REFERENCES channel_configuration (q),
  channel TEXT NOT NULL,
  settings TEXT NOT NULL
);
CREATE INDEX campaign_version_of ON campaign_version (campaign, ver);
CREATE INDEX campaign_version_through ON campaign_version (q);

-- body: a digest of the request, which tells a repetition from a conflict.
CREATE TABLE execution (
  sbx BIGINT NOT NULL,
  exec BIGINT NOT NULL,
  request_id TEXT COLLATE "C" NOT NULL,
  ver BIGINT NOT NULL,
  prio SMALLINT NOT NULL,
  expires_at BIGINT,
  created_at BIGINT NOT NULL,
  k BIGINT NOT NULL,
  body BYTEA NOT NULL,
  PRIMARY KEY (sbx, exec)
);
CREATE INDEX execution_request ON execution (sbx, request_id, exec);

-- due_at: when the next try, or the planned outcome, is due; null once nothing is.
CREATE TABLE message (
  sbx BIGINT NOT NULL,
  exec BIGINT NOT NULL,
  q BIGINT NOT NULL,
  first_due BIGINT NOT NULL,
  due_at BIGINT,
  last_event BIGINT,
  ord SMALLINT NOT NULL,
  state SMALLINT NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  events SMALLINT NOT NULL DEFAULT 0,
  prio SMALLINT NOT NULL,
  delayed BOOLEAN NOT NULL DEFAULT false,
  user_id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  address TEXT,
  planned TEXT,
  personal BYTEA,
  PRIMARY KEY (sbx, exec, ord)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX message_due ON message (q, prio, due_at) WHERE due_at IS NOT NULL;

-- A feedback event with its delivery. seq rises in commit order. prev: the message's event before this one.
-- followed: an event of the same message waits for the end of this one. The attempt that succeeded is in the row.
CREATE TABLE event (
  sbx BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  exec BIGINT NOT NULL,
  prev BIGINT,
  occurred_at BIGINT NOT NULL,
  recorded_at BIGINT NOT NULL,
  first_due BIGINT,
  due_at BIGINT,
  ended_at BIGINT,
  attempt_at BIGINT,
  attempt_ms INTEGER,
  attempt_status INTEGER,
  retry_count INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  response_code INTEGER,
  response_ms INTEGER,
  parts INTEGER,
  ord SMALLINT NOT NULL,
  n SMALLINT NOT NULL,
  status SMALLINT NOT NULL,
  payload SMALLINT NOT NULL,
  delivery SMALLINT NOT NULL,
  followed BOOLEAN NOT NULL DEFAULT false,
  encoding TEXT,
  why TEXT,
  attempt_excerpt TEXT,
  PRIMARY KEY (sbx, seq)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX event_due ON event (sbx, due_at, seq) WHERE delivery = 1;
CREATE INDEX event_ended ON event (sbx, delivery, seq) WHERE delivery IN (2, 4, 5);

CREATE TABLE attempt (
  sbx BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  n INTEGER NOT NULL,
  at BIGINT NOT NULL,
  ms INTEGER NOT NULL,
  status INTEGER,
  excerpt TEXT,
  error_kind TEXT,
  error TEXT,
  PRIMARY KEY (sbx, seq, n)
);
