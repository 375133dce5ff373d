-- Hides and reports are few among the events, and all of the last 200 days are read at every start.
CREATE INDEX ON events (received_at) WHERE kind IN ('hide', 'report');

-- Ids of tickets do not compress: trying takes most of the time that a checkpoint takes.
ALTER TABLE counter_checkpoints ALTER COLUMN payload SET STORAGE EXTERNAL;
