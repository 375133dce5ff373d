-- A row is one part of a checkpoint of the counters; `parts` counts those up to it. Only whole checkpoints are read.

-- name: save_part
INSERT INTO counter_checkpoints (taken_at, part, parts, payload) VALUES ($1, $2, $3, $4)

-- name: counts_until
SELECT least($1, (SELECT min(received_at) FROM pending_events),
             (SELECT min(settled_until) FROM spools WHERE heard_at > $1::timestamptz - interval '1 day'))

-- name: forget
DELETE FROM counter_checkpoints

-- name: taken_at
SELECT taken_at FROM counter_checkpoints GROUP BY taken_at HAVING count(*) = max(parts) ORDER BY 1 DESC LIMIT 1

-- name: parts
SELECT payload FROM counter_checkpoints
WHERE payload <> '' AND taken_at = (
  SELECT taken_at FROM counter_checkpoints GROUP BY taken_at HAVING count(*) = max(parts) ORDER BY 1 DESC LIMIT 1)
ORDER BY part
