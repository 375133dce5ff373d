-- A row is something that is held of one viewer.

-- name: events
SELECT e.event_id, e.kind, e.outcome, e.received_at, e.issued_at, e.advertiser_id, e.campaign_id, e.ad_id, e.creative_id,
       e.surface, e.country, e.platform, e.position
FROM viewer_caps c JOIN events e USING (issued_day, ticket_id)
WHERE c.issued_day = $1 AND c.viewer = $2
ORDER BY e.received_at, e.event_id

-- name: pending
SELECT event FROM pending_events WHERE position($1 IN event) > 0 ORDER BY received_at, event_id LIMIT $2

-- name: quarantined
SELECT event FROM quarantined_events WHERE position($1 IN event) > 0 ORDER BY at, event_id LIMIT $2

-- name: decisions
SELECT record FROM recorded_decisions
WHERE decided_on = $1 AND (viewer = $2 OR viewer IS NULL AND position($2 IN record) > 0)
