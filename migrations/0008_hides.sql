-- Hides and reports are few among the events, and all of the last 200 days are read at every start.
CREATE INDEX ON events (received_at) WHERE kind IN ('hide', 'report');
