-- A row of `figures` is one figure: a check's name, whether it stands in the books or was derived, what it is of, and how
-- much. A figure that is there once is 0 on the other side. The tables that only a reconciliation has go with its transaction.

-- name: take_snapshot
-- The lock comes before the snapshot: a day that is retired meanwhile keeps its partition until we are through.
LOCK TABLE ONLY events IN ACCESS SHARE MODE;
SET LOCAL statement_timeout = '1h';
CREATE TEMPORARY TABLE figures (name text, booked boolean, key text[], amount bigint) ON COMMIT DROP;
CREATE TEMPORARY TABLE billed (
  hour timestamptz, advertiser_id bigint, campaign_id bigint, ad_id bigint, lease_id bigint, currency text, kind text,
  outcome text, events bigint, micros bigint, invalid_micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE charges (
  transaction_id bigint, campaign_id bigint, lease_id bigint, currency text, micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE charged (
  lease_id bigint, advertiser_id bigint, campaign_id bigint, currency text, micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE lent (
  lease_id bigint, advertiser_id bigint, campaign_id bigint, currency text, budget_day date, granted_micros bigint,
  leased_micros bigint, micros bigint, promotional_micros bigint, credit_micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE funded (
  lease_id bigint, advertiser_id bigint, currency text, account text, granted_micros bigint, used_micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE posted (
  account text, advertiser_id bigint, currency text, campaign_id bigint, lease_id bigint, cause text, micros bigint
) ON COMMIT DROP;
CREATE TEMPORARY TABLE retired (day date) ON COMMIT DROP;
CREATE TEMPORARY TABLE standing (
  id bigint, advertiser_id bigint, currency text, month date, status text, counted_from date, counted_in pg_snapshot
) ON COMMIT DROP;
CREATE TEMPORARY TABLE counted (advertiser_id bigint, currency text, month date, snapshots pg_snapshot[]) ON COMMIT DROP;
CREATE TEMPORARY TABLE due (
  advertiser_id bigint, currency text, campaign_id bigint, day date, outcome text, events_least bigint, events_most bigint,
  micros_least bigint, micros_most bigint
) ON COMMIT DROP

-- name: open_days
SELECT day FROM (
  -- The planner may work this out for every relation that there is.
  SELECT CASE WHEN c.relname ~ '^events_[0-9]{8}$' THEN to_date(right(c.relname, 8), 'YYYYMMDD') END AS day
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass
) AS partitions
WHERE day > coalesce((SELECT max(day) FROM closed_days), '-infinity') ORDER BY day

-- name: closed_days
SELECT day FROM closed_days ORDER BY day

-- name: find_retired
INSERT INTO retired
SELECT day FROM closed_days WHERE NOT EXISTS (
  SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'events'::regclass AND NOT i.inhdetachpending AND c.relname = to_char(day, '"events_"YYYYMMDD'))

-- name: find_counts
-- A void invoice stands until its month is drafted anew. Each draft left nothing of its months that its snapshot sees, and of an
-- advertiser without an invoice of a month no run found anything in it. Before the first invoice days may become those of another time zone:
-- so only the next month's run is believed then.
WITH newest AS (
  SELECT DISTINCT ON (advertiser_id, currency, month) * FROM invoices ORDER BY advertiser_id, currency, month, id DESC
), stands AS (
  INSERT INTO standing
  SELECT id, advertiser_id, currency, month, status, counted_from, counted_in FROM newest i
  WHERE status <> 'void'
     OR EXISTS (SELECT FROM invoice_runs r WHERE r.time_zone = i.time_zone AND r.month = i.month AND r.made_at IS NULL)
  RETURNING *
), counts AS (
  SELECT advertiser_id, currency, of::date AS month, counted_in
  FROM stands, generate_series(coalesce(counted_from, month - interval '2 months'), month, '1 month') AS of
  UNION ALL
  SELECT a.advertiser_id, a.currency, of::date, r.counted_in
  FROM invoice_runs r JOIN advertisers o USING (time_zone) JOIN accounts a ON a.advertiser_id = o.id AND a.kind = 'receivable'
  CROSS JOIN generate_series(r.month - interval '2 months', r.month, '1 month') AS of
  WHERE NOT EXISTS (SELECT FROM stands s WHERE s.advertiser_id = a.advertiser_id AND s.currency = a.currency AND s.month = of)
    AND (r.month > of OR EXISTS (SELECT FROM invoices i WHERE i.advertiser_id = o.id))
)
INSERT INTO counted
SELECT advertiser_id, currency, month, array_agg(counted_in) FILTER (WHERE counted_in IS NOT NULL) FROM counts GROUP BY 1, 2, 3

-- name: sum_day
INSERT INTO billed
SELECT date_trunc('hour', received_at, 'UTC'), advertiser_id, campaign_id, ad_id, lease_id, currency, kind, outcome,
       count(*), sum(billed_micros), sum(CASE WHEN outcome = 'invalid_traffic' AND kind = billable THEN price_micros ELSE 0 END)
FROM events WHERE issued_day = $1 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8

-- name: sum_charges
INSERT INTO charges
SELECT transaction_id, campaign_id, lease_id, currency, sum(billed_micros)
FROM events
WHERE issued_day = $1 AND outcome = 'recorded'
  AND transaction_id > coalesce((SELECT max(last_transaction) FROM closed_days), 0)
GROUP BY 1, 2, 3, 4

-- name: sum_due
-- What of a day must stand on invoices at the least, and may at the most: what was stored in a transaction that is not known, and what
-- was counted before snapshots were kept, stands on them or does not.
INSERT INTO due
SELECT advertiser_id, currency, campaign_id, day, outcome, coalesce(sum(events) FILTER (WHERE seen), 0),
       coalesce(sum(events) FILTER (WHERE seen IS NOT FALSE), 0), coalesce(sum(micros) FILTER (WHERE seen), 0),
       coalesce(sum(micros) FILTER (WHERE seen IS NOT FALSE), 0)
FROM (
  SELECT e.transaction_id, e.campaign_id, e.advertiser_id, (e.received_at AT TIME ZONE a.time_zone)::date AS day, e.currency,
         e.outcome, count(*) AS events, sum(e.price_micros) AS micros
  FROM events e JOIN advertisers a ON a.id = e.advertiser_id
  WHERE e.issued_day = $1 AND e.kind = e.billable AND e.outcome IN ('recorded', 'invalid_traffic') GROUP BY 1, 2, 3, 4, 5, 6
) AS e
JOIN counted USING (advertiser_id, currency)
LEFT JOIN transactions t ON t.id = e.transaction_id
CROSS JOIN LATERAL (
  SELECT bool_or(CASE WHEN t.id IS NOT NULL THEN coalesce(pg_visible_in_snapshot(t.xid, snapshot), true) END) AS seen
  FROM unnest(snapshots) AS snapshot
) AS by
WHERE month = date_trunc('month', day)::date GROUP BY 1, 2, 3, 4, 5

-- name: sum_retired_due
-- How many events of those that were invalid would have been billed is not among the figures, nor on which local day any was.
INSERT INTO due
SELECT advertiser_id, currency, campaign_id, date '-infinity', outcome, sum(CASE outcome WHEN 'recorded' THEN events ELSE 0 END), sum(events),
       sum(billed_micros + invalid_micros), sum(billed_micros + invalid_micros)
FROM closing_figures JOIN retired USING (day) WHERE day = $1 AND outcome IN ('recorded', 'invalid_traffic') GROUP BY 1, 2, 3, 5

-- name: rate_day
INSERT INTO figures
SELECT 'tickets billed again', true, ARRAY[ticket_id::text], count(*) - 1 FROM events
WHERE issued_day = $1 AND outcome = 'recorded' GROUP BY ticket_id HAVING count(*) > 1
UNION ALL SELECT 'charges not at the sealed price', true, ARRAY[event_id::text], billed_micros - price_micros FROM events
WHERE issued_day = $1 AND outcome = 'recorded' AND billed_micros <> price_micros

-- name: sum_closed_day
INSERT INTO billed
SELECT hour, advertiser_id, campaign_id, ad_id, lease_id, currency, kind, outcome, events, billed_micros, invalid_micros
FROM closing_figures WHERE day = $1

-- name: check_closed_day
WITH entries AS (
  SELECT * FROM closing_entries WHERE day = $1
), summed AS (
  SELECT advertiser_id, campaign_id, currency, sum(events) AS events, sum(billed_micros) AS billed_micros
  FROM closing_figures WHERE day = $1 GROUP BY 1, 2, 3
), raw AS MATERIALIZED (
  SELECT * FROM closing_entries_of($1)
), held_against AS (
  SELECT advertiser_id, campaign_id, currency, r.hash AS derived, e.hash AS booked
  FROM raw r FULL JOIN entries e USING (advertiser_id, campaign_id, currency)
  WHERE to_regclass('adserve.' || to_char($1::date, '"events_"YYYYMMDD')) IS NOT NULL
)
INSERT INTO figures
SELECT 'closing entries: events', false, ARRAY[$1::text, advertiser_id::text, campaign_id::text, currency], events FROM summed
UNION ALL SELECT 'closing entries: events', true, ARRAY[$1::text, advertiser_id::text, campaign_id::text, currency], events FROM entries
UNION ALL SELECT 'closing entries: micros', false, ARRAY[$1::text, advertiser_id::text, campaign_id::text, currency], billed_micros FROM summed
UNION ALL SELECT 'closing entries: micros', true, ARRAY[$1::text, advertiser_id::text, campaign_id::text, currency], billed_micros FROM entries
UNION ALL SELECT 'closed days: events', false, ARRAY[$1::text], coalesce(sum(events), 0) FROM entries
UNION ALL SELECT 'closed days: events', true, ARRAY[$1::text], events FROM closed_days WHERE day = $1
UNION ALL SELECT 'closed days: hash is another', true, ARRAY[$1::text], 1 FROM closed_days WHERE day = $1 AND hash <> closing_hash($1)
UNION ALL SELECT 'closing entries: hash of the events is another', true, ARRAY[$1::text, advertiser_id::text, campaign_id::text, currency], 1
  FROM held_against WHERE derived IS DISTINCT FROM booked

-- name: sum_books
WITH summed AS (
  INSERT INTO charged SELECT lease_id, advertiser_id, campaign_id, currency, sum(micros) FROM billed
  WHERE outcome = 'recorded' GROUP BY 1, 2, 3, 4 RETURNING lease_id, micros
), sums AS (
  INSERT INTO posted
  SELECT a.kind, a.advertiser_id, a.currency, p.campaign_id, p.lease_id, t.kind, sum(p.micros)
  FROM postings p JOIN accounts a ON a.id = p.account_id JOIN transactions t ON t.id = p.transaction_id
  GROUP BY 1, 2, 3, 4, 5, 6
), loans AS (
  INSERT INTO lent
  SELECT id, advertiser_id, campaign_id, currency, budget_day, granted_micros,
         CASE WHEN closed_at IS NULL THEN granted_micros ELSE coalesce(c.micros, 0) END, coalesce(c.micros, 0),
         promotional_micros, credit_micros
  FROM leases LEFT JOIN (SELECT lease_id, sum(micros) AS micros FROM summed GROUP BY 1) AS c ON c.lease_id = leases.id
  RETURNING *
)
INSERT INTO funded
SELECT lease_id, advertiser_id, currency, source.account, source.granted_micros, source.used_micros
FROM loans, LATERAL (VALUES
  ('promotional', promotional_micros, least(leased_micros, promotional_micros)),
  ('available', granted_micros - promotional_micros - credit_micros,
   least(leased_micros, granted_micros - credit_micros) - least(leased_micros, promotional_micros)),
  ('receivable', credit_micros, greatest(leased_micros - granted_micros + credit_micros, 0))
) AS source (account, granted_micros, used_micros)

-- name: check_leases
INSERT INTO figures
SELECT 'lease captures', false, ARRAY[lease_id::text], sum(micros) FROM charged GROUP BY 3
UNION ALL SELECT 'lease captures', true, ARRAY[id::text], captured_micros FROM leases WHERE captured_micros <> 0
UNION ALL SELECT 'holds by lease', false, ARRAY[lease_id::text, 'held'], granted_micros FROM lent
UNION ALL SELECT 'holds by lease', false, ARRAY[lease_id::text, account], -granted_micros FROM funded
UNION ALL SELECT 'holds by lease', true, ARRAY[lease_id::text, account], micros FROM posted WHERE cause = 'hold'
UNION ALL SELECT 'returns by lease', false, ARRAY[lease_id::text, 'held'], leased_micros - granted_micros FROM lent
UNION ALL SELECT 'returns by lease', false, ARRAY[lease_id::text, account], granted_micros - used_micros FROM funded
UNION ALL SELECT 'returns by lease', true, ARRAY[lease_id::text, account], micros FROM posted WHERE cause = 'return'
UNION ALL SELECT 'leases exceeded', true, ARRAY[lease_id::text], greatest(micros, captured_micros) - granted_micros
  FROM lent JOIN leases USING (granted_micros) WHERE id = lease_id AND greatest(micros, captured_micros) > granted_micros
UNION ALL SELECT 'budget uses', false, ARRAY[campaign_id::text, budget_day::text], sum(leased_micros) FROM lent GROUP BY 3
UNION ALL SELECT 'budget uses', false, ARRAY[campaign_id::text, NULL], sum(leased_micros) FROM lent GROUP BY 3
UNION ALL SELECT 'budget uses', true, ARRAY[campaign_id::text, budget_day::text], leased_micros FROM budget_uses
UNION ALL SELECT 'budgets exceeded', true, ARRAY[campaign_id::text, budget_day::text], leased_micros - allowed_micros
  FROM budget_uses WHERE leased_micros > allowed_micros

-- name: check_charges
INSERT INTO figures
SELECT 'charges to held by campaign and lease', false, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], -micros FROM charged
UNION ALL SELECT 'charges to held by campaign and lease', true, ARRAY[advertiser_id::text, campaign_id::text, lease_id::text, currency], micros
  FROM posted WHERE cause = 'settle' AND account = 'held'
UNION ALL SELECT 'revenue by campaign and lease', false, ARRAY[campaign_id::text, lease_id::text, currency], micros FROM charged
UNION ALL SELECT 'revenue by campaign and lease', true, ARRAY[campaign_id::text, lease_id::text, currency], micros
  FROM posted WHERE cause = 'settle' AND account = 'revenue'
UNION ALL SELECT 'charges by transaction', false, ARRAY[transaction_id::text, account, campaign_id::text, lease_id::text, currency], sum(micros * sign)
  FROM charges, (VALUES ('held', -1), ('revenue', 1)) AS side (account, sign) GROUP BY 3
UNION ALL SELECT 'charges by transaction', true, ARRAY[p.transaction_id::text, a.kind, p.campaign_id::text, p.lease_id::text, p.currency], sum(p.micros)
  FROM postings p JOIN accounts a ON a.id = p.account_id
  WHERE p.transaction_id IN (SELECT transaction_id FROM charges) GROUP BY 3
UNION ALL SELECT 'unbalanced transactions', true, ARRAY[transaction_id::text, currency], sum(micros) FROM postings
  GROUP BY transaction_id, currency HAVING sum(micros) <> 0

-- name: check_balances
WITH money_in AS (
  SELECT account, advertiser_id, currency, sum(micros) AS micros FROM posted
  WHERE cause = 'deposit' AND account = 'available' OR cause = 'promotion' AND account = 'promotional' GROUP BY 1, 2, 3
), moved AS (
  SELECT account, advertiser_id, currency, micros FROM money_in
  UNION ALL SELECT CASE account WHEN 'available' THEN 'cash' ELSE 'marketing' END, NULL, currency, -micros FROM money_in
  UNION ALL SELECT account, advertiser_id, currency, -used_micros FROM funded
  UNION ALL SELECT 'held', advertiser_id, currency, leased_micros - micros FROM lent
  UNION ALL SELECT 'revenue', NULL, currency, micros FROM charged
  UNION ALL SELECT side.account, side.owner, currency, side.micros FROM credits c, LATERAL (VALUES
    ('revenue', NULL, -c.micros), ('receivable', advertiser_id, owed_micros), ('available', advertiser_id, c.micros - owed_micros)
  ) AS side (account, owner, micros)
  UNION ALL SELECT side.account, NULL, currency, side.micros FROM invoices, LATERAL (VALUES
    ('revenue', total_micros - net_micros), ('rounding', net_micros - total_micros)
  ) AS side (account, micros) WHERE status IN ('issued', 'paid')
  UNION ALL SELECT side.account, side.owner, currency, side.micros FROM invoices, LATERAL (VALUES
    ('cash', NULL, -due_micros), ('receivable', advertiser_id, covered_micros), ('rounding', NULL, due_micros - covered_micros)
  ) AS side (account, owner, micros) WHERE status = 'paid'
)
INSERT INTO figures
SELECT 'account balances', false, ARRAY[account, advertiser_id::text, currency], sum(micros) FROM moved GROUP BY 3
UNION ALL SELECT 'account balances', true, ARRAY[account, advertiser_id::text, currency], sum(micros) FROM posted GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', false, ARRAY[account, advertiser_id::text, currency], sum(micros) FROM posted
  WHERE account IN ('promotional', 'available', 'receivable') GROUP BY 3
UNION ALL SELECT 'balances kept for leasing', true, ARRAY[kind, advertiser_id::text, currency],
  balance_micros - coalesce(credit_line_micros, 0) FROM accounts WHERE balance_micros IS NOT NULL

-- name: check_invoices
INSERT INTO figures
SELECT 'invoices by lines', false, ARRAY[invoice_id::text, name], sum(micros) FROM invoice_lines, LATERAL (VALUES
    ('gross', gross_micros), ('invalid', invalid_micros), ('credits', credits_micros), ('net', net_micros), ('total', total_micros)
  ) AS part (name, micros) GROUP BY 3
UNION ALL SELECT 'invoices by lines', true, ARRAY[id::text, name], micros FROM invoices, LATERAL (VALUES
    ('gross', gross_micros), ('invalid', invalid_micros), ('credits', credits_micros), ('net', net_micros), ('total', total_micros)
  ) AS part (name, micros)
UNION ALL SELECT 'lines of invoices', side.booked, ARRAY[invoice_id::text, line::text, name], micros
  FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id, LATERAL (VALUES
    (false, 'net', l.gross_micros - l.invalid_micros - l.credits_micros), (true, 'net', l.net_micros),
    (false, 'total', round_micros(l.net_micros, i.exponent)), (true, 'total', l.total_micros)
  ) AS side (booked, name, micros)
UNION ALL SELECT 'invoice numbers', false, ARRAY[split_part(number, '-', 1), split_part(number, '-', 2)], count(*) FROM invoices
  WHERE number IS NOT NULL GROUP BY 3
UNION ALL SELECT 'invoice numbers', true, ARRAY[series, year::text], last FROM invoice_series

-- name: check_credits
INSERT INTO figures
SELECT 'credits on invoices', false, ARRAY[c.invoice_id::text, c.campaign_id::text, (c.charged_at AT TIME ZONE i.time_zone)::date::text], sum(c.micros)
  FROM credits c JOIN invoices i ON i.id = c.invoice_id GROUP BY 3
UNION ALL SELECT 'credits on invoices', true, ARRAY[i.id::text, l.campaign_id::text, l.day::text], sum(l.credits_micros)
  FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id WHERE i.status <> 'void' AND l.credits_micros <> 0 GROUP BY 3
UNION ALL SELECT 'credits on no invoice', true, ARRAY[c.id::text, c.advertiser_id::text, c.currency], c.micros
  FROM credits c JOIN advertisers a ON a.id = c.advertiser_id JOIN transactions t ON t.id = c.transaction_id
  CROSS JOIN LATERAL (SELECT date_trunc('month', c.charged_at AT TIME ZONE a.time_zone)::date AS month) AS own
  WHERE c.invoice_id IS NULL AND EXISTS (
    SELECT FROM standing s WHERE s.advertiser_id = c.advertiser_id AND s.currency = c.currency
      AND (s.month = own.month OR s.counted_from < s.month AND s.month > own.month)
      AND coalesce(pg_visible_in_snapshot(t.xid, s.counted_in), s.counted_in IS NOT NULL)
  ) AND NOT EXISTS (SELECT FROM standing s WHERE s.advertiser_id = c.advertiser_id AND s.currency = c.currency AND s.status = 'void')

-- name: check_charges_on_invoices
-- Retired days are held against their invoices in one sum: the latest of their events was received two days later.
WITH raw AS (
  SELECT coalesce(max(day) + 3, date '-infinity') AS first_day FROM retired
), said AS (
  SELECT s.advertiser_id, s.currency, l.campaign_id, CASE WHEN l.day >= first_day THEN l.day ELSE date '-infinity' END AS day, of.outcome,
         sum(of.events) AS events, sum(of.micros) AS micros, string_agg(DISTINCT s.id::text, '+' ORDER BY s.id::text) AS invoices
  FROM raw, standing s JOIN invoice_lines l ON l.invoice_id = s.id, LATERAL (VALUES
    ('recorded', l.quantity - l.invalid, l.gross_micros - l.invalid_micros), ('invalid_traffic', l.invalid, l.invalid_micros)
  ) AS of (outcome, events, micros) WHERE (of.events, of.micros) <> (0, 0) GROUP BY 1, 2, 3, 4, 5
), owed AS (
  SELECT advertiser_id, currency, campaign_id, CASE WHEN day >= first_day THEN day ELSE date '-infinity' END AS day, outcome,
         sum(events_least) AS events_least, sum(events_most) AS events_most, sum(micros_least) AS micros_least,
         sum(micros_most) AS micros_most
  FROM raw, due GROUP BY 1, 2, 3, 4, 5
)
INSERT INTO figures
SELECT 'charges on invoices', side.booked,
       ARRAY[coalesce(invoices, own.id::text), b.advertiser_id::text, b.campaign_id::text, b.currency,
             nullif(day, '-infinity')::text, outcome, name], amount
FROM (said FULL JOIN owed USING (advertiser_id, currency, campaign_id, day, outcome)) AS b
LEFT JOIN standing own ON own.advertiser_id = b.advertiser_id AND own.currency = b.currency AND own.month = date_trunc('month', b.day)::date
CROSS JOIN LATERAL (VALUES
  (false, 'events', greatest(events_least, least(coalesce(events, 0), coalesce(events_most, 0)))), (true, 'events', coalesce(events, 0)),
  (false, 'micros', greatest(micros_least, least(coalesce(micros, 0), coalesce(micros_most, 0)))), (true, 'micros', coalesce(micros, 0))
) AS side (booked, name, amount)

-- name: check_rollups
INSERT INTO figures
SELECT name, false, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(amount)
FROM billed, LATERAL (VALUES ('roll-up events', events), ('roll-up micros', micros), ('roll-up invalid micros', invalid_micros)) AS of (name, amount) GROUP BY 1, 3
UNION ALL
SELECT name, true, ARRAY[hour::text, advertiser_id::text, campaign_id::text, ad_id::text, currency, kind, outcome], sum(amount)
FROM rollup_parts, LATERAL (VALUES ('roll-up events', events), ('roll-up micros', billed_micros), ('roll-up invalid micros', invalid_micros)) AS of (name, amount) GROUP BY 1, 3

-- name: volume
SELECT currency, sum(events)::bigint AS events, sum(micros)::bigint AS billed_micros FROM billed GROUP BY 1 ORDER BY 1

-- name: compared
SELECT count(*) FROM (SELECT DISTINCT name, key FROM figures) AS each

-- name: differences
SELECT name, key, derived, booked FROM (
  SELECT name, key, coalesce(sum(amount) FILTER (WHERE NOT booked), 0)::bigint AS derived,
         coalesce(sum(amount) FILTER (WHERE booked), 0)::bigint AS booked
  FROM figures GROUP BY name, key
) AS both_sides WHERE derived <> booked ORDER BY name, key

-- name: night_turn
SELECT pg_try_advisory_xact_lock(hashtextextended('adserve.reconciliation', 0))

-- name: save
INSERT INTO reconciliations (started_at, finished_at, first_raw_day, events, billed_micros, compared, differing, differences)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: newest
SELECT started_at, finished_at, first_raw_day, events, billed_micros, compared, differing, differences
FROM reconciliations ORDER BY started_at DESC LIMIT 1
