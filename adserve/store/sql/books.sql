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
  SELECT kind, advertiser_id, currency, sum(micros) AS micros FROM posted
  WHERE cause = 'deposit' AND kind = 'available' OR cause = 'promotion' AND kind = 'promotional' GROUP BY 1, 2, 3
), funded AS (
  SELECT l.id, l.advertiser_id, l.currency, source.kind, source.granted_micros, source.used_micros
  FROM lent JOIN leases l USING (id), LATERAL (VALUES
    ('promotional', promotional_micros, least(leased_micros, promotional_micros)),
    ('available', l.granted_micros - promotional_micros - credit_micros,
     least(leased_micros, l.granted_micros - credit_micros) - least(leased_micros, promotional_micros)),
    ('receivable', credit_micros, greatest(leased_micros - l.granted_micros + credit_micros, 0))
  ) AS source (kind, granted_micros, used_micros)
), moved AS (
  SELECT kind, advertiser_id, currency, micros FROM money_in
  UNION ALL SELECT CASE kind WHEN 'available' THEN 'cash' ELSE 'marketing' END, NULL, currency, -micros FROM money_in
  UNION ALL SELECT kind, advertiser_id, currency, -used_micros FROM funded
  UNION ALL SELECT 'held', advertiser_id, currency, leased_micros - micros FROM lent
  UNION ALL SELECT 'revenue', NULL, currency, micros FROM charged
  UNION ALL SELECT side.kind, side.owner, currency, side.micros FROM credits c, LATERAL (VALUES
    ('revenue', NULL, -c.micros), ('receivable', advertiser_id, owed_micros), ('available', advertiser_id, c.micros - owed_micros)
  ) AS side (kind, owner, micros)
  UNION ALL SELECT side.kind, NULL, currency, side.micros FROM invoices, LATERAL (VALUES
    ('revenue', total_micros - net_micros), ('rounding', net_micros - total_micros)
  ) AS side (kind, micros) WHERE status IN ('issued', 'paid')
  UNION ALL SELECT side.kind, side.owner, currency, side.micros FROM invoices, LATERAL (VALUES
    ('cash', NULL, -due_micros), ('receivable', advertiser_id, covered_micros), ('rounding', NULL, due_micros - covered_micros)
  ) AS side (kind, owner, micros) WHERE status = 'paid'
)
SELECT 'lease captures' AS name, false AS booked, ARRAY[lease_id::text] AS key, sum(micros)::bigint AS amount FROM charged GROUP BY 3
UNION ALL SELECT 'lease captures', true, ARRAY[id::text], captured_micros FROM leases WHERE captured_micros <> 0
UNION ALL SELECT 'charges to held by campaign and lease', false, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], -micros FROM charged
UNION ALL SELECT 'charges to held by campaign and lease', true, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], micros
  FROM posted WHERE cause = 'settle' AND kind = 'held'
UNION ALL SELECT 'revenue by campaign and lease', false, ARRAY[campaign_id::text, lease_id::text, currency], micros FROM charged
UNION ALL SELECT 'revenue by campaign and lease', true, ARRAY[campaign_id::text, lease_id::text, currency], micros
  FROM posted WHERE cause = 'settle' AND kind = 'revenue'
UNION ALL SELECT 'holds by lease', false, ARRAY[id::text, 'held'], granted_micros FROM leases
UNION ALL SELECT 'holds by lease', false, ARRAY[id::text, kind], -granted_micros FROM funded
UNION ALL SELECT 'holds by lease', true, ARRAY[lease_id::text, kind], micros FROM posted WHERE cause = 'hold'
UNION ALL SELECT 'returns by lease', false, ARRAY[id::text, 'held'], leased_micros - granted_micros FROM lent
UNION ALL SELECT 'returns by lease', false, ARRAY[id::text, kind], granted_micros - used_micros FROM funded
UNION ALL SELECT 'returns by lease', true, ARRAY[lease_id::text, kind], micros FROM posted WHERE cause = 'return'
UNION ALL SELECT 'account balances', false, ARRAY[kind, advertiser_id::text, currency], sum(micros) FROM moved GROUP BY 3
UNION ALL SELECT 'account balances', true, ARRAY[kind, advertiser_id::text, currency], sum(micros) FROM posted GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', false, ARRAY[kind, advertiser_id::text, currency], sum(micros) FROM posted
  WHERE kind IN ('promotional', 'available', 'receivable') GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', true, ARRAY[kind, advertiser_id::text, currency],
  balance_micros - coalesce(credit_line_micros, 0) FROM accounts WHERE balance_micros IS NOT NULL
UNION ALL SELECT 'invoices by lines', false, ARRAY[invoice_id::text, name], sum(micros) FROM invoice_lines, LATERAL (VALUES
    ('gross', gross_micros), ('invalid', invalid_micros), ('credits', credits_micros), ('net', net_micros), ('total', total_micros)
  ) AS part (name, micros) GROUP BY 3
UNION ALL SELECT 'invoices by lines', true, ARRAY[id::text, name], micros FROM invoices, LATERAL (VALUES
    ('gross', gross_micros), ('invalid', invalid_micros), ('credits', credits_micros), ('net', net_micros), ('total', total_micros)
  ) AS part (name, micros)
UNION ALL SELECT 'credits on invoices', false, ARRAY[invoice_id::text], sum(micros) FROM credits WHERE invoice_id IS NOT NULL GROUP BY 3
UNION ALL SELECT 'credits on invoices', true, ARRAY[id::text], credits_micros FROM invoices WHERE status <> 'void'
UNION ALL SELECT 'invoiced beyond what was charged', true, ARRAY[advertiser_id::text, campaign_id::text, currency], o.micros - coalesce(b.micros, 0)
  FROM (SELECT i.advertiser_id, l.campaign_id, i.currency, sum(l.gross_micros - l.invalid_micros) AS micros
        FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id WHERE i.status <> 'void' GROUP BY 1, 2, 3) AS o
  LEFT JOIN (SELECT advertiser_id, campaign_id, currency, sum(micros) AS micros FROM charged GROUP BY 1, 2, 3) AS b
    USING (advertiser_id, campaign_id, currency) WHERE o.micros > coalesce(b.micros, 0)
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
