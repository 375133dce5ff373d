-- A row is one browser's way into the console: the SHA-256 of its cookie, never the cookie.

-- name: open
INSERT INTO sessions (hash, key_id, created_at, expires_at) VALUES ($1, $2, $3, $4)

-- name: caller
SELECT k.id, k.name, k.scopes, k.advertiser_id FROM sessions s JOIN api_keys k ON k.id = s.key_id
WHERE s.hash = $1 AND s.expires_at > $2 AND k.revoked_at IS NULL

-- name: close
DELETE FROM sessions WHERE hash = $1

-- name: close_expired
DELETE FROM sessions WHERE expires_at <= $1

-- name: close_oldest
DELETE FROM sessions WHERE hash IN (
  SELECT hash FROM sessions WHERE key_id = $1 ORDER BY created_at DESC, hash OFFSET $2
)
