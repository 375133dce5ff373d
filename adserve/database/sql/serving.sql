-- A row is a process that took the serving lock; see migration 0001. All times are the server's.

-- name: try_lock
SELECT pg_try_advisory_lock(hashtextextended('adserve.serving', 0));

-- name: try_lock_shared
SELECT pg_try_advisory_lock_shared(hashtextextended('adserve.serving', 0));

-- name: last_holder
SELECT holder FROM serving ORDER BY taken_at DESC LIMIT 1;

-- name: enter
INSERT INTO serving (holder, home, taken_at) VALUES ($1, $2, clock_timestamp());

-- name: forget_old
DELETE FROM serving WHERE coalesce(heartbeat_at, taken_at) < clock_timestamp() - interval '30 days';

-- name: come_back
UPDATE serving AS mine SET taken_at = clock_timestamp()
WHERE holder = $1
  AND NOT EXISTS (SELECT FROM serving AS other
                  WHERE other.holder <> $1
                    AND other.heartbeat_at > coalesce(mine.heartbeat_at, mine.taken_at))
RETURNING true;

-- name: wait_ms
SELECT coalesce(max(extract(epoch FROM heartbeat_at - clock_timestamp()) * 1000)::bigint + $3::bigint, 0)
FROM serving
WHERE holder <> $1 AND home <> $2 AND released_at IS NULL;

-- name: beat
UPDATE serving SET heartbeat_at = clock_timestamp(), released_at = NULL WHERE holder = $1;

-- name: release
UPDATE serving SET released_at = clock_timestamp() WHERE holder = $1;

-- name: end_others
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^adserve_\w+ [0-9a-f-]{36}$'
  AND right(application_name, 36) <> $1;

-- name: alive
SELECT 1;
