-- The address is here, sealed, only as long as the erasure runs. at_sbx, at_exec, at_ord: the last message looked at.
CREATE TABLE erasure (
  id BLOB PRIMARY KEY,
  org TEXT NOT NULL REFERENCES organization (id),
  digest TEXT NOT NULL,
  sealed BLOB,
  at_sbx INTEGER NOT NULL DEFAULT 0,
  at_exec INTEGER NOT NULL DEFAULT 0,
  at_ord INTEGER NOT NULL DEFAULT 0,
  rows_done INTEGER NOT NULL DEFAULT 0,
  erased TEXT NOT NULL,
  mentions_left INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  completed_at INTEGER
) WITHOUT ROWID;
CREATE INDEX erasure_of ON erasure (org, id);
CREATE INDEX erasure_running ON erasure (id) WHERE completed_at IS NULL;
