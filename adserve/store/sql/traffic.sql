-- A row of `traffic_rules` is one version of the rules, of `events` one kind of event of one ticket, of `rollup_parts` a part of
-- an hour's figures.

-- name: newest
SELECT revision, rules::text FROM traffic_rules ORDER BY revision DESC, version LIMIT 1

-- name: version_of
SELECT version FROM traffic_rules WHERE revision = $1 AND crawlers = $2 AND networks = $3

-- name: add_version
INSERT INTO traffic_rules (revision, rules, crawlers, networks, made_at) VALUES ($1, $2::text::jsonb, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING version

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('adserve.traffic_rules', 0))

-- name: page
SELECT version, revision, rules::text, crawlers, networks, made_at FROM traffic_rules WHERE version < $1 ORDER BY version DESC LIMIT $2

-- name: take_time
SET LOCAL statement_timeout = '10min'

-- name: judged
-- $3 and $4 bound each table by itself: so no other partitions are opened.
SELECT e.issued_day, e.ticket_id, e.kind, e.outcome, c.viewer,
       (extract(epoch FROM e.issued_at) * 1000)::bigint AS issued_at_ms,
       (extract(epoch FROM e.received_at) * 1000)::bigint AS received_at_ms,
       (extract(epoch FROM e.occurred_at) * 1000)::bigint AS occurred_at_ms, e.view_ms,
       (extract(epoch FROM i.occurred_at) * 1000)::bigint AS impression_at_ms,
       o.crawlers, o.network, o.address, o.device
FROM events e
LEFT JOIN viewer_caps c ON c.issued_day = e.issued_day AND c.ticket_id = e.ticket_id AND c.issued_day BETWEEN $3 AND $4
LEFT JOIN event_origins o ON o.issued_day = e.issued_day AND o.ticket_id = e.ticket_id AND o.kind = e.kind AND o.issued_day BETWEEN $3 AND $4
LEFT JOIN events i ON i.issued_day = e.issued_day AND i.ticket_id = e.ticket_id AND i.kind = 'impression' AND e.kind <> 'impression'
  AND i.issued_day BETWEEN $3 AND $4
WHERE e.received_at >= $1 AND e.received_at < $2 AND e.outcome <> 'late' AND e.issued_day BETWEEN $3 AND $4
ORDER BY e.received_at, e.kind <> 'impression', e.event_id

-- name: find_invalid
SELECT found, credited, micros FROM find_invalid($1, $2, $3, $4, $5, $6)

-- name: report
SELECT date_trunc('day', hour, 'UTC') AS day, campaign_id AS campaign, advertiser_id AS advertiser, currency,
       sum(events)::bigint AS events,
       coalesce(sum(events) FILTER (WHERE outcome = 'invalid_traffic'), 0)::bigint AS invalid_events,
       sum(billed_micros + invalid_micros)::bigint AS gross_micros, sum(invalid_micros)::bigint AS invalid_micros,
       sum(billed_micros)::bigint AS net_micros
FROM rollup_parts
WHERE hour >= $1 AND hour < $2 AND ($3::bigint IS NULL OR campaign_id = $3)
GROUP BY 1, 2, 3, 4
HAVING (date_trunc('day', hour, 'UTC'), campaign_id) > ($4, $5)
ORDER BY 1, 2 LIMIT $6
