-- A row of `ads` here is everything that a decision reads of one ad that may be placed now.

-- name: state
SELECT c.version AS catalogue_version, s.version AS switch_version, s.paused, c.whole_from
FROM catalogue_version c, rollout_switch s;

-- name: changed_ads
-- Every ad of which a part changed after version $1, or whose campaign ended between $2 and $3, and whether it may be placed at
-- $3; from the beginning ($1 = 0) only those that may.
WITH touched AS (
  SELECT id FROM ads WHERE changed_in > $1
  UNION SELECT a.id FROM campaigns p JOIN ads a ON a.campaign_id = p.id WHERE p.changed_in > $1
  UNION SELECT a.id FROM creatives c JOIN ads a ON a.creative_id = c.id WHERE c.changed_in > $1
  UNION SELECT a.id FROM advertisers v JOIN ads a ON a.advertiser_id = v.id WHERE v.changed_in > $1
  UNION SELECT a.id FROM campaigns p JOIN ads a ON a.campaign_id = p.id WHERE p.ends_at > $2 AND p.ends_at <= $3
)
SELECT
  a.id, a.advertiser_id, v.name AS advertiser_name, live.live,
  p.id AS campaign_id, p.name AS campaign_name, p.starts_at, p.ends_at, p.time_zone, p.bid_model, p.bid_micros,
  p.currency, p.billable, p.budget_daily_micros, p.budget_total_micros, p.pacing, p.priority,
  p.targeting::text AS targeting, p.caps::text AS caps, p.separation,
  c.id AS creative_id, c.revision, c.kind, c.media, m.width, m.height, c.headline, c.body, c.call_to_action,
  c.landing_url
FROM touched t
JOIN ads a ON a.id = t.id
JOIN advertisers v ON v.id = a.advertiser_id
JOIN campaigns p ON p.id = a.campaign_id
JOIN creatives c ON c.id = a.creative_id
JOIN media m ON m.sha256 = c.media
CROSS JOIN LATERAL (
  SELECT 'active' = ALL (ARRAY[a.status, v.status, p.status, c.status]) AND c.review = 'approved'
     AND (p.ends_at IS NULL OR p.ends_at > $3) AS live
) live
WHERE live.live OR $1 > 0;

-- name: rollouts
SELECT surface, percent_bp, holdout_bp, countries FROM rollouts;

-- name: stages
SELECT p.surface, nullif(p.country, '') AS country, r.id, r.step, r.step_entered_at
FROM ramp_places p JOIN ramps r ON r.id = p.ramp_id WHERE r.step >= 0;

-- name: landing_url
SELECT landing_url FROM creative_revisions WHERE creative_id = $1 AND revision = $2;

-- name: beat
INSERT INTO replicas (id, heartbeat_at, switch_version) VALUES ($1, now(), $2)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), switch_version = EXCLUDED.switch_version;

-- name: forget_replicas
DELETE FROM replicas;

-- name: leave
DELETE FROM replicas WHERE id = $1 OR heartbeat_at < now() - interval '1 hour';

-- name: click_counts
SELECT ad_id,
       coalesce(sum(events) FILTER (WHERE kind = 'impression' AND outcome NOT IN ('late', 'over_cap', 'invalid_traffic')), 0)::bigint,
       coalesce(sum(events) FILTER (WHERE kind = 'click' AND outcome NOT IN ('late', 'invalid_traffic')), 0)::bigint
FROM rollup_parts WHERE hour >= $1 AND hour < $2 GROUP BY ad_id;

-- name: hide_counts
SELECT ad_id,
       coalesce(sum(events) FILTER (WHERE kind = 'impression' AND outcome NOT IN ('late', 'over_cap', 'invalid_traffic')), 0)::bigint,
       coalesce(sum(events) FILTER (WHERE kind IN ('hide', 'report') AND outcome NOT IN ('late', 'invalid_traffic')), 0)::bigint
FROM rollup_parts WHERE hour >= $1 AND hour < $2 GROUP BY ad_id;
