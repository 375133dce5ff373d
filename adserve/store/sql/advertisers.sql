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

-- name: deposit
SELECT deposit($1, $2, $3, $4, $5)

-- name: balances
SELECT a.currency,
       coalesce(sum(p.micros) FILTER (WHERE a.kind = 'available'), 0)::bigint AS available_micros,
       coalesce(sum(p.micros) FILTER (WHERE a.kind = 'held'), 0)::bigint AS held_micros
FROM accounts a LEFT JOIN postings p ON p.account_id = a.id
WHERE a.advertiser_id = $1
GROUP BY a.currency
ORDER BY a.currency
