-- A row of `rollup_deltas` is what one batch added to an hour's figures; of `rollups`, the sum of those that were moved there.

-- name: compact
SELECT compact_rollups($1)
