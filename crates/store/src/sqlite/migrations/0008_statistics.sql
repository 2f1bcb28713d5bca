-- again: a delivery that had ended and was made due again, by a replay or by hand. Null for all others.
ALTER TABLE event ADD COLUMN again INTEGER;

-- What happened in a minute (span 0) or an hour (span 1) that begins at `at`. counts: how many by kind, as JSON.
CREATE TABLE statistic (
  sbx INTEGER NOT NULL,
  span INTEGER NOT NULL,
  at INTEGER NOT NULL,
  counts TEXT NOT NULL,
  last_success INTEGER,
  PRIMARY KEY (sbx, span, at)
) WITHOUT ROWID;
