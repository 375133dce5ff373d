-- An advertiser's money comes in: cash owes it, the prepaid balance has it. Answers the transaction.
CREATE OR REPLACE FUNCTION deposit(
  p_advertiser_id bigint, p_micros bigint, p_currency text, p_reference text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_cash bigint;
  v_available bigint;
  v_transaction bigint;
BEGIN
  PERFORM open_accounts(p_advertiser_id, p_currency);
  SELECT id INTO v_cash FROM accounts WHERE kind = 'cash' AND advertiser_id IS NULL AND currency = p_currency;
  UPDATE accounts SET balance_micros = balance_micros + p_micros
  WHERE kind = 'available' AND advertiser_id = p_advertiser_id AND currency = p_currency
  RETURNING id INTO v_available;
  INSERT INTO transactions (kind, reference, at) VALUES ('deposit', p_reference, p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, micros, currency)
  VALUES (v_transaction, v_cash, -p_micros, p_currency), (v_transaction, v_available, p_micros, p_currency);
  RETURN v_transaction;
END $$;
REVOKE ALL ON FUNCTION deposit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deposit TO adserve_operator;
