-- Leases parts of campaigns' budgets, at most one a campaign: each at most `p_wanted_micros`, at least `p_least_micros`,
-- within what the day, the campaign, the advertiser's funds and the pace still allow. Funds are what is left of promotions,
-- the prepaid balance and the credit line, taken in this order. `p_allowed_micros` bounds, where it is given, what is
-- expected to be charged of the day: its leases without what their processes expect to be left of them, of which
-- `p_unspent_micros` is told by the caller.
-- Answers a row for each campaign that exists, in any order: a grant of 0 has no lease, and `paced` says whether the pace
-- alone was why; `expected_micros` is what was expected to be charged of the day before the grant.
--
-- Rows are locked in one order by all callers: campaigns, accounts that are new, uses, accounts, each by its key.
CREATE OR REPLACE FUNCTION take_leases(
  p_campaign_id bigint[], p_budget_day date[], p_wanted_micros bigint[], p_least_micros bigint[],
  p_allowed_micros bigint[], p_unspent_micros bigint[], p_replica uuid, p_tickets_until timestamptz, p_at timestamptz
) RETURNS TABLE (campaign_id bigint, lease_id bigint, granted_micros bigint, expected_micros bigint, paced boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_transaction bigint;
  v_rooms lease_rooms[];
BEGIN
  PERFORM FROM campaigns WHERE id = ANY (p_campaign_id) ORDER BY id FOR NO KEY UPDATE;
  PERFORM open_accounts(advertiser_id, currency) FROM (
    SELECT DISTINCT advertiser_id, currency FROM campaigns c WHERE id = ANY (p_campaign_id)
      AND NOT EXISTS (SELECT FROM accounts a WHERE a.kind = 'receivable' AND a.advertiser_id = c.advertiser_id
                      AND a.currency = c.currency)
    ORDER BY currency, advertiser_id) AS missing;  -- by currency first, as our own accounts in it belong to no advertiser
  INSERT INTO budget_uses (campaign_id, advertiser_id, budget_day, leased_micros, allowed_micros)
  SELECT c.id, c.advertiser_id, used.day, 0, used.micros
  FROM unnest(p_campaign_id, p_budget_day) AS g (campaign_id, budget_day) JOIN campaigns c ON c.id = g.campaign_id,
  LATERAL (VALUES (g.budget_day, c.budget_daily_micros), (NULL, c.budget_total_micros)) AS used (day, micros)
  ORDER BY c.id, used.day
  ON CONFLICT DO NOTHING;
  PERFORM FROM budget_uses u JOIN unnest(p_campaign_id, p_budget_day) AS g (campaign_id, budget_day)
    ON u.campaign_id = g.campaign_id AND (u.budget_day = g.budget_day OR u.budget_day IS NULL)
  ORDER BY u.campaign_id, u.budget_day FOR NO KEY UPDATE OF u;
  PERFORM FROM accounts a WHERE kind IN ('promotional', 'available', 'receivable') AND EXISTS (
    SELECT FROM campaigns c WHERE c.id = ANY (p_campaign_id) AND c.advertiser_id = a.advertiser_id AND c.currency = a.currency)
  ORDER BY id FOR NO KEY UPDATE;
  INSERT INTO lease_forecasts AS f
  SELECT * FROM unnest(p_campaign_id, p_budget_day, array_fill(p_replica, ARRAY[cardinality(p_campaign_id)]),
                       p_unspent_micros, array_fill(p_at, ARRAY[cardinality(p_campaign_id)])) AS g (campaign_id, day, replica, micros, at)
  WHERE micros IS NOT NULL ORDER BY campaign_id
  ON CONFLICT (campaign_id, budget_day, replica) DO UPDATE SET unspent_micros = excluded.unspent_micros, at = excluded.at;

  -- A statement of its own, so that it sees what was committed while the locks were waited for.
  WITH asked AS (
    SELECT c.id AS campaign_id, c.advertiser_id, c.currency, g.budget_day, g.least_micros, g.allowed_micros,
           c.budget_daily_micros, c.budget_total_micros, a.id AS account_id,
           f.balance_micros AS promotional_micros, a.balance_micros AS prepaid_micros,
           f.balance_micros + a.balance_micros + r.balance_micros AS funds_micros,
           least(g.wanted_micros, c.budget_daily_micros - day.leased_micros, c.budget_total_micros - whole.leased_micros,
                 f.balance_micros + a.balance_micros + r.balance_micros) AS room_micros,
           CASE WHEN g.allowed_micros IS NOT NULL THEN day.leased_micros - coalesce((
             SELECT sum(f.unspent_micros) FROM lease_forecasts f
             WHERE f.campaign_id = c.id AND f.budget_day = g.budget_day AND f.at > p_at - interval '5 minutes'), 0)::bigint
           END AS expected_micros
    FROM unnest(p_campaign_id, p_budget_day, p_wanted_micros, p_least_micros, p_allowed_micros)
      AS g (campaign_id, budget_day, wanted_micros, least_micros, allowed_micros)
    JOIN campaigns c ON c.id = g.campaign_id
    JOIN budget_uses day ON day.campaign_id = c.id AND day.budget_day = g.budget_day
    JOIN budget_uses whole ON whole.campaign_id = c.id AND whole.budget_day IS NULL
    JOIN accounts f ON f.kind = 'promotional' AND f.advertiser_id = c.advertiser_id AND f.currency = c.currency
    JOIN accounts a ON a.kind = 'available' AND a.advertiser_id = c.advertiser_id AND a.currency = c.currency
    JOIN accounts r ON r.kind = 'receivable' AND r.advertiser_id = c.advertiser_id AND r.currency = c.currency
  ), fitting AS (
    SELECT *, least(room_micros, allowed_micros - expected_micros) AS paced_micros FROM asked
  ), shared AS (
    -- One after the other they draw on their advertiser's funds; one that would not fit takes part in the sum all the same.
    SELECT *, least(paced_micros, funds_micros - coalesce(sum(greatest(paced_micros, 0)) FILTER (WHERE paced_micros >= least_micros)
      OVER (PARTITION BY account_id ORDER BY campaign_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)) AS micros
    FROM fitting
  ), granted AS (
    SELECT *, CASE WHEN micros >= least_micros THEN micros ELSE 0 END AS granted_micros FROM shared
  ), stacked AS (
    SELECT *, sum(granted_micros) OVER (PARTITION BY account_id ORDER BY campaign_id)::bigint AS up_to_micros FROM granted
  )
  SELECT array_agg(ROW(campaign_id, advertiser_id, currency, budget_day, budget_daily_micros, budget_total_micros, account_id,
                       granted_micros, expected_micros, room_micros >= least_micros AND paced_micros < least_micros,
                       least(up_to_micros, promotional_micros) - least(up_to_micros - granted_micros, promotional_micros),
                       greatest(up_to_micros - promotional_micros - prepaid_micros, 0)
                         - greatest(up_to_micros - granted_micros - promotional_micros - prepaid_micros, 0))::lease_rooms)
  INTO v_rooms FROM stacked;

  IF EXISTS (SELECT FROM unnest(v_rooms) WHERE micros > 0) THEN
    INSERT INTO transactions (kind, reference, at) VALUES ('hold', 'lease', p_at) RETURNING id INTO v_transaction;
  END IF;
  RETURN QUERY
  WITH granted AS (
    INSERT INTO leases (advertiser_id, campaign_id, currency, budget_day, granted_micros, promotional_micros, credit_micros,
                        replica, opened_at, tickets_until)
    SELECT advertiser_id, campaign_id, currency, budget_day, micros, promotional_micros, credit_micros,
           p_replica, p_at, p_tickets_until
    FROM unnest(v_rooms) WHERE micros > 0 ORDER BY campaign_id
    RETURNING id, campaign_id
  ), used AS (
    -- greatest() would pass over a null, which here means no limit.
    UPDATE budget_uses u SET leased_micros = u.leased_micros + r.micros,
      allowed_micros = CASE WHEN budget.micros IS NOT NULL AND u.allowed_micros IS NOT NULL
                            THEN greatest(u.allowed_micros, budget.micros) END
    FROM unnest(v_rooms) AS r,
    LATERAL (VALUES (r.budget_day, r.budget_daily_micros), (NULL, r.budget_total_micros)) AS budget (day, micros)
    WHERE r.micros > 0 AND u.campaign_id = r.campaign_id AND u.budget_day IS NOT DISTINCT FROM budget.day
  ), paid AS (
    UPDATE accounts a SET balance_micros = a.balance_micros - taken.micros
    FROM (SELECT r.advertiser_id, r.currency, source.kind, sum(source.micros)::bigint AS micros
          FROM unnest(v_rooms) AS r, LATERAL (VALUES
            ('promotional', r.promotional_micros), ('available', r.micros - r.promotional_micros - r.credit_micros),
            ('receivable', r.credit_micros)) AS source (kind, micros)
          WHERE source.micros > 0 GROUP BY 1, 2, 3) AS taken
    WHERE a.kind = taken.kind AND a.advertiser_id = taken.advertiser_id AND a.currency = taken.currency
  ), told AS (
    UPDATE lease_forecasts f SET unspent_micros = f.unspent_micros + r.micros FROM unnest(v_rooms) AS r
    WHERE f.campaign_id = r.campaign_id AND f.budget_day = r.budget_day AND f.replica = p_replica
  ), posted AS (
    INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
    SELECT v_transaction, a.id, r.campaign_id, g.id, side.micros, r.currency
    FROM unnest(v_rooms) AS r JOIN granted g USING (campaign_id)
    CROSS JOIN LATERAL (VALUES
      ('held', r.micros), ('promotional', -r.promotional_micros), ('receivable', -r.credit_micros),
      ('available', r.promotional_micros + r.credit_micros - r.micros)) AS side (kind, micros)
    JOIN accounts a ON a.kind = side.kind AND a.advertiser_id = r.advertiser_id AND a.currency = r.currency
    WHERE side.micros <> 0
  )
  SELECT r.campaign_id, g.id, r.micros, r.expected_micros, r.paced
  FROM unnest(v_rooms) AS r LEFT JOIN granted g USING (campaign_id);
END $$;
REVOKE ALL ON FUNCTION take_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_leases TO adserve_recorder;

-- Notes what a process expects to be left of its leases on campaigns' days. Answers what is expected to be charged of each
-- day by all, and what is leased of the campaign in all.
CREATE OR REPLACE FUNCTION forecast_leases(
  p_campaign_id bigint[], p_budget_day date[], p_unspent_micros bigint[], p_replica uuid, p_at timestamptz
) RETURNS TABLE (campaign_id bigint, expected_micros bigint, leased_micros bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  INSERT INTO lease_forecasts (campaign_id, budget_day, replica, unspent_micros, at)
  SELECT campaign_id, budget_day, p_replica, unspent_micros, p_at
  FROM unnest(p_campaign_id, p_budget_day, p_unspent_micros) AS g (campaign_id, budget_day, unspent_micros)
  ORDER BY campaign_id
  ON CONFLICT (campaign_id, budget_day, replica) DO UPDATE SET unspent_micros = excluded.unspent_micros, at = excluded.at;

  SELECT g.campaign_id, coalesce(day.leased_micros, 0) - coalesce((
           SELECT sum(f.unspent_micros) FROM lease_forecasts f WHERE f.campaign_id = g.campaign_id
             AND f.budget_day = g.budget_day AND f.at > p_at - interval '5 minutes'), 0)::bigint,
         coalesce(whole.leased_micros, 0)
  FROM unnest(p_campaign_id, p_budget_day) AS g (campaign_id, budget_day)
  LEFT JOIN budget_uses day ON day.campaign_id = g.campaign_id AND day.budget_day = g.budget_day
  LEFT JOIN budget_uses whole ON whole.campaign_id = g.campaign_id AND whole.budget_day IS NULL;
$$;
REVOKE ALL ON FUNCTION forecast_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forecast_leases TO adserve_recorder;

-- Says of leases until when their tickets last.
CREATE OR REPLACE FUNCTION extend_leases(p_lease_ids bigint[], p_tickets_until timestamptz[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT FROM leases WHERE id = ANY (p_lease_ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE leases SET tickets_until = given.until FROM unnest(p_lease_ids, p_tickets_until) AS given (id, until)
  WHERE leases.id = given.id;
$$;
REVOKE ALL ON FUNCTION extend_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION extend_leases TO adserve_recorder;

-- Ends the drawing on leases; each still captures until its `p_closes_at`, which may be brought forward, not put off.
-- Locked in id order, like settlement locks them.
CREATE OR REPLACE FUNCTION freeze_leases(p_lease_ids bigint[], p_closes_at timestamptz[], p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT FROM leases WHERE id = ANY (p_lease_ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE leases SET frozen_at = coalesce(frozen_at, p_at), closes_at = given.closes_at
  FROM unnest(p_lease_ids, p_closes_at) AS given (id, closes_at)
  WHERE leases.id = given.id AND closed_at IS NULL AND (frozen_at IS NULL OR leases.closes_at > given.closes_at);
$$;
REVOKE ALL ON FUNCTION freeze_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freeze_leases TO adserve_recorder;

-- Freezes the leases of replicas that have not been heard of since `p_heard_since`, until their tickets are over, or
-- `p_closes_at` where that is not known. Answers how many.
CREATE OR REPLACE FUNCTION freeze_lost_leases(
  p_replica uuid, p_heard_since timestamptz, p_closes_at timestamptz, p_at timestamptz
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  WITH lost AS (
    SELECT id FROM leases
    WHERE frozen_at IS NULL AND replica <> p_replica AND opened_at < p_heard_since
      AND replica NOT IN (SELECT id FROM replicas WHERE heartbeat_at >= p_heard_since)
    ORDER BY id FOR NO KEY UPDATE
  ), frozen AS (
    UPDATE leases SET frozen_at = p_at, closes_at = greatest(p_at, coalesce(tickets_until, p_closes_at))
    FROM lost WHERE leases.id = lost.id
    RETURNING leases.id)
  SELECT count(*) FROM frozen;
$$;
REVOKE ALL ON FUNCTION freeze_lost_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freeze_lost_leases TO adserve_recorder;

-- Gives back what the leases that are due, at most `p_most` of them, did not capture. Answers how many it closed.
-- Leases, then uses in key order, then accounts are locked: in the order of `take_leases`, and one closer at a time.
CREATE OR REPLACE FUNCTION close_leases(p_at timestamptz, p_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_leases bigint[];
  v_returns lease_returns[];
  v_transaction bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('adserve.close_leases', 0)) THEN RETURN 0; END IF;
  SELECT array_agg(id) INTO v_leases FROM (
    SELECT id FROM leases WHERE closed_at IS NULL AND closes_at <= p_at
      AND NOT EXISTS (SELECT FROM pending_events p WHERE p.lease_id = leases.id)  -- these are still to be charged to it
      -- And so may be what waits in spools; one that is not heard of for a day is given up, a day after the lease is due.
      AND NOT EXISTS (SELECT FROM spools s WHERE s.settled_until < leases.closes_at
                      AND greatest(leases.closes_at, s.heard_at) >= p_at - interval '1 day')
    ORDER BY id LIMIT p_most FOR NO KEY UPDATE
  ) AS due;
  IF v_leases IS NULL THEN RETURN 0; END IF;

  UPDATE leases SET closed_at = p_at WHERE id = ANY (v_leases);
  PERFORM FROM budget_uses u
  WHERE EXISTS (SELECT FROM leases l WHERE l.id = ANY (v_leases) AND l.campaign_id = u.campaign_id
                AND (u.budget_day = l.budget_day OR u.budget_day IS NULL))
  ORDER BY campaign_id, budget_day FOR NO KEY UPDATE;
  WITH rest AS (
    SELECT campaign_id, budget_day, granted_micros - captured_micros AS micros FROM leases WHERE id = ANY (v_leases)
  ), given_back AS (
    SELECT campaign_id, budget_day, sum(micros) AS micros FROM rest GROUP BY 1, 2
    UNION ALL
    SELECT campaign_id, NULL, sum(micros) FROM rest GROUP BY 1
  )
  UPDATE budget_uses u SET leased_micros = leased_micros - g.micros
  FROM given_back g WHERE u.campaign_id = g.campaign_id AND u.budget_day IS NOT DISTINCT FROM g.budget_day;
  PERFORM FROM accounts a WHERE kind IN ('promotional', 'available', 'receivable') AND EXISTS (
    SELECT FROM leases l WHERE l.id = ANY (v_leases) AND l.advertiser_id = a.advertiser_id AND l.currency = a.currency)
  ORDER BY id FOR NO KEY UPDATE;

  -- A promotion was spent first and credit last, so it is credit that goes back first.
  SELECT array_agg(ROW(l.advertiser_id, l.campaign_id, l.currency, l.id, back.kind, back.micros)::lease_returns) INTO v_returns
  FROM leases l,
  LATERAL (SELECT l.granted_micros - l.captured_micros AS rest) AS r,
  LATERAL (VALUES
    ('receivable', least(r.rest, l.credit_micros)),
    ('available', greatest(least(r.rest, l.granted_micros - l.promotional_micros) - l.credit_micros, 0)),
    ('promotional', greatest(r.rest - l.granted_micros + l.promotional_micros, 0)),
    ('held', -r.rest)) AS back (kind, micros)
  WHERE l.id = ANY (v_leases) AND back.micros <> 0;
  UPDATE accounts a SET balance_micros = balance_micros + given.micros
  FROM (SELECT advertiser_id, currency, kind, sum(micros)::bigint AS micros FROM unnest(v_returns) WHERE kind <> 'held' GROUP BY 1, 2, 3) AS given
  WHERE a.kind = given.kind AND a.advertiser_id = given.advertiser_id AND a.currency = given.currency;

  IF v_returns IS NOT NULL THEN
    INSERT INTO transactions (kind, reference, at) VALUES ('return', 'lease', p_at) RETURNING id INTO v_transaction;
    INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
    SELECT v_transaction, a.id, r.campaign_id, r.lease_id, r.micros, r.currency
    FROM unnest(v_returns) AS r JOIN accounts a ON a.kind = r.kind AND a.advertiser_id = r.advertiser_id AND a.currency = r.currency;
  END IF;
  RETURN cardinality(v_leases);
END $$;
REVOKE ALL ON FUNCTION close_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION close_leases TO adserve_recorder;
