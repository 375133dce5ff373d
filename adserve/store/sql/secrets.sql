-- A row of `ticket_keys` seals tickets and opens them for longer; of `viewer_secrets`, stands behind a month's pseudonyms.

-- name: lock_ticket_keys
LOCK TABLE ticket_keys IN SHARE ROW EXCLUSIVE MODE

-- name: add_ticket_key
INSERT INTO ticket_keys (key, seals_from)
SELECT $1, CASE WHEN newest IS NULL THEN $2::timestamptz ELSE $2 + $3::interval END
FROM (SELECT max(seals_from) AS newest FROM ticket_keys) AS keys
WHERE newest IS NULL OR newest + $4::interval <= $2

-- name: end_ticket_keys
UPDATE ticket_keys k SET opens_until = (SELECT min(seals_from) FROM ticket_keys n WHERE n.seals_from > k.seals_from) + $1::interval
WHERE opens_until IS NULL

-- name: forget_ticket_keys
DELETE FROM ticket_keys WHERE opens_until < $1

-- name: ticket_keys
SELECT id, key, seals_from, opens_until FROM ticket_keys ORDER BY id

-- name: add_viewer_secret
INSERT INTO viewer_secrets (month, secret) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: viewer_secrets
SELECT month, secret FROM viewer_secrets ORDER BY month NULLS FIRST

-- name: destroy_viewer_secrets
DELETE FROM viewer_secrets WHERE month < $1
