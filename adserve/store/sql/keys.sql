-- A row is an API key: the SHA-256 of its secret, never the secret.

-- name: valid
SELECT id, name, hash, scopes, advertiser_id FROM api_keys WHERE revoked_at IS NULL

-- name: issue
INSERT INTO api_keys (name, hash, hint, scopes, advertiser_id, created_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id

-- name: known
SELECT id, name, hint, scopes, advertiser_id, created_at, revoked_at FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2

-- name: revoke
UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1
RETURNING id, name, hint, scopes, advertiser_id, created_at, revoked_at
