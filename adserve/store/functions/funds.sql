-- Moves new money from an account of ours to one of an advertiser's. Answers the transaction.
CREATE OR REPLACE FUNCTION fund(
  p_cause text, p_from text, p_to text, p_advertiser_id bigint, p_micros bigint, p_currency text, p_reference text, p_at timestamptz
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_ours bigint;
  v_theirs bigint;
  v_transaction bigint;
BEGIN
  PERFORM open_accounts(p_advertiser_id, p_currency);
  SELECT id INTO v_ours FROM accounts WHERE kind = p_from AND advertiser_id IS NULL AND currency = p_currency;
  UPDATE accounts SET balance_micros = balance_micros + p_micros
  WHERE kind = p_to AND advertiser_id = p_advertiser_id AND currency = p_currency
  RETURNING id INTO v_theirs;
  INSERT INTO transactions (kind, reference, at) VALUES (p_cause, p_reference, p_at) RETURNING id INTO v_transaction;
  INSERT INTO postings (transaction_id, account_id, micros, currency)
  VALUES (v_transaction, v_ours, -p_micros, p_currency), (v_transaction, v_theirs, p_micros, p_currency);
  RETURN v_transaction;
END $$;
REVOKE ALL ON FUNCTION fund FROM PUBLIC;

-- An advertiser's money comes in: cash owes it, the prepaid balance has it.
CREATE OR REPLACE FUNCTION deposit(
  p_advertiser_id bigint, p_micros bigint, p_currency text, p_reference text, p_at timestamptz
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT fund('deposit', 'cash', 'available', p_advertiser_id, p_micros, p_currency, p_reference, p_at);
$$;
REVOKE ALL ON FUNCTION deposit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION deposit TO adserve_operator;

-- We give an advertiser something to spend before its own money.
CREATE OR REPLACE FUNCTION promote(
  p_advertiser_id bigint, p_micros bigint, p_currency text, p_reference text, p_at timestamptz
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  SELECT fund('promotion', 'marketing', 'promotional', p_advertiser_id, p_micros, p_currency, p_reference, p_at);
$$;
REVOKE ALL ON FUNCTION promote FROM PUBLIC;
GRANT EXECUTE ON FUNCTION promote TO adserve_operator;

-- Sets what an advertiser may owe. Answers null, or what it already owes or has leased where that is more: then nothing changes.
CREATE OR REPLACE FUNCTION set_credit_line(p_advertiser_id bigint, p_micros bigint, p_currency text, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
DECLARE
  v_receivable accounts;
BEGIN
  PERFORM open_accounts(p_advertiser_id, p_currency);
  SELECT * INTO v_receivable FROM accounts
  WHERE kind = 'receivable' AND advertiser_id = p_advertiser_id AND currency = p_currency FOR NO KEY UPDATE;
  IF p_micros < v_receivable.credit_line_micros - v_receivable.balance_micros THEN
    RETURN v_receivable.credit_line_micros - v_receivable.balance_micros;
  END IF;
  UPDATE accounts SET credit_line_micros = p_micros, balance_micros = balance_micros + p_micros - credit_line_micros
  WHERE id = v_receivable.id;
  INSERT INTO transactions (kind, reference, at)
  VALUES ('credit_line', format('%s micros %s for advertiser %s', p_micros, p_currency, p_advertiser_id), p_at);
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION set_credit_line FROM PUBLIC;
GRANT EXECUTE ON FUNCTION set_credit_line TO adserve_operator;
