-- A row is an ad: a campaign's creative.

-- name: create
INSERT INTO ads (advertiser_id, campaign_id, creative_id)
VALUES ($1, $2, $3)
RETURNING *

-- name: one
SELECT * FROM ads WHERE id = $1

-- name: lock
SELECT * FROM ads WHERE id = $1 FOR NO KEY UPDATE

-- name: page
SELECT * FROM ads
WHERE id > $1
  AND ($3::bigint IS NULL OR advertiser_id = $3)
  AND ($4::bigint IS NULL OR campaign_id = $4)
ORDER BY id LIMIT $2

-- name: change
UPDATE ads SET
  advertiser_id = $3, campaign_id = $4, creative_id = $5, version = version + 1, updated_at = now()
WHERE id = $1 AND version = $2
RETURNING *

-- name: set_status
UPDATE ads SET status = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *
