-- Leases a part of a campaign's budget: at most `p_wanted_micros`, within what the day, the campaign and the
-- advertiser's prepaid balance still allow. No row means that nothing is left.
CREATE OR REPLACE FUNCTION take_lease(
  p_campaign_id bigint, p_budget_day date, p_wanted_micros bigint, p_replica uuid, p_at timestamptz
) RETURNS TABLE (lease_id bigint, granted_micros bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_campaign campaigns;
  v_available bigint;
  v_held bigint;
  v_of_day bigint;
  v_of_all bigint;
  v_room bigint;
  v_transaction bigint;
BEGIN
  SELECT * INTO v_campaign FROM campaigns WHERE id = p_campaign_id FOR NO KEY UPDATE;
  IF NOT FOUND OR p_wanted_micros <= 0 THEN RETURN; END IF;

  INSERT INTO accounts (kind, advertiser_id, currency) VALUES
    ('available', v_campaign.advertiser_id, v_campaign.currency),
    ('held', v_campaign.advertiser_id, v_campaign.currency),
    ('revenue', NULL, v_campaign.currency)
  ON CONFLICT DO NOTHING;
  SELECT id INTO v_available FROM accounts
  WHERE kind = 'available' AND advertiser_id = v_campaign.advertiser_id AND currency = v_campaign.currency
  FOR NO KEY UPDATE;
  SELECT id INTO v_held FROM accounts
  WHERE kind = 'held' AND advertiser_id = v_campaign.advertiser_id AND currency = v_campaign.currency;

  SELECT coalesce(sum(micros) FILTER (WHERE budget_day = p_budget_day), 0), coalesce(sum(micros), 0)
  INTO v_of_day, v_of_all
  FROM (SELECT budget_day, CASE WHEN closed_at IS NULL THEN granted_micros ELSE captured_micros END AS micros
        FROM leases WHERE campaign_id = p_campaign_id) AS leased;
  SELECT coalesce(sum(micros), 0) INTO v_room FROM postings WHERE account_id = v_available;
  v_room := least(p_wanted_micros, v_room, v_campaign.budget_daily_micros - v_of_day,
                  v_campaign.budget_total_micros - v_of_all);
  IF v_room <= 0 THEN RETURN; END IF;

  RETURN QUERY
  INSERT INTO leases (advertiser_id, campaign_id, currency, budget_day, granted_micros, replica, opened_at)
  VALUES (v_campaign.advertiser_id, p_campaign_id, v_campaign.currency, p_budget_day, v_room, p_replica, p_at)
  RETURNING id, leases.granted_micros;

  INSERT INTO transactions (kind, reference, at) VALUES ('hold', 'lease', p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
  SELECT v_transaction, account, p_campaign_id, currval(pg_get_serial_sequence('leases', 'id')), micros, v_campaign.currency
  FROM (VALUES (v_available, -v_room), (v_held, v_room)) AS moves (account, micros);
END $$;
REVOKE ALL ON FUNCTION take_lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_lease TO adserve_recorder;

-- Gives back what a lease did not capture, once no ticket can draw on it any more. Closing again does nothing.
CREATE OR REPLACE FUNCTION close_lease(p_lease_id bigint, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_lease leases;
  v_rest bigint;
  v_transaction bigint;
BEGIN
  SELECT * INTO v_lease FROM leases WHERE id = p_lease_id AND closed_at IS NULL FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN 0; END IF;
  UPDATE leases SET frozen_at = coalesce(frozen_at, p_at), closed_at = p_at WHERE id = p_lease_id;
  v_rest := v_lease.granted_micros - v_lease.captured_micros;
  IF v_rest > 0 THEN
    INSERT INTO transactions (kind, reference, at) VALUES ('return', 'lease', p_at) RETURNING id INTO v_transaction;
    INSERT INTO postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
    SELECT v_transaction, a.id, v_lease.campaign_id, v_lease.id, CASE a.kind WHEN 'held' THEN -v_rest ELSE v_rest END, a.currency
    FROM accounts a
    WHERE a.advertiser_id = v_lease.advertiser_id AND a.currency = v_lease.currency AND a.kind IN ('held', 'available');
  END IF;
  RETURN v_rest;
END $$;
REVOKE ALL ON FUNCTION close_lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION close_lease TO adserve_recorder;

-- Stops drawing on leases: a replica's own, or those of a replica that is lost. They still capture.
CREATE OR REPLACE FUNCTION freeze_leases(p_lease_ids bigint[], p_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  UPDATE leases SET frozen_at = p_at WHERE id = ANY (p_lease_ids) AND frozen_at IS NULL;
$$;
REVOKE ALL ON FUNCTION freeze_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION freeze_leases TO adserve_recorder;
