-- Gives back what an event was charged, or the part `p_micros` of it: revenue pays off what the advertiser owes, and the rest
-- becomes prepaid balance. `p_reason` is a word; the same reason credits an event once. Answers the credit, or null where there
-- is nothing (more) to give back. Raises for an event that was not charged, and for more than is left of its charge.
CREATE OR REPLACE FUNCTION issue_credit(
  p_issued_day date, p_ticket_id uuid, p_kind text, p_reason text, p_micros bigint, p_rules_version integer, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_event events;
  v_left bigint;
  v_micros bigint;
  v_owed bigint;
  v_transaction bigint;
  v_credit bigint;
BEGIN
  -- One credit of an event at a time, so that together they never exceed its charge.
  SELECT * INTO v_event FROM events
  WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind AND outcome = 'recorded' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the % of ticket % was not charged', p_kind, p_ticket_id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  SELECT v_event.billed_micros - coalesce(sum(micros), 0) INTO v_left FROM credits
  WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind;
  v_micros := coalesce(p_micros, v_left);
  IF v_micros = 0 OR EXISTS (SELECT FROM credits WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind
                             AND reason = p_reason) THEN
    RETURN NULL;
  END IF;
  IF v_micros > v_left THEN
    RAISE EXCEPTION 'of the charge of ticket % only % micros are left', p_ticket_id, v_left
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;

  PERFORM FROM accounts WHERE kind IN ('available', 'receivable') AND advertiser_id = v_event.advertiser_id
    AND currency = v_event.currency ORDER BY id FOR NO KEY UPDATE;
  SELECT least(v_micros, greatest(credit_line_micros - balance_micros, 0)) INTO v_owed FROM accounts
  WHERE kind = 'receivable' AND advertiser_id = v_event.advertiser_id AND currency = v_event.currency;
  INSERT INTO transactions (kind, reference, at) VALUES ('credit', p_reason, p_at) RETURNING id INTO v_transaction;
  WITH sides AS (
    SELECT a.id, side.micros, a.balance_micros IS NOT NULL AS kept
    FROM (VALUES ('revenue', NULL, -v_micros), ('receivable', v_event.advertiser_id, v_owed),
                 ('available', v_event.advertiser_id, v_micros - v_owed)) AS side (kind, advertiser_id, micros)
    JOIN accounts a ON a.kind = side.kind AND a.advertiser_id IS NOT DISTINCT FROM side.advertiser_id
      AND a.currency = v_event.currency
    WHERE side.micros <> 0
  ), posted AS (
    INSERT INTO postings (transaction_id, account_id, campaign_id, micros, currency)
    SELECT v_transaction, id, v_event.campaign_id, micros, v_event.currency FROM sides
  )
  UPDATE accounts SET balance_micros = balance_micros + sides.micros FROM sides WHERE accounts.id = sides.id AND sides.kept;

  INSERT INTO credits (issued_day, ticket_id, kind, advertiser_id, campaign_id, currency, micros, owed_micros, reason,
                       rules_version, at, charged_at, transaction_id)
  VALUES (p_issued_day, p_ticket_id, p_kind, v_event.advertiser_id, v_event.campaign_id, v_event.currency, v_micros, v_owed,
          p_reason, p_rules_version, p_at, v_event.received_at, v_transaction)
  RETURNING id INTO v_credit;
  RETURN v_credit;
END $$;
REVOKE ALL ON FUNCTION issue_credit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION issue_credit TO adserve_recorder, adserve_operator;
