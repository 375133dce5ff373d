-- A row of `spools` is a machine's spool of events, and how far it is settled; of `quarantined_events`, an event that could not be.

-- name: note
INSERT INTO spools (id, settled_until, heard_at) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET settled_until = excluded.settled_until, heard_at = excluded.heard_at

-- name: forget
DELETE FROM spools WHERE id = $1

-- name: put_aside
INSERT INTO quarantined_events (ticket_id, kind, event_id, event, error, at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
