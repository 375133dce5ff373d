-- A row is a creative as it stands now. A trigger makes other content a new revision, which waits for a review if a tenant made it.

-- name: create
INSERT INTO creatives (advertiser_id, kind, media, headline, body, call_to_action, landing_url)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING *

-- name: one
SELECT * FROM creatives WHERE id = $1

-- name: lock
SELECT * FROM creatives WHERE id = $1 FOR NO KEY UPDATE

-- name: page
SELECT * FROM creatives
WHERE id > $1
  AND ($3::bigint IS NULL OR advertiser_id = $3)
ORDER BY id LIMIT $2

-- name: change
UPDATE creatives SET
  advertiser_id = $3, kind = $4, media = $5, headline = $6, body = $7, call_to_action = $8, landing_url = $9,
  version = version + 1, updated_at = now()
WHERE id = $1 AND version = $2
RETURNING *

-- name: set_status
UPDATE creatives SET status = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *
