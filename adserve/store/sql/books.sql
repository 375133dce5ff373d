-- A row is one figure: a check's name, whether it stands in the books or was derived, what it is of, and how much.

-- name: figures
WITH billed AS MATERIALIZED (
  SELECT lease_id, advertiser_id, campaign_id, ad_id, currency, kind, outcome,
         date_trunc('hour', received_at, 'UTC') AS hour, count(*) AS events, sum(billed_micros) AS micros
  FROM events GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), charged AS (
  SELECT lease_id, advertiser_id, campaign_id, currency, sum(micros) AS micros
  FROM billed WHERE outcome = 'recorded' GROUP BY 1, 2, 3, 4
), lent AS (
  SELECT advertiser_id, campaign_id, currency, id, budget_day, granted_micros,
         CASE WHEN closed_at IS NULL THEN granted_micros ELSE coalesce(c.micros, 0) END AS leased_micros,
         coalesce(c.micros, 0) AS micros
  FROM leases LEFT JOIN (SELECT lease_id, sum(micros) AS micros FROM charged GROUP BY 1) AS c ON c.lease_id = leases.id
), posted AS (
  SELECT a.kind, a.advertiser_id, a.currency, p.campaign_id, p.lease_id, t.kind AS cause, sum(p.micros) AS micros
  FROM postings p JOIN accounts a ON a.id = p.account_id JOIN transactions t ON t.id = p.transaction_id
  GROUP BY 1, 2, 3, 4, 5, 6
), money_in AS (
  SELECT advertiser_id, currency, sum(micros) AS micros FROM posted WHERE cause = 'deposit' AND kind = 'available' GROUP BY 1, 2
)
SELECT 'lease captures' AS name, false AS booked, ARRAY[lease_id::text] AS key, sum(micros)::bigint AS amount FROM charged GROUP BY 3
UNION ALL SELECT 'lease captures', true, ARRAY[id::text], captured_micros FROM leases WHERE captured_micros <> 0
UNION ALL SELECT 'charges to held by campaign and lease', false, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], -micros FROM charged
UNION ALL SELECT 'charges to held by campaign and lease', true, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], micros
  FROM posted WHERE cause = 'settle' AND kind = 'held'
UNION ALL SELECT 'revenue by campaign and lease', false, ARRAY[campaign_id::text, lease_id::text, currency], micros FROM charged
UNION ALL SELECT 'revenue by campaign and lease', true, ARRAY[campaign_id::text, lease_id::text, currency], micros FROM posted WHERE kind = 'revenue'
UNION ALL SELECT 'holds by lease', false, ARRAY[id::text, account], granted_micros * sign
  FROM leases, (VALUES ('held', 1), ('available', -1)) AS side (account, sign)
UNION ALL SELECT 'holds by lease', true, ARRAY[lease_id::text, kind], micros FROM posted WHERE cause = 'hold'
UNION ALL SELECT 'returns by lease', false, ARRAY[id::text, account], (granted_micros - leased_micros) * sign
  FROM lent, (VALUES ('held', -1), ('available', 1)) AS side (account, sign) WHERE granted_micros > leased_micros
UNION ALL SELECT 'returns by lease', true, ARRAY[lease_id::text, kind], micros FROM posted WHERE cause = 'return'
UNION ALL SELECT 'account balances', false, ARRAY['available', advertiser_id::text, currency], sum(micros) FROM (
    SELECT advertiser_id, currency, micros FROM money_in
    UNION ALL SELECT advertiser_id, currency, -leased_micros FROM lent) AS moves GROUP BY 3
UNION ALL SELECT 'account balances', false, ARRAY['held', advertiser_id::text, currency], sum(leased_micros - micros) FROM lent GROUP BY 3
UNION ALL SELECT 'account balances', false, ARRAY['revenue', NULL, currency], sum(micros) FROM charged GROUP BY 3
UNION ALL SELECT 'account balances', false, ARRAY['cash', NULL, currency], -sum(micros) FROM money_in GROUP BY 3
UNION ALL SELECT 'account balances', true, ARRAY[kind, advertiser_id::text, currency], sum(micros) FROM posted GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', false, ARRAY[advertiser_id::text, currency], sum(micros) FROM posted WHERE kind = 'available' GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', true, ARRAY[advertiser_id::text, currency], balance_micros FROM accounts WHERE kind = 'available'
UNION ALL SELECT 'budget uses', false, ARRAY[campaign_id::text, budget_day::text], sum(leased_micros) FROM lent GROUP BY 3
UNION ALL SELECT 'budget uses', false, ARRAY[campaign_id::text, NULL], sum(leased_micros) FROM lent GROUP BY 3
UNION ALL SELECT 'budget uses', true, ARRAY[campaign_id::text, budget_day::text], leased_micros FROM budget_uses
UNION ALL SELECT 'budgets exceeded', true, ARRAY[campaign_id::text, budget_day::text], leased_micros - allowed_micros
  FROM budget_uses WHERE leased_micros > allowed_micros
UNION ALL SELECT 'leases exceeded', true, ARRAY[id::text], greatest(micros, captured_micros) - granted_micros
  FROM lent JOIN leases USING (id, granted_micros) WHERE greatest(micros, captured_micros) > granted_micros
UNION ALL SELECT 'roll-up events', false, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(events) FROM billed GROUP BY 3
UNION ALL SELECT 'roll-up events', true, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(events) FROM rollup_deltas GROUP BY 3
UNION ALL SELECT 'roll-up micros', false, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(micros) FROM billed GROUP BY 3
UNION ALL SELECT 'roll-up micros', true, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(billed_micros) FROM rollup_deltas GROUP BY 3
UNION ALL SELECT 'unbalanced transactions', true, ARRAY[transaction_id::text, currency], sum(micros) FROM postings
  GROUP BY transaction_id, currency HAVING sum(micros) <> 0
UNION ALL SELECT 'tickets billed again', true, ARRAY[ticket_id::text], count(*) - 1 FROM events WHERE outcome = 'recorded'
  GROUP BY ticket_id HAVING count(*) > 1
UNION ALL SELECT 'charges not at the sealed price', true, ARRAY[event_id::text], billed_micros - price_micros FROM events
  WHERE outcome = 'recorded' AND billed_micros <> price_micros

-- name: take_time
SET LOCAL statement_timeout = '1h'

-- name: volume
SELECT currency, count(*) AS events, sum(billed_micros)::bigint AS billed_micros FROM events GROUP BY 1 ORDER BY 1
