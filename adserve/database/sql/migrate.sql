-- No rows: what holds around the migrations. The lock is a session's, so it goes with a killed process.

-- name: lock
SELECT pg_try_advisory_lock(hashtextextended('adserve.migrate', 0));

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS adserve;

-- name: become_owner
SET LOCAL ROLE adserve_owner;

-- name: note_functions
SELECT format('COMMENT ON SCHEMA adserve IS %%L', %s::text);

-- name: search_path
SET search_path = adserve;
