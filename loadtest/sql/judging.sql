-- A row of `arm_viewers` is a viewer of one arm of a step; of `arm_sums`, a part of the moments of an arm.

-- name: parts
SELECT count(*) FROM arm_sums

-- name: explain
EXPLAIN (ANALYZE, BUFFERS) SELECT arm, metric, sum(viewers), sum(x), sum(y), sum(xx), sum(xy), sum(yy)
FROM arm_sums WHERE ramp_id = 7 GROUP BY 1, 2

-- name: scan
SELECT v.arm, m.metric, count(*), sum(m.x), sum(m.y), sum(m.x * m.x), sum(m.x * m.y), sum(m.y * m.y)
FROM arm_viewers v CROSS JOIN LATERAL arm_metrics(v) m WHERE v.ramp_id = 7 GROUP BY 1, 2
