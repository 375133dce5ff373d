-- A row of `rollouts` is one surface's percents in basis points, of `ramp_places` a place that a plan holds; `rollout_switch` is
-- one row; a row of `replicas` is a process that serves: one that was not heard of may do so until its snapshot is too old, after 300 s.

-- name: read
SELECT surface, percent_bp, holdout_bp, countries FROM rollouts ORDER BY surface

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('adserve.rollouts', 0))

-- name: clear
DELETE FROM rollouts

-- name: add
INSERT INTO rollouts (surface, percent_bp, holdout_bp, countries) VALUES ($1, $2, $3, $4)

-- name: held
SELECT surface, country, ramp_id FROM ramp_places ORDER BY surface, country

-- name: set_percent
INSERT INTO rollouts (surface, percent_bp, holdout_bp) VALUES ($1, $2, 0)
ON CONFLICT (surface) DO UPDATE SET percent_bp = excluded.percent_bp

-- name: set_countries
INSERT INTO rollouts (surface, percent_bp, holdout_bp, countries) VALUES ($1, 0, 0, $2)
ON CONFLICT (surface) DO UPDATE SET countries = rollouts.countries || excluded.countries

-- name: paused
SELECT paused FROM rollout_switch

-- name: set_paused
UPDATE rollout_switch SET paused = $1 RETURNING version

-- name: standing_by
SELECT count(*) FILTER (WHERE switch_version >= (SELECT version FROM rollout_switch)), count(*) FROM replicas
WHERE heartbeat_at > now() - interval '305 seconds'

-- name: applied
SELECT count(*) FILTER (WHERE switch_version >= $1), count(*) FROM replicas
WHERE heartbeat_at > now() - interval '305 seconds'
