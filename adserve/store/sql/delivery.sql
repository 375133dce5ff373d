-- A row of `events` is one event of one ticket; of `rollup_parts`, a part of what an ad did in an hour; of `funnel_hours`, how far
-- requests got with a campaign in an hour. Braces stand for expressions of the closed tables in store/delivery.py.

-- name: report
WITH parts AS ({parts})
SELECT {answered} FROM parts
WHERE {after}
GROUP BY {groups} ORDER BY {groups} LIMIT {limit}

-- name: from_events
SELECT {groups}, currency, kind, outcome, 1 AS events, billed_micros, NULL::bigint AS requests, NULL::bytea AS viewer
FROM events
WHERE received_at >= {start} AND received_at < {end} AND {ticket_days} AND outcome <> 'late' AND {filters}

-- name: from_events_with_viewers
SELECT {groups}, currency, kind, outcome, 1 AS events, billed_micros, NULL::bigint AS requests, viewer
FROM events LEFT JOIN (SELECT * FROM viewer_log WHERE {ticket_days}) AS named USING (issued_day, ticket_id)
WHERE received_at >= {start} AND received_at < {end} AND {ticket_days} AND outcome <> 'late' AND {filters}

-- name: from_rollups
SELECT {groups}, currency, kind, outcome, events, billed_micros, NULL::bigint AS requests, NULL::bytea AS viewer
FROM rollup_parts
WHERE hour >= {start} AND hour < {end} AND outcome <> 'late' AND {filters}

-- name: from_funnel
UNION ALL
SELECT {groups}, currency, NULL, NULL, 0, 0, eligible, NULL
FROM (SELECT hour, campaign_id, h.advertiser_id, currency, eligible
      FROM funnel_hours h JOIN campaigns c ON c.id = h.campaign_id) AS reached
WHERE hour >= {start} AND hour < {end} AND {filters}

-- name: patience
SET LOCAL statement_timeout = {ms}

-- name: last_gone
SELECT max(day) FROM closed_days
WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'events'::regclass AND c.relname = to_char(day, '"events_"YYYYMMDD'))
