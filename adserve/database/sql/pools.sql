-- No rows: what a connection forgets when it is given back. RESET ALL leaves the role alone; RESET ROLE returns to the
-- one that the connection was opened with.

-- name: reset
SELECT pg_advisory_unlock_all();
CLOSE ALL;
UNLISTEN *;
RESET ALL;
RESET ROLE;
