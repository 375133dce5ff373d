-- Notes which charged events a version of the rules finds invalid, and credits each of them that was not credited for invalid
-- traffic before, by whatever version. Safe to repeat. Answers how many findings are new, and what was credited.
-- Events are locked in key order, then accounts by id, as `take_leases` and `close_leases` lock them, before any is credited.
CREATE OR REPLACE FUNCTION find_invalid(
  p_rules_version integer, p_issued_day date[], p_ticket_id uuid[], p_kind text[], p_reason text[], p_at timestamptz
) RETURNS TABLE (found bigint, credited bigint, micros bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v_event record;
  v_credit bigint;
  v_found bigint;
  v_credited bigint := 0;
  v_micros bigint := 0;
BEGIN
  INSERT INTO traffic_findings (issued_day, ticket_id, kind, rules_version, reason, at)
  SELECT e.issued_day, e.ticket_id, e.kind, p_rules_version, g.reason, p_at
  FROM unnest(p_issued_day, p_ticket_id, p_kind, p_reason) AS g (issued_day, ticket_id, kind, reason)
  JOIN events e USING (issued_day, ticket_id, kind)
  WHERE e.outcome = 'recorded'
  ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_found = ROW_COUNT;

  PERFORM FROM events e JOIN unnest(p_issued_day, p_ticket_id, p_kind) AS g (issued_day, ticket_id, kind)
    USING (issued_day, ticket_id, kind)
  WHERE e.outcome = 'recorded' ORDER BY issued_day, ticket_id, kind FOR NO KEY UPDATE OF e;
  PERFORM FROM accounts a WHERE a.kind IN ('available', 'receivable') AND EXISTS (
    SELECT FROM events e JOIN unnest(p_issued_day, p_ticket_id, p_kind) AS g (issued_day, ticket_id, kind)
      USING (issued_day, ticket_id, kind)
    WHERE e.outcome = 'recorded' AND e.advertiser_id = a.advertiser_id AND e.currency = a.currency)
  ORDER BY id FOR NO KEY UPDATE;
  FOR v_event IN
    SELECT issued_day, ticket_id, kind FROM unnest(p_issued_day, p_ticket_id, p_kind) AS g (issued_day, ticket_id, kind)
    JOIN events e USING (issued_day, ticket_id, kind)
    WHERE e.outcome = 'recorded' ORDER BY issued_day, ticket_id, kind
  LOOP
    v_credit := issue_credit(v_event.issued_day, v_event.ticket_id, v_event.kind, 'invalid_traffic', NULL, p_rules_version, p_at);
    IF v_credit IS NOT NULL THEN
      v_credited := v_credited + 1;
      v_micros := v_micros + (SELECT c.micros FROM credits c WHERE c.id = v_credit);
    END IF;
  END LOOP;
  RETURN QUERY SELECT v_found, v_credited, v_micros;
END $$;
REVOKE ALL ON FUNCTION find_invalid FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_invalid TO adserve_recorder;
