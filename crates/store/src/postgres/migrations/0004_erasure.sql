-- The address is here, sealed, only as long as the erasure runs. at_sbx, at_exec, at_ord: the last message looked at.
CREATE TABLE erasure (
  id UUID PRIMARY KEY,
  org TEXT COLLATE "C" NOT NULL REFERENCES organization (id),
  digest TEXT NOT NULL,
  sealed BYTEA,
  at_sbx BIGINT NOT NULL DEFAULT 0,
  at_exec BIGINT NOT NULL DEFAULT 0,
  at_ord SMALLINT NOT NULL DEFAULT 0,
  erased TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  completed_at BIGINT
);
CREATE INDEX erasure_of ON erasure (org, id);
CREATE INDEX erasure_running ON erasure (id) WHERE completed_at IS NULL;
