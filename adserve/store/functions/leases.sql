-- Leases a part of a campaign's budget: at most `p_wanted_micros`, at least `p_least_micros`, within what the day, the
-- campaign and the advertiser's prepaid balance still allow. No row means that there is no room for that.
-- The campaign's row is locked first, so that its leases are taken one after the other.
CREATE OR REPLACE FUNCTION take_lease(
  p_campaign_id bigint, p_budget_day date, p_wanted_micros bigint, p_least_micros bigint, p_replica uuid, p_at timestamptz
) RETURNS TABLE (lease_id bigint, granted_micros bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_campaign campaigns;
  v_available accounts;
  v_held bigint;
  v_of_day bigint;
  v_of_all bigint;
  v_room bigint;
  v_lease bigint;
  v_transaction bigint;
BEGIN
  SELECT * INTO v_campaign FROM campaigns WHERE id = p_campaign_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  PERFORM open_accounts(v_campaign.advertiser_id, v_campaign.currency);

  INSERT INTO budget_uses (campaign_id, advertiser_id, budget_day, leased_micros, allowed_micros) VALUES
    (p_campaign_id, v_campaign.advertiser_id, p_budget_day, 0, v_campaign.budget_daily_micros),
    (p_campaign_id, v_campaign.advertiser_id, NULL, 0, v_campaign.budget_total_micros)
  ON CONFLICT DO NOTHING;
  SELECT coalesce(sum(leased_micros) FILTER (WHERE budget_day IS NOT NULL), 0),
         coalesce(sum(leased_micros) FILTER (WHERE budget_day IS NULL), 0)
  INTO v_of_day, v_of_all
  FROM (SELECT * FROM budget_uses WHERE campaign_id = p_campaign_id AND (budget_day = p_budget_day OR budget_day IS NULL)
        ORDER BY budget_day FOR NO KEY UPDATE) AS used;
  SELECT * INTO v_available FROM accounts
  WHERE kind = 'available' AND advertiser_id = v_campaign.advertiser_id AND currency = v_campaign.currency
  FOR NO KEY UPDATE;
  v_room := least(p_wanted_micros, v_available.balance_micros, v_campaign.budget_daily_micros - v_of_day,
                  v_campaign.budget_total_micros - v_of_all);
  IF v_room < p_least_micros THEN RETURN; END IF;

  INSERT INTO leases (advertiser_id, campaign_id, currency, budget_day, granted_micros, replica, opened_at)
  VALUES (v_campaign.advertiser_id, p_campaign_id, v_campaign.currency, p_budget_day, v_room, p_replica, p_at)
  RETURNING id INTO v_lease;
  -- greatest() would pass over a null, which here means no limit.
  UPDATE budget_uses SET leased_micros = leased_micros + v_room, allowed_micros = CASE WHEN budget.micros IS NOT NULL
    AND allowed_micros IS NOT NULL THEN greatest(allowed_micros, budget.micros) END
  FROM (VALUES (p_budget_day, v_campaign.budget_daily_micros), (NULL, v_campaign.budget_total_micros)) AS budget (day, micros)
  WHERE campaign_id = p_campaign_id AND budget_day IS NOT DISTINCT FROM budget.day;
  UPDATE accounts SET balance_micros = balance_micros - v_room WHERE id = v_available.id;

  SELECT id INTO v_held FROM accounts
  WHERE kind = 'held' AND advertiser_id = v_campaign.advertiser_id AND currency = v_campaign.currency;
  INSERT INTO transactions (kind, reference, at) VALUES ('hold', 'lease', p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency) VALUES
    (v_transaction, v_available.id, p_campaign_id, v_lease, -v_room, v_campaign.currency),
    (v_transaction, v_held, p_campaign_id, v_lease, v_room, v_campaign.currency);
  RETURN QUERY SELECT v_lease, v_room;
END $$;
REVOKE ALL ON FUNCTION take_lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_lease TO adserve_recorder;

-- Ends the drawing on leases; each still captures until its `p_closes_at`. Locked in id order, like settlement locks them.
CREATE OR REPLACE FUNCTION freeze_leases(p_lease_ids bigint[], p_closes_at timestamptz[], p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT FROM leases WHERE id = ANY (p_lease_ids) ORDER BY id FOR NO KEY UPDATE;
  UPDATE leases SET frozen_at = p_at, closes_at = given.closes_at
  FROM unnest(p_lease_ids, p_closes_at) AS given (id, closes_at)
  WHERE leases.id = given.id AND frozen_at IS NULL;
$$;
REVOKE ALL ON FUNCTION freeze_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freeze_leases TO adserve_recorder;

-- Freezes the leases of replicas that have not been heard of since `p_heard_since`. Answers how many.
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
    UPDATE leases SET frozen_at = p_at, closes_at = p_closes_at FROM lost WHERE leases.id = lost.id
    RETURNING leases.id)
  SELECT count(*) FROM frozen;
$$;
REVOKE ALL ON FUNCTION freeze_lost_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freeze_lost_leases TO adserve_recorder;

-- Gives back what the leases that are due, at most `p_most` of them, did not capture. Answers how many it closed.
-- Leases, then uses in key order, then accounts are locked: in the order of `take_lease`, and one closer at a time.
CREATE OR REPLACE FUNCTION close_leases(p_at timestamptz, p_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_leases bigint[];
  v_transaction bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('adserve.close_leases', 0)) THEN RETURN 0; END IF;
  SELECT array_agg(id) INTO v_leases FROM (
    SELECT id FROM leases WHERE closed_at IS NULL AND closes_at <= p_at
      AND NOT EXISTS (SELECT FROM pending_events p WHERE p.lease_id = leases.id)  -- these are still to be charged to it
    ORDER BY id LIMIT p_most FOR NO KEY UPDATE
  ) AS due;
  IF v_leases IS NULL THEN RETURN 0; END IF;

  UPDATE leases SET closed_at = p_at WHERE id = ANY (v_leases);
  PERFORM FROM budget_uses u
  WHERE campaign_id IN (SELECT campaign_id FROM leases WHERE id = ANY (v_leases))
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
  UPDATE accounts a SET balance_micros = balance_micros + r.micros
  FROM (SELECT advertiser_id, currency, sum(granted_micros - captured_micros) AS micros
        FROM leases WHERE id = ANY (v_leases) GROUP BY 1, 2) AS r
  WHERE a.kind = 'available' AND a.advertiser_id = r.advertiser_id AND a.currency = r.currency;

  IF EXISTS (SELECT FROM leases WHERE id = ANY (v_leases) AND granted_micros > captured_micros) THEN
    INSERT INTO transactions (kind, reference, at) VALUES ('return', 'lease', p_at) RETURNING id INTO v_transaction;
    INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
    SELECT v_transaction, a.id, l.campaign_id, l.id,
           (l.granted_micros - l.captured_micros) * CASE a.kind WHEN 'held' THEN -1 ELSE 1 END, l.currency
    FROM leases l JOIN accounts a
      ON a.kind IN ('held', 'available') AND a.advertiser_id = l.advertiser_id AND a.currency = l.currency
    WHERE l.id = ANY (v_leases) AND l.granted_micros > l.captured_micros;
  END IF;
  RETURN cardinality(v_leases);
END $$;
REVOKE ALL ON FUNCTION close_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION close_leases TO adserve_recorder;
