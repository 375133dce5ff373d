-- A row of `funnel_flushes` is what one process counted of late; of `funnel_hours`, what all counted of a campaign in an hour.

-- name: save_generation
INSERT INTO funnel_generations (replica, surface, generation, campaign_ids, advertiser_ids, saved_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING

-- name: save_flush
INSERT INTO funnel_flushes (replica, to_at, part, hour, surface, generation, looked, campaign_ids, targeted, ranked, in_budget,
                            under_cap, placed)
SELECT $1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
WHERE $3 > coalesce((SELECT to_at FROM funnel_spans WHERE replica = $1 AND from_at = $2), '-infinity')

-- name: extend
INSERT INTO funnel_spans (replica, from_at, to_at, ended) VALUES ($1, $2, $3, $4)
ON CONFLICT (replica, from_at) DO UPDATE SET to_at = greatest(funnel_spans.to_at, EXCLUDED.to_at), ended = EXCLUDED.ended

-- name: merge_lock
SELECT pg_advisory_xact_lock(hashtextextended('adserve.funnel', 0))

-- name: merge
WITH taken AS (
  DELETE FROM funnel_flushes WHERE to_at <= $1 RETURNING *
), reached AS (
  SELECT t.hour, c.campaign_id, sum(c.targeted) AS targeted, sum(c.ranked) AS ranked, sum(c.in_budget) AS in_budget,
         sum(c.under_cap) AS under_cap, sum(c.placed) AS placed
  FROM taken t, unnest(t.campaign_ids, t.targeted, t.ranked, t.in_budget, t.under_cap, t.placed)
    AS c (campaign_id, targeted, ranked, in_budget, under_cap, placed)
  GROUP BY 1, 2
), eligible AS (
  SELECT t.hour, c.campaign_id, c.advertiser_id, sum(t.looked) AS eligible
  FROM (SELECT hour, replica, surface, generation, sum(looked) AS looked FROM taken GROUP BY 1, 2, 3, 4) t
  JOIN funnel_generations g USING (replica, surface, generation), unnest(g.campaign_ids, g.advertiser_ids)
    AS c (campaign_id, advertiser_id)
  GROUP BY 1, 2, 3
)
INSERT INTO funnel_hours
SELECT hour, campaign_id, advertiser_id, eligible, coalesce(targeted, 0), coalesce(ranked, 0), coalesce(in_budget, 0),
       coalesce(under_cap, 0), coalesce(placed, 0)
FROM eligible LEFT JOIN reached USING (hour, campaign_id)
ORDER BY hour, campaign_id
ON CONFLICT (hour, campaign_id) DO UPDATE SET
  eligible = funnel_hours.eligible + EXCLUDED.eligible, targeted = funnel_hours.targeted + EXCLUDED.targeted,
  ranked = funnel_hours.ranked + EXCLUDED.ranked, in_budget = funnel_hours.in_budget + EXCLUDED.in_budget,
  under_cap = funnel_hours.under_cap + EXCLUDED.under_cap, placed = funnel_hours.placed + EXCLUDED.placed

-- name: forget_generations
DELETE FROM funnel_generations g
WHERE saved_at < $1
  AND NOT EXISTS (SELECT FROM funnel_flushes f
                  WHERE f.replica = g.replica AND f.surface = g.surface AND f.generation = g.generation)
  AND (EXISTS (SELECT FROM funnel_generations n
               WHERE n.replica = g.replica AND n.surface = g.surface AND n.generation > g.generation)
       OR NOT EXISTS (SELECT FROM funnel_spans s WHERE s.replica = g.replica AND s.to_at >= $1))

-- name: forget_hours
DELETE FROM funnel_hours WHERE hour < $1

-- name: forget_spans
DELETE FROM funnel_spans WHERE to_at < $1

-- name: spans
SELECT replica, from_at, to_at, ended FROM funnel_spans WHERE to_at >= $1 ORDER BY from_at, replica

-- name: counted_to
SELECT coalesce((SELECT min(to_at) FROM funnel_flushes), (SELECT max(to_at) FROM funnel_spans))

-- name: page
SELECT hour, campaign_id AS campaign, advertiser_id AS advertiser, h.eligible, h.targeted, h.ranked, h.in_budget,
       h.under_cap, h.placed, coalesce(e.impressions, 0) AS impressions, coalesce(e.clicks, 0) AS clicks
FROM (
  SELECT * FROM funnel_hours
  WHERE hour >= $4 AND hour < $5 AND ($6::bigint IS NULL OR campaign_id = $6)
    AND (hour, campaign_id) > ($2, $3)
  ORDER BY hour, campaign_id LIMIT $1
) h
FULL JOIN (
  SELECT hour, campaign_id, advertiser_id,
         (sum(events) FILTER (WHERE kind = 'impression' AND outcome NOT IN ('late', 'over_cap', 'invalid_traffic')))::bigint AS impressions,
         (sum(events) FILTER (WHERE kind = 'click' AND outcome NOT IN ('late', 'invalid_traffic')))::bigint AS clicks
  FROM rollup_parts
  WHERE hour >= $4 AND hour < $5 AND ($6::bigint IS NULL OR campaign_id = $6)
    AND (hour, campaign_id) > ($2, $3)
  GROUP BY 1, 2, 3 ORDER BY 1, 2 LIMIT $1
) e USING (hour, campaign_id, advertiser_id)
ORDER BY hour, campaign_id LIMIT $1
