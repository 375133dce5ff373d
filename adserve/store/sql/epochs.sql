-- A row of `counter_epochs` is a time during which the counters lost nothing. The newest is the one that holds.

-- name: newest
SELECT coalesce(max(epoch), 0) FROM counter_epochs

-- name: open_epoch
SELECT open_epoch($1)

-- name: try_turn
SELECT pg_try_advisory_lock(hashtextextended('adserve.counters', 0))
