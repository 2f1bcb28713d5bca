-- The index of recipients is made anew: an earlier version kept entries of messages that retention had deleted.
DELETE FROM search_entry;
DELETE FROM search_run;
