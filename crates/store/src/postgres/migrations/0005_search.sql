-- By whom messages are found: a hash of each address and user id, of a run of messages at a time. Runs are numbered from 1;
-- run 0 has what was accepted with a number that its run had gone past. first, last: the executions of a run.
CREATE TABLE search_run (
  sbx BIGINT NOT NULL,
  run INTEGER NOT NULL,
  first BIGINT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (sbx, run)
);

CREATE TABLE search_entry (
  sbx BIGINT NOT NULL,
  run INTEGER NOT NULL,
  hash BIGINT NOT NULL,
  exec BIGINT NOT NULL,
  PRIMARY KEY (sbx, run, hash, exec)
);

-- announced: whoever accepts an execution with a number up to this one enters it himself.
CREATE TABLE search_index (
  sbx BIGINT PRIMARY KEY,
  announced BIGINT NOT NULL
);
