-- A row of `events` is one kind of event of one ticket; of `quarantined_events`, one that could not be settled.

-- name: settle
SELECT ordinal, event_id, outcome, billed_micros FROM settle(
  $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
  $26, $27, $28, $29, $30, $31, $32, $33, $34)

-- name: quarantine
WITH kept AS (
  INSERT INTO quarantined_events (ticket_id, kind, event_id, event, error, at) VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT DO NOTHING RETURNING event_id)
SELECT event_id FROM kept UNION ALL SELECT event_id FROM quarantined_events WHERE ticket_id = $1 AND kind = $2 LIMIT 1

-- name: of_ticket
SELECT event_id, kind, outcome, billed_micros, currency FROM events WHERE issued_day = $1 AND ticket_id = $2
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
