-- A row of `recorded_decisions` is a decision with its inputs; of `ad_versions`, the facts of an ad that one of them names.

-- name: save_versions
INSERT INTO ad_versions (digest, facts, used_on)
SELECT digest, facts, $3 FROM unnest($1::bytea[], $2::bytea[]) AS given (digest, facts) ORDER BY digest
ON CONFLICT (digest) DO UPDATE SET used_on = EXCLUDED.used_on WHERE ad_versions.used_on < EXCLUDED.used_on

-- name: save_decisions
INSERT INTO recorded_decisions (decided_on, decision_id, record, viewer)
SELECT decided_on, decision_id, record, viewer
FROM unnest($1::date[], $2::uuid[], $3::bytea[], $4::bytea[], $5::timestamptz[]) AS made (decided_on, decision_id, record, viewer, at)
WHERE NOT EXISTS (SELECT FROM erasures e WHERE e.tombstone = sha256(made.viewer) AND (e.cut_at IS NULL OR made.at < e.cut_at))
ON CONFLICT DO NOTHING

-- name: decision
SELECT record FROM recorded_decisions WHERE decided_on = $1 AND decision_id = $2

-- name: versions
SELECT digest, facts FROM ad_versions WHERE digest = ANY ($1)

-- name: forget_versions
DELETE FROM ad_versions WHERE used_on < $1

-- name: sample
SELECT s.nth - 1 AS hour, d.record
FROM unnest($1::date[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS s (day, first_id, end_id, nth), LATERAL (
  SELECT record FROM recorded_decisions
  WHERE decided_on = s.day AND decision_id >= s.first_id AND decision_id < s.end_id
  ORDER BY decision_id DESC LIMIT $4
) AS d

-- name: requests
SELECT q.quarter, t.requests
FROM generate_series($1::bigint, $2::bigint) AS q (quarter) JOIN slot_traffic t ON t.quarter = q.quarter AND t.country = '*'
