-- A row of `arm_viewers` is a viewer of one arm of a step; of `arm_sums`, a part of the moments of an arm; of `outcome_ids`, an outcome that
-- has been counted; of `ramp_minutes`, what one process did for a ramp in a minute.

-- name: claim
INSERT INTO outcome_ids (id, at) SELECT id, $2 FROM unnest($1::bytea[]) AS id ORDER BY id
ON CONFLICT DO NOTHING RETURNING id

-- name: assign
INSERT INTO arm_viewers (ramp_id, entered_at, viewer, arm, assigned_at)
SELECT DISTINCT ON (1, 2, 3) *
FROM unnest($1::bigint[], $2::timestamptz[], $3::bytea[], $4::text[], $5::timestamptz[]) AS seen (ramp_id, entered_at, viewer, arm, at)
WHERE NOT EXISTS (SELECT FROM erasures e WHERE e.tombstone = sha256(seen.viewer) AND (e.cut_at IS NULL OR seen.at < e.cut_at))
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING

-- name: add
INSERT INTO arm_viewers AS v (ramp_id, entered_at, viewer, arm, assigned_at, statuses_viewed, statuses_told, session_seconds,
                              sessions_told, returned, returns_told, posts_made, posts_told)
SELECT ramp_id, entered_at, viewer, min(arm), $1, coalesce(sum(statuses), 0), count(statuses), coalesce(sum(seconds), 0),
       count(seconds), count(*) FILTER (WHERE returned), count(returned), coalesce(sum(posts), 0), count(posts)
FROM unnest($2::bigint[], $3::timestamptz[], $4::bytea[], $5::text[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::boolean[], $10::bigint[])
  AS told (ramp_id, entered_at, viewer, arm, at, statuses, seconds, returned, posts)
WHERE NOT EXISTS (SELECT FROM erasures e WHERE e.tombstone = sha256(told.viewer) AND (e.cut_at IS NULL OR told.at < e.cut_at))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (ramp_id, entered_at, viewer) DO UPDATE SET
  statuses_viewed = v.statuses_viewed + excluded.statuses_viewed, statuses_told = v.statuses_told + excluded.statuses_told,
  session_seconds = v.session_seconds + excluded.session_seconds, sessions_told = v.sessions_told + excluded.sessions_told,
  returned = v.returned + excluded.returned, returns_told = v.returns_told + excluded.returns_told,
  posts_made = v.posts_made + excluded.posts_made, posts_told = v.posts_told + excluded.posts_told

-- name: begin_reading
INSERT INTO arm_event_reads (ramp_id, entered_at, read_to) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING

-- name: read_to
SELECT read_to FROM arm_event_reads WHERE ramp_id = $1 AND entered_at = $2 FOR UPDATE SKIP LOCKED

-- name: settled_until
-- What was received before it is among the events: it waits neither in a machine's spool nor for the counters. Spools that are silent since
-- $1 are left out, unless all are: then the database itself was away.
SELECT least((SELECT coalesce(min(settled_until) FILTER (WHERE heard_at >= $1), min(settled_until)) FROM spools),
             (SELECT min(received_at) FROM pending_events))

-- name: count_events
-- Of exposed viewers that are known: in the order of their keys, as everybody who writes these rows.
WITH seen AS MATERIALIZED (
  SELECT c.viewer, count(*) FILTER (WHERE e.kind = 'impression') AS impressions, count(*) FILTER (WHERE e.kind = 'click') AS clicks,
         count(*) FILTER (WHERE e.kind = 'hide') AS hides, count(*) FILTER (WHERE e.kind = 'report') AS reports,
         count(*) FILTER (WHERE e.kind = 'impression' AND e.bid_model = 'cpc') AS paid_impressions,
         count(*) FILTER (WHERE e.kind = 'click' AND e.bid_model = 'cpc') AS paid_clicks
  FROM events e JOIN viewer_caps c ON c.issued_day = e.issued_day AND c.ticket_id = e.ticket_id
  WHERE e.received_at >= $4 AND e.received_at < $5 AND e.issued_at >= $2
    AND e.issued_day BETWEEN ($2 AT TIME ZONE 'UTC')::date AND ($5 AT TIME ZONE 'UTC')::date
    AND c.issued_day BETWEEN ($2 AT TIME ZONE 'UTC')::date AND ($5 AT TIME ZONE 'UTC')::date
    AND e.surface = $3 AND e.arm = 'exposed' AND e.outcome NOT IN ('late', 'over_cap', 'invalid_traffic')
  GROUP BY c.viewer
), locked AS MATERIALIZED (
  SELECT v.viewer FROM arm_viewers v JOIN seen ON seen.viewer = v.viewer
  WHERE v.ramp_id = $1 AND v.entered_at = $2 AND v.arm = 'exposed'
  ORDER BY v.viewer FOR UPDATE OF v
), added AS (
  UPDATE arm_viewers v SET
    impressions = v.impressions + seen.impressions, clicks = v.clicks + seen.clicks, hides = v.hides + seen.hides,
    reports = v.reports + seen.reports
  FROM locked JOIN seen ON seen.viewer = locked.viewer
  WHERE v.ramp_id = $1 AND v.entered_at = $2 AND v.viewer = locked.viewer
  RETURNING seen.paid_impressions, seen.paid_clicks
)
UPDATE arm_event_reads r SET
  read_to = $5, paid_impressions = r.paid_impressions + paid.impressions, paid_clicks = r.paid_clicks + paid.clicks
FROM (SELECT coalesce(sum(paid_impressions), 0) AS impressions, coalesce(sum(paid_clicks), 0) AS clicks FROM added) paid
WHERE r.ramp_id = $1 AND r.entered_at = $2

-- name: save_minutes
INSERT INTO ramp_minutes (ramp_id, minute, replica, looked, unfilled, decisions, errors, placed, predicted, paced, off_pace,
                          decision_ms, feed_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (ramp_id, minute, replica) DO UPDATE SET
  looked = excluded.looked, unfilled = excluded.unfilled, decisions = excluded.decisions, errors = excluded.errors,
  placed = excluded.placed, predicted = excluded.predicted, paced = excluded.paced, off_pace = excluded.off_pace,
  decision_ms = excluded.decision_ms, feed_ms = excluded.feed_ms

-- name: compact
-- Where an arm's moments are in several parts, they become one; what has come to nothing goes.
WITH parted AS (
  SELECT DISTINCT ramp_id, entered_at FROM arm_sums GROUP BY ramp_id, entered_at, arm, metric HAVING count(*) > 1
), taken AS (
  DELETE FROM arm_sums
  WHERE ctid = ANY (ARRAY(
    SELECT s.ctid FROM arm_sums s JOIN parted p ON p.ramp_id = s.ramp_id AND p.entered_at = s.entered_at
    LIMIT $1 FOR UPDATE OF s SKIP LOCKED))
  RETURNING *
)
INSERT INTO arm_sums
SELECT ramp_id, entered_at, arm, metric, sum(viewers), sum(x), sum(y), sum(xx), sum(xy), sum(yy)
FROM taken GROUP BY 1, 2, 3, 4 HAVING (sum(viewers), sum(x), sum(y), sum(xx), sum(xy), sum(yy)) <> (0, 0, 0, 0, 0, 0)

-- name: stages
SELECT DISTINCT ramp_id, entered_at FROM arm_sums

-- name: erase
DELETE FROM arm_viewers WHERE ramp_id = $1 AND entered_at = $2 AND viewer = ANY ($3)

-- name: held
SELECT ramp_id AS ramp, entered_at, arm, assigned_at, statuses_viewed, session_seconds, returned, posts_made, impressions, clicks,
       hides, reports
FROM arm_viewers WHERE ramp_id = $1 AND entered_at = $2 AND viewer = $3

-- name: forget_viewers
DELETE FROM arm_viewers
WHERE ctid = ANY (ARRAY(SELECT ctid FROM arm_viewers WHERE assigned_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))

-- name: forget_ids
DELETE FROM outcome_ids
WHERE ctid = ANY (ARRAY(SELECT ctid FROM outcome_ids WHERE at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))

-- name: forget_minutes
DELETE FROM ramp_minutes WHERE minute < $1

-- name: forget_reads
DELETE FROM arm_event_reads WHERE read_to < $1
