-- A row of `arm_sums` is a part of the moments of one arm of a step; of `ramp_minutes`, what one process did for a ramp in a minute.

-- name: moments
SELECT arm, metric, sum(viewers)::bigint, sum(x)::float8, sum(y)::float8, sum(xx)::float8, sum(xy)::float8, sum(yy)::float8
FROM arm_sums WHERE ramp_id = $1 AND entered_at = $2 GROUP BY 1, 2

-- name: percents
SELECT percent_bp, holdout_bp, countries FROM rollouts WHERE surface = $1

-- name: window
SELECT looked, unfilled, decisions, errors, paced, off_pace, decision_ms, feed_ms
FROM ramp_minutes WHERE ramp_id = $1 AND minute >= $2

-- name: predicted
SELECT coalesce(sum(placed), 0)::bigint, coalesce(sum(predicted), 0)::float8 FROM ramp_minutes WHERE ramp_id = $1 AND minute >= $2
