-- What happened and what it cost. A row of `events` is one event of one ticket, stored once for ever under
-- (issued day, ticket, kind); money moves by double entry in `postings`, which nobody changes.

CREATE TABLE events (
  issued_day         date NOT NULL CHECK (issued_day = (issued_at AT TIME ZONE 'UTC')::date),
  ticket_id          uuid NOT NULL,
  kind               text NOT NULL CHECK (kind IN ('impression', 'view', 'click', 'hide', 'report', 'complete')),
  event_id           uuid NOT NULL,
  outcome            text NOT NULL CHECK (outcome IN ('recorded', 'late', 'over_cap', 'invalid_traffic', 'unbilled_kind', 'over_budget')),
  billed_micros      bigint NOT NULL CHECK (billed_micros = CASE outcome WHEN 'recorded' THEN price_micros ELSE 0 END),
  price_micros       bigint NOT NULL CHECK (price_micros >= 1),
  currency           text NOT NULL,
  billable           text NOT NULL,
  bid_model          text NOT NULL,
  decision_id        uuid NOT NULL,
  advertiser_id      bigint NOT NULL,
  campaign_id        bigint NOT NULL,
  ad_id              bigint NOT NULL,
  creative_id        bigint NOT NULL,
  revision           integer NOT NULL,
  lease_id           bigint NOT NULL,
  budget_day         date NOT NULL,
  epoch              bigint NOT NULL,
  surface            text NOT NULL,
  country            text NOT NULL,
  platform           text NOT NULL,
  position           integer NOT NULL,
  propensity         double precision NOT NULL,
  model              text NOT NULL,
  catalogue_version  bigint NOT NULL,
  rules_version      integer NOT NULL,
  arm                text NOT NULL,
  labels             text[] NOT NULL,
  issued_at          timestamptz NOT NULL,
  expires_at         timestamptz NOT NULL,
  received_at        timestamptz NOT NULL,
  occurred_at        timestamptz,
  view_ms            integer,
  PRIMARY KEY (issued_day, ticket_id, kind),
  CHECK (outcome <> 'recorded' OR kind = billable)
) PARTITION BY RANGE (issued_day);
CREATE INDEX ON events (received_at, event_id);

-- Two deletable maps from a ticket to its viewer's pseudonyms, so that events and postings hold no viewer.
CREATE TABLE viewer_caps (
  issued_day  date NOT NULL,
  ticket_id   uuid NOT NULL,
  viewer      bytea NOT NULL,
  PRIMARY KEY (issued_day, ticket_id)
) PARTITION BY RANGE (issued_day);

CREATE TABLE viewer_log (
  issued_day  date NOT NULL,
  ticket_id   uuid NOT NULL,
  viewer      bytea NOT NULL,
  PRIMARY KEY (issued_day, ticket_id)
) PARTITION BY RANGE (issued_day);

-- A row is an event that could not be settled, as JSON in bytes: what a column refuses, bytes still hold.
CREATE TABLE quarantined_events (
  ticket_id  uuid NOT NULL,
  kind       text NOT NULL,
  event_id   uuid NOT NULL,
  event      bytea NOT NULL,
  error      text NOT NULL,
  at         timestamptz NOT NULL,
  PRIMARY KEY (ticket_id, kind)
);

-- Deltas written in the transaction of their events: no row that two batches would both update.
CREATE TABLE rollup_deltas (
  hour           timestamptz NOT NULL,
  advertiser_id  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  ad_id          bigint NOT NULL,
  currency       text NOT NULL,
  kind           text NOT NULL,
  outcome        text NOT NULL,
  events         bigint NOT NULL,
  billed_micros  bigint NOT NULL
);
CREATE INDEX ON rollup_deltas (campaign_id, hour);
CREATE INDEX ON rollup_deltas (hour);

-- `cash` and `revenue` are ours (one a currency); `available` and `held` are an advertiser's. Leases are taken from
-- `available`, whose balance is kept here; settlement touches the others, and nothing they would all update.
CREATE TABLE accounts (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind            text NOT NULL CHECK (kind IN ('cash', 'revenue', 'available', 'held')),
  advertiser_id   bigint REFERENCES advertisers,
  currency        text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  balance_micros  bigint CHECK (balance_micros >= 0),
  UNIQUE NULLS NOT DISTINCT (kind, advertiser_id, currency),
  CHECK ((kind IN ('cash', 'revenue')) = (advertiser_id IS NULL)),
  CHECK ((kind = 'available') = (balance_micros IS NOT NULL))
);

CREATE TABLE transactions (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind       text NOT NULL CHECK (kind IN ('deposit', 'hold', 'settle', 'return')),
  reference  text NOT NULL,
  at         timestamptz NOT NULL
);

CREATE TABLE postings (
  transaction_id  bigint NOT NULL REFERENCES transactions,
  account_id      bigint NOT NULL REFERENCES accounts,
  campaign_id     bigint,
  lease_id        bigint,
  micros          bigint NOT NULL CHECK (micros <> 0),
  currency        text NOT NULL
);
CREATE INDEX ON postings (transaction_id);
CREATE INDEX ON postings (account_id) INCLUDE (micros);

-- A row is a part of one campaign's budget of one day, drawn on in memory by one replica until it is frozen. It still
-- captures until `closes_at`, when its last ticket has expired; then the rest goes back.
CREATE TABLE leases (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  advertiser_id    bigint NOT NULL REFERENCES advertisers,
  campaign_id      bigint NOT NULL REFERENCES campaigns,
  currency         text NOT NULL,
  budget_day       date NOT NULL,
  granted_micros   bigint NOT NULL CHECK (granted_micros > 0),
  captured_micros  bigint NOT NULL DEFAULT 0 CHECK (captured_micros BETWEEN 0 AND granted_micros),
  replica          uuid NOT NULL,
  opened_at        timestamptz NOT NULL,
  frozen_at        timestamptz,
  closes_at        timestamptz,
  closed_at        timestamptz,
  CHECK ((frozen_at IS NULL) = (closes_at IS NULL)),
  CHECK (closed_at IS NULL OR frozen_at IS NOT NULL)
) WITH (fillfactor = 60);  -- room for the captures beside each row, so that they touch no index
CREATE INDEX ON leases (campaign_id, budget_day);
CREATE INDEX ON leases (replica) WHERE frozen_at IS NULL;
CREATE INDEX ON leases (closes_at) WHERE closed_at IS NULL;
CREATE INDEX ON leases (advertiser_id) WHERE closed_at IS NULL;

-- What of a budget is leased or spent: a row for each day, and one without a day for the campaign as a whole.
-- `allowed_micros` is the greatest budget that a lease was taken under, null once there was none.
CREATE TABLE budget_uses (
  campaign_id     bigint NOT NULL,
  advertiser_id   bigint NOT NULL,
  budget_day      date,
  leased_micros   bigint NOT NULL CHECK (leased_micros >= 0),
  allowed_micros  bigint,
  UNIQUE NULLS NOT DISTINCT (campaign_id, budget_day),
  FOREIGN KEY (campaign_id, advertiser_id) REFERENCES campaigns (id, advertiser_id),
  CHECK (leased_micros <= allowed_micros)
);

-- A counter epoch begins when the counters could not be carried over whole.
CREATE TABLE counter_epochs (
  epoch      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  opened_at  timestamptz NOT NULL
);

-- The newest complete checkpoint of the counters, in parts of bounded size.
CREATE TABLE counter_checkpoints (
  taken_at  timestamptz NOT NULL,
  part      integer NOT NULL,
  parts     integer NOT NULL,
  payload   bytea NOT NULL,
  PRIMARY KEY (taken_at, part)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postings     FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- For each row, because only such triggers hold on the partitions too.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every statement that posts must balance by itself: cheaper than a deferred check of each row, and stricter.
CREATE FUNCTION refuse_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM posted GROUP BY transaction_id, currency HAVING sum(micros) <> 0) THEN
    RAISE EXCEPTION 'postings of a transaction must sum to zero' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF EXISTS (SELECT FROM posted p JOIN accounts a ON a.id = p.account_id WHERE a.currency <> p.currency) THEN
    RAISE EXCEPTION 'a posting must be in the currency of its account' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER balanced AFTER INSERT ON postings REFERENCING NEW TABLE AS posted
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_imbalance();

ALTER TABLE events        ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE rollup_deltas ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE accounts      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE leases        ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE budget_uses   ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE postings      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own  ON events        FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON rollup_deltas FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON accounts      FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON leases        FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON budget_uses   FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY own  ON postings      FOR SELECT TO adserve_tenant
  USING (account_id IN (SELECT id FROM accounts WHERE advertiser_id = tenant()));
CREATE POLICY all_ ON events        TO adserve_owner USING (true);
CREATE POLICY all_ ON rollup_deltas TO adserve_owner USING (true);
CREATE POLICY all_ ON accounts      TO adserve_owner USING (true);
CREATE POLICY all_ ON leases        TO adserve_owner USING (true);
CREATE POLICY all_ ON budget_uses   TO adserve_owner USING (true);
CREATE POLICY all_ ON postings      TO adserve_owner USING (true);
CREATE POLICY read ON events        FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON rollup_deltas FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator, adserve_catalogue USING (true);
CREATE POLICY read ON accounts      FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON leases        FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON budget_uses   FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);
CREATE POLICY read ON postings      FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator USING (true);

-- The recorder writes only through the functions, which run as their owner.
GRANT SELECT ON events, rollup_deltas, accounts, leases, budget_uses, postings, transactions TO adserve_recorder, adserve_analyst, adserve_operator;
GRANT SELECT ON rollup_deltas TO adserve_catalogue;
GRANT SELECT ON events, rollup_deltas, accounts, leases, budget_uses, postings TO adserve_tenant;
GRANT SELECT ON viewer_caps TO adserve_recorder;
GRANT SELECT ON viewer_log TO adserve_analyst;
GRANT SELECT, INSERT ON quarantined_events TO adserve_recorder;
GRANT SELECT ON quarantined_events TO adserve_analyst, adserve_operator;
GRANT SELECT, INSERT ON counter_epochs TO adserve_recorder;
GRANT SELECT, INSERT, DELETE ON counter_checkpoints TO adserve_recorder;
