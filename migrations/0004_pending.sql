-- A row is an impression or view that waits until the counters can say whether it counts: it is durable, and neither rated nor
-- charged. It leaves in the transaction that puts it among the events.
CREATE TABLE pending_events (
  issued_day   date NOT NULL,
  ticket_id    uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('impression', 'view')),
  event_id     uuid NOT NULL,
  lease_id     bigint NOT NULL,
  received_at  timestamptz NOT NULL,
  event        bytea NOT NULL,
  PRIMARY KEY (issued_day, ticket_id, kind)
);
CREATE INDEX ON pending_events (received_at, event_id);
CREATE INDEX ON pending_events (lease_id);

GRANT SELECT, INSERT, DELETE ON pending_events TO adserve_recorder;
