-- By whom messages are found: a hash of each address and user id, of a run of messages at a time. Runs are numbered from 1;
-- run 0 has what was accepted with a number that its run had gone past. first, last: the executions of a run.
CREATE TABLE search_run (
  sbx INTEGER NOT NULL,
  run INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (sbx, run)
) WITHOUT ROWID;

CREATE TABLE search_entry (
  sbx INTEGER NOT NULL,
  run INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  exec INTEGER NOT NULL,
  PRIMARY KEY (sbx, run, hash, exec)
) WITHOUT ROWID;
