-- The index of recipients is made anew: an earlier version kept entries of messages that retention had deleted. What is
-- deleted is asked for early, as in the other tables.
DELETE FROM search_entry;
DELETE FROM search_run;
DELETE FROM search_index;
ALTER TABLE search_entry SET (autovacuum_vacuum_scale_factor = 0.02);
