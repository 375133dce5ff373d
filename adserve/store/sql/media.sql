-- A row is an image or a video that a creative may name; the bytes lie in the data home.

-- name: put
INSERT INTO media (sha256, content_type, bytes, width, height) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING

-- name: content_type
SELECT content_type FROM media WHERE sha256 = $1
