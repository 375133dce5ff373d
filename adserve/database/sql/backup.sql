-- A row is a table of ours with the statement that counts and hashes its rows, whatever their order.

-- name: ledger
SELECT c.relname AS name,
       format('SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) || ''/''
                 || coalesce(sum(hashtextextended(t::text, 1)::numeric), 0) AS hash FROM %I.%I AS t', n.nspname, c.relname) AS statement
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'adserve' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 1
