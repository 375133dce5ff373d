"""A broken twin of what issues credits: it knows nothing of those that there are."""

TWICE = """
SET ROLE adserve_owner;
ALTER TABLE credits DROP CONSTRAINT credits_issued_day_ticket_id_kind_reason_key;
CREATE OR REPLACE FUNCTION issue_credit(
  p_issued_day date, p_ticket_id uuid, p_kind text, p_reason text, p_micros bigint, p_rules_version integer, p_at timestamptz
) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  WITH entry AS (INSERT INTO transactions (kind, reference, at) VALUES ('credit', p_reason, p_at) RETURNING id)
  INSERT INTO credits (issued_day, ticket_id, kind, advertiser_id, campaign_id, currency, micros, owed_micros, reason,
                       rules_version, at, charged_at, transaction_id)
  SELECT p_issued_day, p_ticket_id, p_kind, advertiser_id, campaign_id, currency, billed_micros, 0, p_reason,
         p_rules_version, p_at, received_at, entry.id
  FROM events, entry WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind
  RETURNING credits.id
$$;
RESET ROLE;
"""
