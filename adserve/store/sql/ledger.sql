-- A row of `leases` is a part of a budget; of `accounts`, a place where money is; of `budget_uses`, what of a budget is gone.

-- name: take
SELECT lease_id, granted_micros FROM take_lease($1, $2, $3, $4, $5, $6)

-- name: drawable
SELECT id, captured_micros FROM leases WHERE replica = $1 AND frozen_at IS NULL

-- name: freeze
SELECT freeze_leases($1, $2, $3)

-- name: freeze_lost
SELECT freeze_lost_leases($1, $2, $3, $4)

-- name: close_due
SELECT close_leases($1, $2)

-- name: deposit
SELECT deposit($1, $2, $3, $4, $5)

-- name: balances
SELECT a.currency, a.balance_micros, coalesce(held.micros, 0) AS held_micros,
       coalesce(used.micros, 0) - coalesce(held.micros, 0) AS spent_micros
FROM accounts a
LEFT JOIN (SELECT currency, sum(granted_micros - captured_micros)::bigint AS micros
           FROM leases WHERE advertiser_id = $1 AND closed_at IS NULL GROUP BY 1) AS held USING (currency)
LEFT JOIN (SELECT c.currency, sum(u.leased_micros)::bigint AS micros
           FROM budget_uses u JOIN campaigns c ON c.id = u.campaign_id
           WHERE u.advertiser_id = $1 AND u.budget_day IS NULL GROUP BY 1) AS used USING (currency)
WHERE a.kind = 'available' AND a.advertiser_id = $1
ORDER BY a.currency
