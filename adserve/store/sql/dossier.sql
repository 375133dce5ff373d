-- A row of `campaigns` here is one campaign with what its delivery hangs on; of `ads`, one of its ads, whatever its status.

-- name: campaign
SELECT p.id AS campaign_id, p.name AS campaign_name, p.advertiser_id, p.starts_at, p.ends_at, p.time_zone, p.bid_model, p.bid_micros,
       p.currency, p.billable, p.budget_daily_micros, p.budget_total_micros, p.pacing, p.priority,
       p.targeting::text AS targeting, p.caps::text AS caps, p.separation, p.status, p.created_at,
       v.name AS advertiser_name, v.status AS advertiser_status
FROM campaigns p JOIN advertisers v ON v.id = p.advertiser_id WHERE p.id = $1

-- name: ads
SELECT a.id, a.status, c.id AS creative_id, c.status AS creative_status, c.review, c.revision, c.kind, c.media, m.width, m.height,
       c.headline, c.body, c.call_to_action, c.landing_url
FROM ads a JOIN creatives c ON c.id = a.creative_id JOIN media m ON m.sha256 = c.media
WHERE a.campaign_id = $1 ORDER BY a.status <> 'active' OR c.status <> 'active' OR c.review <> 'approved', a.id LIMIT $2

-- name: uses
SELECT coalesce(max(leased_micros) FILTER (WHERE budget_day = $2), 0) AS day_micros,
       coalesce(max(leased_micros) FILTER (WHERE budget_day IS NULL), 0) AS total_micros
FROM budget_uses WHERE campaign_id = $1 AND (budget_day = $2 OR budget_day IS NULL)

-- name: held
SELECT coalesce(sum(granted_micros - captured_micros) FILTER (WHERE budget_day = $3), 0)::bigint AS day_micros,
       coalesce(sum(granted_micros - captured_micros), 0)::bigint AS total_micros
FROM leases WHERE advertiser_id = $1 AND campaign_id = $2 AND closed_at IS NULL
