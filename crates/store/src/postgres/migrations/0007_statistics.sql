-- again: a delivery that had ended and was made due again, by a replay or by hand. Null for all others.
ALTER TABLE event ADD COLUMN again BOOLEAN;

-- What happened in a minute (span 0) or an hour (span 1) that begins at `at`: how many by kind. part: a number of the lane
-- that counted, so that nobody waits for another's row. last: of successes, when the last was.
CREATE TABLE statistic (
  sbx BIGINT NOT NULL,
  at BIGINT NOT NULL,
  n BIGINT NOT NULL,
  last BIGINT,
  span SMALLINT NOT NULL,
  kind SMALLINT NOT NULL,
  part SMALLINT NOT NULL,
  PRIMARY KEY (sbx, span, at, kind, part)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
