-- A row is the first answer to a creating call; its key belongs to the caller's API key.

-- name: take
INSERT INTO idempotent_answers (key_id, advertiser_id, key, digest) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING true

-- name: earlier
SELECT digest, status, body, etag, location FROM idempotent_answers WHERE key_id = $1 AND key = $2

-- name: remember
UPDATE idempotent_answers SET status = $3, body = $4, etag = $5, location = $6 WHERE key_id = $1 AND key = $2

-- name: forget
DELETE FROM idempotent_answers WHERE created_at < $1
