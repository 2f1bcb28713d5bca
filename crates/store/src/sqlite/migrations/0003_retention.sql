-- What an organization has instead of the operator's retention, as JSON.
ALTER TABLE organization ADD COLUMN retention TEXT;
