-- No table: whom a transaction speaks for.

-- name: act_for
SELECT set_config('adserve.tenant', $1, true)
