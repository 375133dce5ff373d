-- An advertiser's money comes in: cash owes it, the prepaid balance has it.
CREATE OR REPLACE FUNCTION deposit(
  p_advertiser_id bigint, p_micros bigint, p_currency text, p_reference text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_transaction bigint;
BEGIN
  INSERT INTO accounts (kind, advertiser_id, currency) VALUES
    ('cash', NULL, p_currency), ('available', p_advertiser_id, p_currency) ON CONFLICT DO NOTHING;
  INSERT INTO transactions (kind, reference, at) VALUES ('deposit', p_reference, p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, micros, currency)
  SELECT v_transaction, id, CASE kind WHEN 'cash' THEN -p_micros ELSE p_micros END, p_currency
  FROM accounts
  WHERE currency = p_currency AND (kind = 'cash' OR kind = 'available' AND advertiser_id = p_advertiser_id);
  RETURN v_transaction;
END $$;
REVOKE ALL ON FUNCTION deposit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deposit TO adserve_operator;
