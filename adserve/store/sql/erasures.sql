-- A row of `erasures` is a viewer's erasure, or the tombstone that is left of it; of `viewer_calls`, who asked.

-- name: ask
INSERT INTO erasures (tombstone, id, viewer, asked_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tombstone) DO UPDATE SET id = EXCLUDED.id, viewer = EXCLUDED.viewer, asked_at = EXCLUDED.asked_at, cut_at = NULL
WHERE erasures.cut_at IS NOT NULL

-- name: of_tombstone
SELECT id, tombstone, viewer, asked_at, cut_at FROM erasures WHERE tombstone = $1

-- name: changed
SELECT id, tombstone, viewer, asked_at, cut_at FROM erasures WHERE coalesce(cut_at, 'infinity') >= $1

-- name: note_call
INSERT INTO viewer_calls (call, erasure, key_id, key_name, at) VALUES ($1, $2, $3, $4, $5)

-- name: turn
SELECT pg_try_advisory_lock(hashtextextended('adserve.erasures', 0))

-- name: days
SELECT DISTINCT right(c.relname, 8)::date AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('viewer_caps'::regclass, 'recorded_decisions'::regclass)
ORDER BY 1

-- name: forget_maps
WITH gone AS (DELETE FROM viewer_caps WHERE issued_day = $1 AND viewer = ANY ($2) RETURNING ticket_id),
origins AS (DELETE FROM event_origins o USING gone WHERE o.issued_day = $1 AND o.ticket_id = gone.ticket_id)
DELETE FROM viewer_log l USING gone WHERE l.issued_day = $1 AND l.ticket_id = gone.ticket_id

-- name: forget_decisions
DELETE FROM recorded_decisions WHERE decided_on = $1 AND viewer = ANY ($2)

-- name: forget_old_decisions
DELETE FROM recorded_decisions WHERE decided_on = $1 AND viewer IS NULL AND position($2 IN record) > 0

-- name: pending
SELECT issued_day, ticket_id, kind, event FROM pending_events WHERE position($1 IN event) > 0 LIMIT $2

-- name: strip_pending
UPDATE pending_events SET event = $4 WHERE issued_day = $1 AND ticket_id = $2 AND kind = $3

-- name: quarantined
SELECT ticket_id, kind, event FROM quarantined_events
WHERE NOT nameless AND position($1 IN event) > 0 LIMIT $2

-- name: quarantined_before
SELECT ticket_id, kind, event FROM quarantined_events WHERE NOT nameless AND at < $1 LIMIT $2

-- name: strip_quarantined
UPDATE quarantined_events SET event = $3, nameless = true WHERE ticket_id = $1 AND kind = $2

-- name: finish
UPDATE erasures SET viewer = NULL, cut_at = $2 WHERE id = ANY ($1)

-- name: forget_tombstones
DELETE FROM erasures WHERE cut_at < (SELECT min(seals_from) FROM ticket_keys)
