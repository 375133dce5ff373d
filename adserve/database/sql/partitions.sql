-- A row is the answer of a function that a migration made.

-- name: ensure
SELECT ensure_partitions($1, $2);

-- name: wait_briefly
SET LOCAL lock_timeout = '500ms';

-- name: drop
SELECT drop_partitions($1, $2);

-- name: unindexed
SELECT format('DROP INDEX CONCURRENTLY IF EXISTS adserve.%1$I', name),
       format('CREATE INDEX CONCURRENTLY %1$I ON adserve.%2$I (%3$s)', name, relname, (SELECT string_agg(quote_ident(c), ', ') FROM unnest($2::text[]) AS c))
FROM (
  SELECT c.oid, c.relname, c.relname || '_by_' || ($2::text[])[1] AS name
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = format('adserve.%I', $1::text)::regclass AND c.relname < $1 || to_char($3::date, '_YYYYMMDD')
) AS days
WHERE NOT EXISTS (
  SELECT FROM pg_index x JOIN pg_class n ON n.oid = x.indexrelid WHERE x.indrelid = days.oid AND n.relname = days.name AND x.indisvalid)
ORDER BY relname LIMIT 1;

-- name: take_time
SET statement_timeout = 0;

-- name: turn_to_index
SELECT pg_try_advisory_lock(hashtextextended('adserve.index', 0));
