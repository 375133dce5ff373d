-- A row is a campaign as it stands now.

-- name: create
INSERT INTO campaigns (
  advertiser_id, status, name, objective, starts_at, ends_at, time_zone, bid_model, bid_micros, currency,
  billable, budget_daily_micros, budget_total_micros, pacing, priority, targeting, caps, separation
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
RETURNING *

-- name: one
SELECT * FROM campaigns WHERE id = $1

-- name: lock
SELECT * FROM campaigns WHERE id = $1 FOR NO KEY UPDATE

-- name: page
SELECT * FROM campaigns
WHERE id > $1
  AND ($3::bigint IS NULL OR advertiser_id = $3)
ORDER BY id LIMIT $2

-- name: change
UPDATE campaigns SET
  advertiser_id = $3, status = $4, name = $5, objective = $6, starts_at = $7, ends_at = $8, time_zone = $9,
  bid_model = $10, bid_micros = $11, currency = $12, billable = $13, budget_daily_micros = $14,
  budget_total_micros = $15, pacing = $16, priority = $17, targeting = $18, caps = $19, separation = $20,
  version = version + 1, updated_at = now()
WHERE id = $1 AND version = $2
RETURNING *

-- name: set_status
UPDATE campaigns SET status = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *

-- name: used
SELECT coalesce(max(u.leased_micros) FILTER (WHERE u.budget_day >= ($2::timestamptz AT TIME ZONE c.time_zone)::date), 0) AS daily,
       coalesce(max(u.leased_micros) FILTER (WHERE u.budget_day IS NULL), 0) AS total
FROM campaigns c JOIN budget_uses u ON u.campaign_id = c.id WHERE c.id = $1

-- name: delivered
SELECT EXISTS (SELECT FROM leases WHERE campaign_id = $1)
