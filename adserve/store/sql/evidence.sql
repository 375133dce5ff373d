-- A row of `arm_sums` is a part of the moments of one arm of a step; of `arm_event_reads`, up to when a step's events are counted; of
-- `ramp_minutes`, what one process did for a ramp in a minute.

-- name: moments
SELECT arm, metric, sum(viewers)::bigint, sum(x)::float8, sum(y)::float8, sum(xx)::float8, sum(xy)::float8, sum(yy)::float8
FROM arm_sums WHERE ramp_id = $1 AND entered_at = $2 GROUP BY 1, 2

-- name: percents
SELECT percent_bp, holdout_bp, countries FROM rollouts WHERE surface = $1

-- name: read_to
SELECT read_to FROM arm_event_reads WHERE ramp_id = $1 AND entered_at = $2

-- name: window
SELECT looked, unfilled, decisions, errors, paced, off_pace, decision_ms, feed_ms
FROM ramp_minutes WHERE ramp_id = $1 AND minute >= $2

-- name: clicks
-- Of ads that are paid by the click: impressions and clicks of the step, and the mean rate that was predicted since $3.
SELECT paid_impressions, paid_clicks, p.click_rate
FROM arm_event_reads, (SELECT sum(predicted) / nullif(sum(placed), 0) AS click_rate
                       FROM ramp_minutes WHERE ramp_id = $1 AND minute >= $3) p
WHERE ramp_id = $1 AND entered_at = $2
