-- A row is an advertiser: a tenant.

-- name: create
INSERT INTO advertisers (name, time_zone)
VALUES ($1, $2)
RETURNING *

-- name: one
SELECT * FROM advertisers WHERE id = $1

-- name: lock
SELECT * FROM advertisers WHERE id = $1 FOR NO KEY UPDATE

-- name: page
SELECT * FROM advertisers
WHERE id > $1
ORDER BY id LIMIT $2

-- name: change
UPDATE advertisers SET
  name = $3, time_zone = $4, version = version + 1, updated_at = now()
WHERE id = $1 AND version = $2
RETURNING *

-- name: set_status
UPDATE advertisers SET status = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *
