-- A row of `events` is one kind of event of one ticket; of `pending_events`, one that the counters have yet to judge; of
-- `quarantined_events`, one that could not be settled.

-- name: settle
SELECT ordinal, event_id, outcome FROM believe_epoch($2), settle_batch($1)

-- name: closed_day
SELECT max(day) FROM closed_days

-- name: quarantine
WITH kept AS (
  INSERT INTO quarantined_events (ticket_id, kind, event_id, event, error, at) VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT DO NOTHING RETURNING event_id)
SELECT event_id FROM kept UNION ALL SELECT event_id FROM quarantined_events WHERE ticket_id = $1 AND kind = $2 LIMIT 1

-- name: keep_pending
INSERT INTO pending_events (issued_day, ticket_id, kind, event_id, lease_id, received_at, event)
SELECT issued_day, ticket_id, kind, event_id, lease_id, received_at, event
FROM unnest($1::date[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::timestamptz[], $7::bytea[])
  WITH ORDINALITY AS given (issued_day, ticket_id, kind, event_id, lease_id, received_at, event, ordinal)
WHERE NOT EXISTS (SELECT FROM events e WHERE e.issued_day = given.issued_day AND e.ticket_id = given.ticket_id AND e.kind = given.kind)
ORDER BY issued_day, ticket_id, kind, ordinal
ON CONFLICT DO NOTHING

-- name: first_of
SELECT coalesce(
  (SELECT e.event_id FROM events e WHERE e.issued_day = given.issued_day AND e.ticket_id = given.ticket_id AND e.kind = given.kind),
  (SELECT p.event_id FROM pending_events p
   WHERE p.issued_day = given.issued_day AND p.ticket_id = given.ticket_id AND p.kind = given.kind))
FROM unnest($1::date[], $2::uuid[], $3::text[]) WITH ORDINALITY AS given (issued_day, ticket_id, kind, ordinal)
ORDER BY ordinal

-- name: pending_turn
SELECT pg_try_advisory_xact_lock(hashtextextended('adserve.pending', 0))

-- name: take_pending
DELETE FROM pending_events WHERE (issued_day, ticket_id, kind) IN (
  SELECT issued_day, ticket_id, kind FROM pending_events ORDER BY received_at, event_id LIMIT $1)
RETURNING event

-- name: take_one_pending
DELETE FROM pending_events WHERE issued_day = $1 AND ticket_id = $2 AND kind = $3 RETURNING true

-- name: count_pending
SELECT count(*) FROM pending_events

-- name: of_ticket
SELECT event_id, kind, outcome, billed_micros, currency FROM events WHERE issued_day = $1 AND ticket_id = $2
UNION ALL
SELECT event_id, kind, 'accepted', NULL, NULL FROM pending_events WHERE issued_day = $1 AND ticket_id = $2
UNION ALL
SELECT event_id, kind, 'accepted', NULL, NULL FROM quarantined_events WHERE ticket_id = $2
ORDER BY event_id

-- name: hides
SELECT c.viewer, e.advertiser_id, e.received_at FROM events e JOIN viewer_caps c USING (issued_day, ticket_id)
WHERE e.received_at >= $1 AND e.kind IN ('hide', 'report')
ORDER BY e.received_at DESC LIMIT $2

-- name: count_since
SELECT count(*) FROM events WHERE received_at >= $1 AND kind IN ('impression', 'view', 'hide', 'report')

-- name: since
SELECT e.ticket_id, c.viewer, e.ad_id, e.campaign_id, e.advertiser_id, e.labels, e.kind, e.outcome,
       (extract(epoch FROM e.received_at) * 1000)::bigint, (extract(epoch FROM e.expires_at) * 1000)::bigint
FROM events e JOIN viewer_caps c USING (issued_day, ticket_id)
WHERE e.received_at >= $1 AND e.kind IN ('impression', 'view', 'hide', 'report')
ORDER BY e.received_at, e.event_id

-- Nothing comes before all is sorted.
-- name: take_time
SELECT set_config('work_mem', '64MB', true), set_config('statement_timeout', '10min', true)

-- Both tables have a day's tickets in the order of their keys: so they are joined day by day, without a table of all of them.
-- name: join_by_key
SELECT set_config('enable_partitionwise_join', 'on', true), set_config('enable_hashjoin', 'off', true)

-- Events are packed as store/wire.py reads them: ad, campaign, advertiser, half of the ticket's id, then the state (0 hidden, 1 confirmed,
-- 3 refused) and the moment in 6 bytes. One sort by viewer, and a row for all of a viewer's: more rows or keys cost more than all else.
-- name: shown_since
SELECT viewer, labels,
       string_agg(
         int8send(ad_id) || int8send(campaign_id) || int8send(advertiser_id) || substring(uuid_send(ticket_id) FROM 9) || substring(
           int8send(CASE WHEN kind IN ('hide', 'report') THEN 0::bigint WHEN outcome = 'over_cap' THEN 3 ELSE 1 END << 46
                    | round(date_part('epoch', received_at) * 1000)::bigint) FROM 3),
         ''::bytea),
       round(date_part('epoch', max(received_at)) * 1000)::bigint
FROM events JOIN viewer_caps USING (issued_day, ticket_id)
WHERE received_at >= $1 AND (kind IN ('hide', 'report') OR kind IN ('impression', 'view') AND outcome <> 'late')
GROUP BY viewer, labels
ORDER BY viewer
