-- A row of `bare_events` is an event with its key and what a bill needs of it, and nothing that looks after it.

-- name: create
CREATE TABLE bare_events (
  issued_day     date NOT NULL,
  ticket_id      uuid NOT NULL,
  kind           text NOT NULL,
  event_id       uuid NOT NULL,
  outcome        text NOT NULL,
  billed_micros  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  received_at    timestamptz NOT NULL,
  PRIMARY KEY (issued_day, ticket_id, kind)
)

-- name: insert
INSERT INTO bare_events
SELECT * FROM unnest($1::date[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::timestamptz[])
ON CONFLICT DO NOTHING RETURNING ticket_id
