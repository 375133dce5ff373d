-- A row of `leases` is a part of a budget; of `accounts`, a place where money is; of `budget_uses`, what of a budget is gone.

-- name: take
SELECT campaign_id, lease_id, granted_micros, expected_micros, paced FROM take_leases($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: forecast
SELECT campaign_id, expected_micros, leased_micros FROM forecast_leases($1, $2, $3, $4, $5)

-- name: drawable
SELECT id, captured_micros FROM leases WHERE replica = $1 AND frozen_at IS NULL

-- name: captured
SELECT id, captured_micros FROM leases
WHERE id = ANY ($2) AND replica = $1 AND (frozen_at IS NULL OR closed_at IS NULL AND NOT id = ANY ($3))

-- name: funds
SELECT coalesce(max(id), 0) FROM transactions WHERE kind IN ('deposit', 'promotion', 'credit_line', 'credit', 'payment')

-- name: extend
SELECT extend_leases($1, $2)

-- name: freeze
SELECT freeze_leases($1, $2, $3)

-- name: freeze_lost
SELECT freeze_lost_leases($1, $2, $3, $4)

-- name: close_due
SELECT close_leases($1, $2)

-- name: overdue
SELECT count(*) FROM leases WHERE closed_at IS NULL AND closes_at < $1

-- name: deposit
SELECT deposit($1, $2, $3, $4, $5)

-- name: promote
SELECT promote($1, $2, $3, $4, $5)

-- name: set_credit_line
SELECT set_credit_line($1, $2, $3, $4)

-- name: issue_credit
SELECT issue_credit($1, $2, $3, $4, $5, $6, $7)

-- name: balances
SELECT a.currency, a.balance_micros, f.balance_micros AS promotional_micros, r.credit_line_micros,
       r.credit_line_micros - r.balance_micros AS owed_micros, coalesce(held.micros, 0) AS held_micros,
       coalesce(used.micros, 0) - coalesce(held.micros, 0) AS spent_micros
FROM accounts a
JOIN accounts f ON f.kind = 'promotional' AND f.advertiser_id = a.advertiser_id AND f.currency = a.currency
JOIN accounts r ON r.kind = 'receivable' AND r.advertiser_id = a.advertiser_id AND r.currency = a.currency
LEFT JOIN (SELECT currency, sum(granted_micros - captured_micros)::bigint AS micros
           FROM leases WHERE advertiser_id = $1 AND closed_at IS NULL GROUP BY 1) AS held ON held.currency = a.currency
LEFT JOIN (SELECT c.currency, sum(u.leased_micros)::bigint AS micros
           FROM budget_uses u JOIN campaigns c ON c.id = u.campaign_id  -- by the index of campaigns: uses have none by advertiser
           WHERE u.advertiser_id = $1 AND c.advertiser_id = $1 AND u.budget_day IS NULL GROUP BY 1) AS used ON used.currency = a.currency
WHERE a.kind = 'available' AND a.advertiser_id = $1
ORDER BY a.currency

-- name: add_traffic
INSERT INTO slot_traffic AS t (quarter, country, requests)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
ON CONFLICT (quarter, country) DO UPDATE SET requests = t.requests + excluded.requests

-- name: traffic
SELECT quarter, country, requests FROM slot_traffic WHERE quarter >= $1

-- name: forget_traffic
DELETE FROM slot_traffic WHERE quarter < $1

-- name: forget_forecasts
DELETE FROM lease_forecasts WHERE at < $1::timestamptz - interval '2 days'
