-- A row of `ramps` is a plan and where it stands, of `ramp_places` a place that it holds, of `ramp_history` a move of it, of
-- `ramp_looks` what it saw of a step at one moment.

-- name: holder
SELECT ramp_id FROM ramp_places WHERE surface = $1 AND country = ANY ($2::text[]) ORDER BY ramp_id LIMIT 1

-- name: add
INSERT INTO ramps (surface, countries, plan, made_by, made_at, status, step, step_entered_at, good_bp, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id

-- name: one
SELECT * FROM ramps WHERE id = $1

-- name: lock
SELECT * FROM ramps WHERE id = $1 FOR NO KEY UPDATE

-- name: page
SELECT * FROM ramps
WHERE id > $1 AND ($3::boolean IS NULL OR (status NOT IN ('completed', 'rolled_back', 'aborted')) = $3) AND ($4::text IS NULL OR surface = $4)
ORDER BY id LIMIT $2

-- name: move
UPDATE ramps SET status = $2, step = $3, step_entered_at = $4, good_bp = $5, reason = $6 WHERE id = $1

-- name: note
INSERT INTO ramp_history (ramp_id, at, act, by, status, step, percent_bp, reason, seen) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: wake
NOTIFY adserve_ramps

-- name: history
SELECT id, at, act, by, status, step, percent_bp, reason, seen FROM ramp_history WHERE ramp_id = $1 AND id > $2 ORDER BY id LIMIT $3

-- name: turn
-- The server takes it back from a process that hangs: it would hold the turn, and with it the safety of every plan, for as long as it hangs.
SELECT pg_try_advisory_lock(hashtextextended('adserve.ramps', 0)),
       set_config('idle_session_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $1, false)

-- name: active
SELECT r.*, newest.at IS NULL OR newest.at <= $1 OR newest.at < (SELECT max(at) FROM ramp_history WHERE ramp_id = r.id) AS due
FROM ramps r, LATERAL (SELECT max(at) AS at FROM ramp_looks WHERE ramp_id = r.id AND step = r.step) AS newest
WHERE status NOT IN ('completed', 'rolled_back', 'aborted') ORDER BY id

-- name: add_look
INSERT INTO ramp_looks (ramp_id, step, at, look) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING

-- name: newest_looks
SELECT r.id, newest.look
FROM ramps r, generate_series(0, jsonb_array_length(r.plan -> 'steps') - 1) AS place,
LATERAL (SELECT look FROM ramp_looks l WHERE l.ramp_id = r.id AND l.step = place ORDER BY at DESC LIMIT 1) AS newest
WHERE r.id = ANY ($1::bigint[])

-- name: looks
WITH found AS (
  SELECT step, at, max(at) OVER () AS newest, min(at) OVER () AS oldest FROM ramp_looks
  WHERE ramp_id = $1 AND ($2::integer IS NULL OR step = $2)
), chosen AS (
  SELECT step, max(at) AS at FROM found
  GROUP BY step, floor($3::integer * extract(epoch FROM newest - at) / (extract(epoch FROM newest - oldest) + 1))
)
SELECT look FROM ramp_looks JOIN chosen USING (step, at) WHERE ramp_id = $1 ORDER BY at

-- name: forget_looks
DELETE FROM ramp_looks l WHERE at < $1
AND EXISTS (SELECT FROM ramp_looks newer WHERE newer.ramp_id = l.ramp_id AND newer.step = l.step AND newer.at > l.at)
