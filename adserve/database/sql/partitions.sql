-- A row is the answer of the function that migration 0001 made.

-- name: ensure
SELECT ensure_partitions($1, $2);

-- name: wait_briefly
SET LOCAL lock_timeout = '500ms';

-- name: drop
SELECT drop_partitions($1, $2);
