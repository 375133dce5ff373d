-- A row of `exports` is a question about the log, kept for whoever fetches the answer.

-- name: add
INSERT INTO exports (advertiser_id, asked, made_at) VALUES ($1, $2::text::jsonb, $3) RETURNING id

-- name: one
SELECT asked::text, made_at FROM exports WHERE id = $1

-- name: forget
DELETE FROM exports WHERE made_at < $1
