-- A row of `closed_days` closes the books of the tickets of one UTC day; its events are in `events`, or in a table of their
-- own that was a partition of it, or gone.

-- name: take_turn
SELECT pg_try_advisory_lock(hashtextextended('adserve.retirement', 0))

-- name: open_before
SELECT day FROM (
  -- The planner may work this out for every relation that there is.
  SELECT CASE WHEN c.relname ~ '^events_[0-9]{8}$' THEN to_date(right(c.relname, 8), 'YYYYMMDD') END AS day
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass
) AS partitions
WHERE day < $1 AND day > coalesce((SELECT max(day) FROM closed_days), '-infinity') ORDER BY day LIMIT $2

-- name: be_patient
SELECT set_config('statement_timeout', '1h', true), set_config('lock_timeout', '5s', true)

-- name: close
SELECT close_day($1, $2)

-- name: to_detach
-- What was given up half-way comes first: nothing else is detached before it.
SELECT format('ALTER TABLE adserve.events DETACH PARTITION adserve.%I %s', c.relname,
              CASE WHEN i.inhdetachpending THEN 'FINALIZE' ELSE 'CONCURRENTLY' END) AS statement
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
JOIN closed_days d ON c.relname = to_char(d.day, '"events_"YYYYMMDD')
WHERE i.inhparent = 'events'::regclass AND d.closed_at <= $1 ORDER BY i.inhdetachpending DESC, d.day

-- name: wait_briefly
SELECT set_config('statement_timeout', '30s', false), set_config('lock_timeout', '10s', false)

-- name: detached
SELECT d.day, c.relname AS name, d.events
FROM closed_days d JOIN pg_class c ON c.relname = to_char(d.day, '"events_"YYYYMMDD')
WHERE c.relnamespace = 'adserve'::regnamespace AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY d.day

-- name: drop
SELECT drop_closed_day($1)
