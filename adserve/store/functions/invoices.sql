-- Decimal places of a currency (ISO 4217); all that are not named have two.
CREATE OR REPLACE FUNCTION currency_exponent(p_currency text) RETURNS smallint LANGUAGE sql IMMUTABLE RETURN CASE
  WHEN p_currency IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV',
                      'XAF', 'XOF', 'XPF') THEN 0
  WHEN p_currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') THEN 3
  WHEN p_currency IN ('CLF', 'UYW') THEN 4
  ELSE 2 END::smallint;

-- Micros to the nearest that can be paid in the currency; halves away from zero.
CREATE OR REPLACE FUNCTION round_micros(p_micros numeric, p_exponent smallint) RETURNS bigint
LANGUAGE sql IMMUTABLE RETURN (round(p_micros / power(10::numeric, 6 - p_exponent)) * power(10::numeric, 6 - p_exponent))::bigint;

-- Which drafts there are to make at a moment: those of the last month that is over for so long that no event of it is to
-- come, in each time zone of an advertiser's, and those asked for again.
CREATE OR REPLACE FUNCTION due_invoice_runs(p_at timestamptz, p_settled_after interval)
RETURNS TABLE (time_zone text, month date)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT r.time_zone, r.month FROM invoice_runs r WHERE r.made_at IS NULL
  UNION
  SELECT z.time_zone, ended.month
  FROM (SELECT DISTINCT time_zone FROM advertisers) AS z,
  LATERAL (SELECT (date_trunc('month', (p_at - p_settled_after) AT TIME ZONE z.time_zone) - interval '1 month')::date AS month) AS ended
  WHERE NOT EXISTS (SELECT FROM invoice_runs r WHERE r.time_zone = z.time_zone AND r.month = ended.month)
  ORDER BY 2, 1;
$$;
REVOKE ALL ON FUNCTION due_invoice_runs FROM PUBLIC;
GRANT EXECUTE ON FUNCTION due_invoice_runs TO adserve_operator;

-- What was charged in the months up to `p_month`, on the days of a time zone, and is on no invoice yet; and credits likewise.
-- `target` is the month whose invoice it goes on: its own, or `p_month` where its own has one, which it corrects then.
CREATE OR REPLACE FUNCTION uninvoiced(p_time_zone text, p_month date) RETURNS SETOF invoice_figures
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  WITH span AS (
    -- No time zone is a day away from UTC. A date has no one moment when it begins: clocks may go back over midnight.
    SELECT first, (first - 1)::timestamp AT TIME ZONE 'UTC' AS from_at, (next + 1)::timestamp AT TIME ZONE 'UTC' AS to_at, next
    FROM (SELECT (p_month - interval '2 months')::date AS first, (p_month + interval '1 month')::date AS next) AS months
  ), charged AS (
    SELECT e.advertiser_id, e.currency, e.campaign_id, (e.received_at AT TIME ZONE p_time_zone)::date AS day,
           count(*) AS quantity, count(*) FILTER (WHERE e.outcome = 'invalid_traffic') AS invalid,
           sum(e.price_micros) AS gross_micros,
           coalesce(sum(e.price_micros) FILTER (WHERE e.outcome = 'invalid_traffic'), 0) AS invalid_micros, 0 AS credits_micros,
           NULL::bigint[] AS credits
    FROM span, events e JOIN advertisers a ON a.id = e.advertiser_id AND a.time_zone = p_time_zone
    WHERE e.issued_day BETWEEN (SELECT first - 3 FROM span) AND (SELECT next + 1 FROM span)
      AND e.received_at >= span.from_at AND e.received_at < span.to_at
      AND (e.received_at AT TIME ZONE p_time_zone)::date BETWEEN span.first AND span.next - 1
      AND e.kind = e.billable AND e.outcome IN ('recorded', 'invalid_traffic')
    GROUP BY 1, 2, 3, 4
  ), credited AS (
    SELECT c.advertiser_id, c.currency, c.campaign_id, (c.charged_at AT TIME ZONE p_time_zone)::date AS day,
           0, 0, 0, 0, sum(c.micros), array_agg(c.id)
    FROM span, credits c JOIN advertisers a ON a.id = c.advertiser_id AND a.time_zone = p_time_zone
    WHERE c.invoice_id IS NULL AND (c.charged_at AT TIME ZONE p_time_zone)::date < span.next
    GROUP BY 1, 2, 3, 4
  ), invoiced AS (
    SELECT i.advertiser_id, i.currency, l.campaign_id, l.day, -l.quantity, -l.invalid, -l.gross_micros, -l.invalid_micros, 0, NULL::bigint[]
    FROM span, invoices i JOIN invoice_lines l ON l.invoice_id = i.id
    WHERE i.status <> 'void' AND i.time_zone = p_time_zone AND l.day >= span.first AND l.day < span.next
  ), left_over AS (
    SELECT advertiser_id, currency, campaign_id, day, sum(quantity) AS quantity, sum(invalid) AS invalid,
           sum(gross_micros) AS gross_micros, sum(invalid_micros) AS invalid_micros, sum(credits_micros) AS credits_micros,
           max(credits) AS credits
    FROM (SELECT * FROM charged UNION ALL SELECT * FROM credited UNION ALL SELECT * FROM invoiced) AS parts
    GROUP BY 1, 2, 3, 4
  )
  -- Events are never taken back: where fewer are left than were invoiced, their partition has been retired since.
  SELECT o.advertiser_id, o.currency, CASE WHEN own.id IS NULL AND own_month >= span.first THEN own_month ELSE p_month END,
         o.campaign_id, o.day, own.id, greatest(quantity, 0)::bigint, greatest(invalid, 0)::bigint,
         greatest(o.gross_micros, 0)::bigint, greatest(o.invalid_micros, 0)::bigint, o.credits_micros::bigint, o.credits
  FROM span, left_over o
  CROSS JOIN LATERAL (SELECT date_trunc('month', o.day)::date AS own_month) AS m
  LEFT JOIN invoices own ON own.advertiser_id = o.advertiser_id AND own.currency = o.currency AND own.month = m.own_month
    AND own.status <> 'void'
  WHERE quantity > 0 OR o.credits_micros > 0
$$;
REVOKE ALL ON FUNCTION uninvoiced FROM PUBLIC;

-- Makes the drafts of a month for the advertisers of a time zone, and answers how many. An advertiser that has an invoice of
-- the month gets no second one; what is new since then waits for the next.
CREATE OR REPLACE FUNCTION draft_invoices(p_time_zone text, p_month date, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_figures invoice_figures[];
  v_counted_in pg_snapshot;
  v_made bigint[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.invoices', 0));
  IF EXISTS (SELECT FROM invoice_runs WHERE time_zone = p_time_zone AND month = p_month AND made_at IS NOT NULL) THEN
    RETURN 0;  -- by another process, while the lock was waited for
  END IF;
  SELECT array_agg(f), pg_current_snapshot() INTO v_figures, v_counted_in FROM uninvoiced(p_time_zone, p_month) AS f
  WHERE NOT EXISTS (SELECT FROM invoices i WHERE i.advertiser_id = f.advertiser_id AND i.currency = f.currency
                    AND i.month = f.target AND i.status <> 'void');
  -- Whose days have become others since they were counted is left for the next time.
  PERFORM FROM advertisers WHERE time_zone = p_time_zone AND id IN (SELECT advertiser_id FROM unnest(v_figures)) ORDER BY id FOR SHARE;

  WITH made AS (
    INSERT INTO invoices (advertiser_id, currency, month, time_zone, exponent, buyer, gross_micros, invalid_micros,
                          credits_micros, net_micros, total_micros, drafted_at, counted_from, counted_in)
    SELECT f.advertiser_id, f.currency, f.target, p_time_zone, currency_exponent(f.currency), a.name, sum(f.gross_micros),
           sum(f.invalid_micros), sum(f.credits_micros), sum(f.gross_micros - f.invalid_micros - f.credits_micros),
           sum(round_micros(f.gross_micros - f.invalid_micros - f.credits_micros, currency_exponent(f.currency))), p_at,
           CASE f.target WHEN p_month THEN (p_month - interval '2 months')::date ELSE f.target END, v_counted_in
    FROM unnest(v_figures) AS f JOIN advertisers a ON a.id = f.advertiser_id AND a.time_zone = p_time_zone
    GROUP BY f.advertiser_id, f.currency, f.target, a.name ORDER BY f.target, f.advertiser_id, f.currency
    RETURNING id
  )
  SELECT array_agg(id) INTO v_made FROM made;
  INSERT INTO invoice_lines (invoice_id, line, campaign_id, campaign, day, unit, corrects, quantity, invalid, gross_micros,
                             invalid_micros, credits_micros, net_micros, total_micros)
  SELECT i.id, row_number() OVER (PARTITION BY i.id ORDER BY f.day, f.campaign_id), f.campaign_id, c.name, f.day, c.billable,
         f.corrects, f.quantity, f.invalid, f.gross_micros, f.invalid_micros, f.credits_micros,
         f.gross_micros - f.invalid_micros - f.credits_micros,
         round_micros(f.gross_micros - f.invalid_micros - f.credits_micros, i.exponent)
  FROM unnest(v_figures) AS f JOIN campaigns c ON c.id = f.campaign_id
  JOIN invoices i ON i.id = ANY (v_made) AND i.advertiser_id = f.advertiser_id AND i.currency = f.currency AND i.month = f.target;
  -- Those that were counted, not those that have come since.
  UPDATE credits SET invoice_id = i.id
  FROM unnest(v_figures) AS f
  JOIN invoices i ON i.id = ANY (v_made) AND i.advertiser_id = f.advertiser_id AND i.currency = f.currency AND i.month = f.target
  WHERE credits.id = ANY (f.credits);
  INSERT INTO invoice_runs (time_zone, month, made_at, counted_in) VALUES (p_time_zone, p_month, p_at, v_counted_in)
  ON CONFLICT (time_zone, month) DO UPDATE SET made_at = excluded.made_at, counted_in = excluded.counted_in;
  RETURN coalesce(cardinality(v_made), 0);
END $$;
REVOKE ALL ON FUNCTION draft_invoices FROM PUBLIC;
GRANT EXECUTE ON FUNCTION draft_invoices TO adserve_operator;

-- What of the credit line was spent up to a day and is on no invoice that is to be paid.
CREATE OR REPLACE FUNCTION uninvoiced_debt(p_advertiser_id bigint, p_currency text, p_last_day date) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT (
    (SELECT credit_line_micros - balance_micros FROM accounts
     WHERE kind = 'receivable' AND advertiser_id = p_advertiser_id AND currency = p_currency)
    -- What leases of later days hold or have spent of it, and what those of these days hold unspent.
    - coalesce((SELECT sum(CASE WHEN budget_day > p_last_day AND closed_at IS NULL THEN credit_micros
                                WHEN budget_day > p_last_day THEN spent WHEN closed_at IS NULL THEN credit_micros - spent ELSE 0 END)
                FROM leases, LATERAL (SELECT greatest(captured_micros - granted_micros + credit_micros, 0) AS spent) AS s
                WHERE credit_micros > 0 AND advertiser_id = p_advertiser_id AND currency = p_currency), 0)
    - coalesce((SELECT sum(covered_micros) FROM invoices
                WHERE status = 'issued' AND advertiser_id = p_advertiser_id AND currency = p_currency), 0))::bigint;
$$;
REVOKE ALL ON FUNCTION uninvoiced_debt FROM PUBLIC;

-- Moves what an invoice's lines were rounded by between revenue and its own account.
CREATE OR REPLACE FUNCTION post_rounding(p_cause text, p_invoice invoices, p_micros bigint, p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  WITH entry AS (
    INSERT INTO transactions (kind, reference, at) SELECT p_cause, p_invoice.number, p_at WHERE p_micros <> 0 RETURNING id
  )
  INSERT INTO postings (transaction_id, account_id, micros, currency)
  SELECT entry.id, a.id, CASE a.kind WHEN 'revenue' THEN p_micros ELSE -p_micros END, a.currency
  FROM entry, accounts a WHERE a.kind IN ('revenue', 'rounding') AND a.currency = p_invoice.currency;
$$;
REVOKE ALL ON FUNCTION post_rounding FROM PUBLIC;

-- Gives a draft the next number of its series and year. Answers the status that the invoice had: null where there is none,
-- and nothing changes where it was no draft.
CREATE OR REPLACE FUNCTION issue_invoice(p_id bigint, p_seller jsonb, p_series text, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_invoice invoices;
  v_status text;
  v_last integer;
  v_year integer := extract(year FROM p_at AT TIME ZONE 'UTC');
BEGIN
  SELECT * INTO v_invoice FROM invoices WHERE id = p_id FOR NO KEY UPDATE;
  v_status := v_invoice.status;
  IF v_status IS DISTINCT FROM 'draft' THEN RETURN v_status; END IF;
  PERFORM FROM accounts WHERE kind = 'receivable' AND advertiser_id = v_invoice.advertiser_id AND currency = v_invoice.currency
  FOR NO KEY UPDATE;  -- an invoice of the same advertiser's that is issued at once counts the same debt
  v_invoice.covered_micros := greatest(0, least(v_invoice.net_micros, uninvoiced_debt(
    v_invoice.advertiser_id, v_invoice.currency, (v_invoice.month + interval '1 month')::date - 1)));
  v_invoice.due_micros := greatest(0, CASE v_invoice.covered_micros
    WHEN 0 THEN 0 WHEN v_invoice.net_micros THEN v_invoice.total_micros
    ELSE least(round_micros(v_invoice.covered_micros, v_invoice.exponent), v_invoice.total_micros) END);
  INSERT INTO invoice_series AS s (series, year, last) VALUES (p_series, v_year, 1)
  ON CONFLICT (series, year) DO UPDATE SET last = s.last + 1 RETURNING last INTO v_last;
  v_invoice.number := format('%s-%s-%s', p_series, v_year, lpad(v_last::text, greatest(6, length(v_last::text)), '0'));
  UPDATE invoices SET status = 'issued', number = v_invoice.number, seller = p_seller, issued_at = p_at,
    covered_micros = v_invoice.covered_micros, due_micros = v_invoice.due_micros
  WHERE id = p_id;
  PERFORM post_rounding('invoice', v_invoice, v_invoice.total_micros - v_invoice.net_micros, p_at);
  RETURN v_status;
END $$;
REVOKE ALL ON FUNCTION issue_invoice FROM PUBLIC;
GRANT EXECUTE ON FUNCTION issue_invoice TO adserve_operator;

-- Takes an issued invoice back; its number is not used again, and what it said is drafted anew, from the events: it raises where the
-- books of their days are closed, as they may be gone then. Answers like `issue_invoice`.
CREATE OR REPLACE FUNCTION void_invoice(p_id bigint, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_invoice invoices;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.closing', 0));
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.invoices', 0));
  SELECT * INTO v_invoice FROM invoices WHERE id = p_id FOR NO KEY UPDATE;
  IF v_invoice.status IS DISTINCT FROM 'issued' THEN RETURN v_invoice.status; END IF;
  -- What was charged on a day was issued, in UTC, two days before it at the earliest.
  IF EXISTS (SELECT FROM closed_days WHERE day >= (SELECT min(day) FROM invoice_lines WHERE invoice_id = p_id AND quantity > 0) - 2) THEN
    RAISE EXCEPTION 'The books of its days are closed.' USING ERRCODE = 'restrict_violation';
  END IF;
  UPDATE invoices SET status = 'void', voided_at = p_at WHERE id = p_id;
  PERFORM post_rounding('void', v_invoice, v_invoice.net_micros - v_invoice.total_micros, p_at);
  UPDATE credits SET invoice_id = NULL WHERE invoice_id = p_id;
  INSERT INTO invoice_runs (time_zone, month) VALUES (v_invoice.time_zone, v_invoice.month)
  ON CONFLICT (time_zone, month) DO UPDATE SET made_at = NULL;
  RETURN v_invoice.status;
END $$;
REVOKE ALL ON FUNCTION void_invoice FROM PUBLIC;
GRANT EXECUTE ON FUNCTION void_invoice TO adserve_operator;

-- Books what is due as paid: cash has it, the credit line is free again. Answers like `issue_invoice`.
CREATE OR REPLACE FUNCTION pay_invoice(p_id bigint, p_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_invoice invoices;
  v_transaction bigint;
BEGIN
  SELECT * INTO v_invoice FROM invoices WHERE id = p_id FOR NO KEY UPDATE;
  IF v_invoice.status IS DISTINCT FROM 'issued' THEN RETURN v_invoice.status; END IF;
  UPDATE invoices SET status = 'paid', paid_at = p_at WHERE id = p_id;
  IF v_invoice.covered_micros = 0 THEN RETURN v_invoice.status; END IF;
  UPDATE accounts SET balance_micros = balance_micros + v_invoice.covered_micros
  WHERE kind = 'receivable' AND advertiser_id = v_invoice.advertiser_id AND currency = v_invoice.currency;
  INSERT INTO transactions (kind, reference, at) VALUES ('payment', v_invoice.number, p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, micros, currency)
  SELECT v_transaction, a.id, side.micros, a.currency
  FROM (VALUES ('cash', NULL, -v_invoice.due_micros), ('receivable', v_invoice.advertiser_id, v_invoice.covered_micros),
               ('rounding', NULL, v_invoice.due_micros - v_invoice.covered_micros)) AS side (kind, advertiser_id, micros)
  JOIN accounts a ON a.kind = side.kind AND a.advertiser_id IS NOT DISTINCT FROM side.advertiser_id AND a.currency = v_invoice.currency
  WHERE side.micros <> 0;
  RETURN v_invoice.status;
END $$;
REVOKE ALL ON FUNCTION pay_invoice FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pay_invoice TO adserve_operator;
