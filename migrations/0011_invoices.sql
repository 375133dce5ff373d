-- Money that is lent and given, credits, and invoices.

-- `cash`, `revenue`, `marketing` (what promotions cost us) and `rounding` are ours, one a currency; the others are an
-- advertiser's. A lease is funded from `promotional`, then `available`, then `receivable`, whose balance falls below zero as
-- far as the credit line goes. What each of these three still has to lease is kept in `balance_micros`; of `receivable` it is
-- the room on the credit line.
ALTER TABLE accounts
  ADD COLUMN credit_line_micros bigint CHECK (credit_line_micros >= 0),
  DROP CONSTRAINT accounts_kind_check,
  DROP CONSTRAINT accounts_check,
  DROP CONSTRAINT accounts_check1,
  ADD CONSTRAINT accounts_kind_check CHECK (
    kind IN ('cash', 'revenue', 'marketing', 'rounding', 'available', 'held', 'promotional', 'receivable')),
  ADD CONSTRAINT accounts_owner_check CHECK ((kind IN ('cash', 'revenue', 'marketing', 'rounding')) = (advertiser_id IS NULL)),
  ADD CONSTRAINT accounts_kept_check CHECK ((kind IN ('available', 'promotional', 'receivable')) = (balance_micros IS NOT NULL)),
  ADD CONSTRAINT accounts_line_check CHECK ((kind = 'receivable') = (credit_line_micros IS NOT NULL));

INSERT INTO accounts (kind, currency) SELECT DISTINCT own, currency FROM accounts, unnest(ARRAY['marketing', 'rounding']) AS own;
INSERT INTO accounts (kind, advertiser_id, currency, balance_micros, credit_line_micros)
SELECT more.kind, advertiser_id, currency, 0, more.line
FROM accounts, (VALUES ('promotional', NULL), ('receivable', 0)) AS more (kind, line) WHERE accounts.kind = 'available';

-- A transaction of kind `credit_line` posts nothing: it says when the line became what its reference says.
ALTER TABLE transactions
  DROP CONSTRAINT transactions_kind_check,
  ADD CONSTRAINT transactions_kind_check CHECK (kind IN (
    'deposit', 'hold', 'settle', 'return', 'promotion', 'credit_line', 'credit', 'invoice', 'void', 'payment'));

-- The newest of them tells whether campaigns without funds are worth another question.
CREATE INDEX transactions_funds_idx ON transactions (id) WHERE kind IN ('deposit', 'promotion', 'credit_line', 'credit', 'payment');

-- What of a lease came from a promotion and what from the credit line; the rest was prepaid.
ALTER TABLE leases
  ADD COLUMN promotional_micros bigint NOT NULL DEFAULT 0 CHECK (promotional_micros >= 0),
  ADD COLUMN credit_micros bigint NOT NULL DEFAULT 0 CHECK (credit_micros >= 0),
  ADD CONSTRAINT leases_funds_check CHECK (promotional_micros + credit_micros <= granted_micros);
CREATE INDEX ON leases (advertiser_id) WHERE credit_micros > 0;

-- What `close_leases` gives back to one account.
CREATE TYPE lease_returns AS (
  advertiser_id bigint, campaign_id bigint, currency text, lease_id bigint, kind text, micros bigint
);
ALTER TYPE lease_rooms ADD ATTRIBUTE promotional_micros bigint, ADD ATTRIBUTE credit_micros bigint;

-- A row is an advertiser's month in one currency; it is a draft until it has a number. What it says of the advertiser and of
-- us is what was so then. `covered_micros` is what of the net was drawn on the credit line, `due_micros` what is to be paid
-- for it; the rest of the total was paid before.
CREATE TABLE invoices (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  advertiser_id   bigint NOT NULL REFERENCES advertisers,
  currency        text NOT NULL,
  month           date NOT NULL CHECK (extract(day FROM month) = 1),
  time_zone       text NOT NULL,
  exponent        smallint NOT NULL,
  status          text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'issued', 'paid', 'void')),
  number          text UNIQUE,
  buyer           text NOT NULL,
  seller          jsonb,
  gross_micros    bigint NOT NULL,
  invalid_micros  bigint NOT NULL,
  credits_micros  bigint NOT NULL,
  net_micros      bigint NOT NULL CHECK (net_micros = gross_micros - invalid_micros - credits_micros),
  total_micros    bigint NOT NULL,
  covered_micros  bigint CHECK (covered_micros >= 0),
  due_micros      bigint CHECK (due_micros BETWEEN 0 AND greatest(total_micros, 0)),
  drafted_at      timestamptz NOT NULL,
  issued_at       timestamptz,
  paid_at         timestamptz,
  voided_at       timestamptz,
  CHECK ((status = 'draft') = (number IS NULL)),
  CHECK (num_nulls(number, seller, covered_micros, due_micros, issued_at) IN (0, 5)),
  CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
  CHECK ((status = 'void') = (voided_at IS NOT NULL))
);
CREATE UNIQUE INDEX ON invoices (advertiser_id, currency, month) WHERE status <> 'void';

-- A row is what a campaign was charged on one day of the advertiser's, as far as no earlier line says so. `corrects` is the
-- invoice that said less of that day (a debit note), or more than is left after credits (a credit note).
CREATE TABLE invoice_lines (
  invoice_id      bigint NOT NULL REFERENCES invoices,
  line            integer NOT NULL CHECK (line >= 1),
  campaign_id     bigint NOT NULL,
  campaign        text NOT NULL,
  day             date NOT NULL,
  unit            text NOT NULL CHECK (unit IN ('impression', 'view', 'click')),
  corrects        bigint REFERENCES invoices,
  quantity        bigint NOT NULL CHECK (quantity >= 0),
  invalid         bigint NOT NULL CHECK (invalid BETWEEN 0 AND quantity),
  gross_micros    bigint NOT NULL CHECK (gross_micros >= 0),
  invalid_micros  bigint NOT NULL CHECK (invalid_micros BETWEEN 0 AND gross_micros),
  credits_micros  bigint NOT NULL CHECK (credits_micros >= 0),
  net_micros      bigint NOT NULL CHECK (net_micros = gross_micros - invalid_micros - credits_micros),
  total_micros    bigint NOT NULL,
  PRIMARY KEY (invoice_id, line)
);

-- A row gives back what an event was charged, or a part of it. The event stays as it is. `charged_at` is when the event was
-- received; `owed_micros` paid off debt, the rest became prepaid; without an invoice the credit is for the next one.
CREATE TABLE credits (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  issued_day      date NOT NULL,
  ticket_id       uuid NOT NULL,
  kind            text NOT NULL,
  advertiser_id   bigint NOT NULL REFERENCES advertisers,
  campaign_id     bigint NOT NULL,
  currency        text NOT NULL,
  micros          bigint NOT NULL CHECK (micros > 0),
  owed_micros     bigint NOT NULL CHECK (owed_micros BETWEEN 0 AND micros),
  reason          text NOT NULL,
  rules_version   integer,
  at              timestamptz NOT NULL,
  charged_at      timestamptz NOT NULL,
  transaction_id  bigint NOT NULL REFERENCES transactions,
  invoice_id      bigint REFERENCES invoices,
  UNIQUE (issued_day, ticket_id, kind, reason)
);
CREATE INDEX ON credits (advertiser_id, charged_at) WHERE invoice_id IS NULL;
CREATE INDEX ON credits (invoice_id);

-- A row counts the invoices of a series that were issued in a year. It is locked from the count to the commit: no number is
-- lost or given twice.
CREATE TABLE invoice_series (
  series  text NOT NULL,
  year    integer NOT NULL,
  last    integer NOT NULL CHECK (last >= 1),
  PRIMARY KEY (series, year)
);

-- What `uninvoiced` finds of a campaign's day.
CREATE TYPE invoice_figures AS (
  advertiser_id bigint, currency text, target date, campaign_id bigint, day date, corrects bigint, quantity bigint,
  invalid bigint, gross_micros bigint, invalid_micros bigint, credits_micros bigint, credits bigint[]
);

-- A row says when the drafts of a month were made for the advertisers of a time zone; null asks for them (again).
CREATE TABLE invoice_runs (
  time_zone  text NOT NULL,
  month      date NOT NULL,
  made_at    timestamptz,
  PRIMARY KEY (time_zone, month)
);

-- Of an issued invoice the status changes, once, and nothing else.
CREATE FUNCTION refuse_invoice_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_moves text[] := ARRAY['status', 'paid_at', 'voided_at'];
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF OLD.status = 'draft' AND NEW.status IN ('draft', 'issued') THEN RETURN NEW; END IF;
    IF OLD.status = 'issued' AND NEW.status IN ('paid', 'void') AND to_jsonb(NEW) - v_moves = to_jsonb(OLD) - v_moves THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'an issued invoice does not change' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION refuse_invoice_change();

CREATE FUNCTION refuse_line_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' AND (SELECT status FROM invoices WHERE id = NEW.invoice_id) = 'draft' THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'a line of an invoice does not change' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER immutable BEFORE INSERT OR UPDATE OR DELETE ON invoice_lines FOR EACH ROW EXECUTE FUNCTION refuse_line_change();

-- Only the invoice that a credit stands on changes.
CREATE FUNCTION refuse_credit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'invoice_id' = to_jsonb(OLD) - 'invoice_id' THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'credits is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON credits FOR EACH ROW EXECUTE FUNCTION refuse_credit_change();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON invoices      FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON invoice_lines FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON credits       FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE invoices      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE invoice_lines ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE credits       ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own  ON invoices      FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON credits       FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON invoice_lines FOR SELECT TO adserve_tenant
  USING (invoice_id IN (SELECT id FROM invoices WHERE advertiser_id = tenant()));
CREATE POLICY all_ ON invoices      TO adserve_owner USING (true);
CREATE POLICY all_ ON invoice_lines TO adserve_owner USING (true);
CREATE POLICY all_ ON credits       TO adserve_owner USING (true);
CREATE POLICY read ON invoices      FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON invoice_lines FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON credits       FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);

GRANT SELECT ON invoices, invoice_lines, credits TO adserve_tenant, adserve_analyst, adserve_recorder, adserve_operator;
GRANT SELECT ON invoice_runs, invoice_series TO adserve_operator, adserve_analyst;
