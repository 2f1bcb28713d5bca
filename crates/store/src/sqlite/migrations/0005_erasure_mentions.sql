-- It was counted over the whole file, and so told one organization what another one's rows hold.
ALTER TABLE erasure DROP COLUMN mentions_left;
