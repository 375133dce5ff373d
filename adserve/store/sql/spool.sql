-- A row of `spooled`, in SQLite, is one kind of event of one ticket that is durable on this machine and waits for PostgreSQL;
-- the one of `spool` says which file this is.

-- name: create_spooled
-- No number is given twice: whoever removes one that another process has removed removes nothing.
CREATE TABLE IF NOT EXISTS spooled (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  ticket_id BLOB NOT NULL,
  kind TEXT NOT NULL,
  event_id BLOB NOT NULL,
  received_at_ms INTEGER NOT NULL,
  viewer_cap BLOB NOT NULL,
  viewer_log BLOB NOT NULL,
  event BLOB NOT NULL,
  UNIQUE (ticket_id, kind)
)

-- name: create_by_time
CREATE INDEX IF NOT EXISTS spooled_by_time ON spooled (received_at_ms)

-- name: create_spool
CREATE TABLE IF NOT EXISTS spool (only INTEGER PRIMARY KEY CHECK (only = 1), id BLOB NOT NULL)

-- name: name_spool
INSERT INTO spool (only, id) VALUES (1, ?) ON CONFLICT DO NOTHING

-- name: name_of_spool
SELECT id FROM spool

-- name: begin
BEGIN IMMEDIATE

-- name: keep
INSERT INTO spooled (ticket_id, kind, event_id, received_at_ms, viewer_cap, viewer_log, event) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: first_of
SELECT event_id FROM spooled WHERE ticket_id = ? AND kind = ?

-- name: oldest
SELECT number, ticket_id, kind, event_id, received_at_ms, event FROM spooled WHERE number > ? ORDER BY number LIMIT ?

-- name: remove
DELETE FROM spooled WHERE number = ?

-- name: of_ticket
SELECT event_id, kind FROM spooled WHERE ticket_id = ? ORDER BY number

-- name: hides
SELECT event FROM spooled WHERE received_at_ms >= ? AND kind IN ('hide', 'report')

-- name: of_viewer
SELECT number, event FROM spooled WHERE viewer_cap = ?

-- name: strip
UPDATE spooled SET viewer_cap = x'', viewer_log = x'', event = ? WHERE number = ?

-- name: waits
SELECT 1 FROM spooled LIMIT 1

-- name: waiting
SELECT count(*), min(received_at_ms) FROM spooled
