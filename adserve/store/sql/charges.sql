-- A row of `events` is one event with its ticket's facts; of `postings`, what a batch moved on one lease and account.

-- name: event
SELECT * FROM events WHERE received_at = $1 AND event_id = $2

-- name: lease
SELECT id, budget_day, granted_micros, captured_micros, opened_at, closed_at FROM leases WHERE id = $1

-- name: postings
SELECT p.transaction_id, a.kind AS account, p.micros, p.currency
FROM postings p JOIN accounts a ON a.id = p.account_id
WHERE p.transaction_id = $1 AND p.lease_id = $2 AND p.campaign_id = $3 ORDER BY p.micros
