-- Makes the accounts that an advertiser's money moves between in a currency, where they are missing.
CREATE OR REPLACE FUNCTION open_accounts(p_advertiser_id bigint, p_currency text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = adserve, pg_temp AS $$
  INSERT INTO accounts (kind, advertiser_id, currency, balance_micros, credit_line_micros) VALUES
    ('cash', NULL, p_currency, NULL, NULL), ('revenue', NULL, p_currency, NULL, NULL),
    ('marketing', NULL, p_currency, NULL, NULL), ('rounding', NULL, p_currency, NULL, NULL),
    ('available', p_advertiser_id, p_currency, 0, NULL), ('held', p_advertiser_id, p_currency, NULL, NULL),
    ('promotional', p_advertiser_id, p_currency, 0, NULL), ('receivable', p_advertiser_id, p_currency, 0, 0)
  ON CONFLICT DO NOTHING;
$$;
REVOKE ALL ON FUNCTION open_accounts FROM PUBLIC;
