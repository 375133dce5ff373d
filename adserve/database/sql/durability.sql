-- A row is what a server says about itself.

-- name: promises
SELECT current_setting('server_version_num')::integer AS version,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit;

-- name: clock
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
