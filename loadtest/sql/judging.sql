-- A row of `arm_sums` is a part of the moments of one arm of a step.

-- name: parts
SELECT count(*) FROM arm_sums

-- name: explain
EXPLAIN (ANALYZE, BUFFERS) SELECT arm, metric, sum(viewers), sum(x), sum(y), sum(xx), sum(xy), sum(yy)
FROM arm_sums WHERE ramp_id = 7 GROUP BY 1, 2
