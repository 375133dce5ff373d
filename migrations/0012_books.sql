-- Roll-ups that are compacted, days whose books are closed, and what reconciliations found.

-- The transaction that an event was charged in; null where nothing was.
ALTER TABLE events ADD COLUMN transaction_id bigint;

-- What invalid traffic would have been charged: gross is the sum of it and of `billed_micros`.
-- Deltas are added up by a maintenance task. Whoever reads adds up these and the deltas that are left: `rollup_parts` has both.
ALTER TABLE rollup_deltas ADD COLUMN invalid_micros bigint NOT NULL DEFAULT 0;
CREATE TABLE rollups (
  hour           timestamptz NOT NULL,
  advertiser_id  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  ad_id          bigint NOT NULL,
  currency       text NOT NULL,
  kind           text NOT NULL,
  outcome        text NOT NULL,
  events         bigint NOT NULL,
  billed_micros  bigint NOT NULL,
  invalid_micros bigint NOT NULL,
  PRIMARY KEY (hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id)
) WITH (fillfactor = 60);
CREATE INDEX ON rollups (campaign_id, hour);

CREATE VIEW rollup_parts WITH (security_invoker) AS
  SELECT hour, advertiser_id, campaign_id, ad_id, currency, kind, outcome, events, billed_micros, invalid_micros FROM rollups
  UNION ALL
  SELECT hour, advertiser_id, campaign_id, ad_id, currency, kind, outcome, events, billed_micros, invalid_micros FROM rollup_deltas;

-- A row closes the books of the tickets that were issued on a UTC day: no event of theirs is stored any more. `hash` covers
-- the day's entries and figures and the hash of the day that was closed before, so none is changed without all that follow.
-- A transaction up to `last_transaction` may have charged events of closed days.
CREATE TABLE closed_days (
  day               date PRIMARY KEY,
  format            smallint NOT NULL,
  events            bigint NOT NULL,
  last_transaction  bigint NOT NULL,
  hash              bytea NOT NULL CHECK (length(hash) = 32),
  closed_at         timestamptz NOT NULL
);

-- A row stands for all events of an advertiser's campaign on a closed day; `hash` covers them one by one.
CREATE TABLE closing_entries (
  day            date NOT NULL,
  advertiser_id  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  currency       text NOT NULL,
  events         bigint NOT NULL,
  billed_micros  bigint NOT NULL,
  hash           bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (day, advertiser_id, campaign_id, currency)
);

-- A row sums events of a closed day as finely as leases, postings and roll-ups are derived from them.
CREATE TABLE closing_figures (
  day            date NOT NULL,
  hour           timestamptz NOT NULL,
  advertiser_id  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  ad_id          bigint NOT NULL,
  lease_id       bigint NOT NULL,
  currency       text NOT NULL,
  kind           text NOT NULL,
  outcome        text NOT NULL,
  events         bigint NOT NULL,
  billed_micros  bigint NOT NULL,
  invalid_micros bigint NOT NULL,
  PRIMARY KEY (day, lease_id, hour, campaign_id, ad_id, kind, outcome, currency, advertiser_id)
);

-- A row is what a nightly reconciliation found: of `differing` figures the first, one by one.
CREATE TABLE reconciliations (
  started_at     timestamptz PRIMARY KEY,
  finished_at    timestamptz NOT NULL,
  first_raw_day  date,
  events         bigint NOT NULL,
  billed_micros  jsonb NOT NULL,
  compared       bigint NOT NULL,
  differing      bigint NOT NULL,
  differences    jsonb NOT NULL
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON closed_days     FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON closing_entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON closing_figures FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconciliations FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Stands on the partition of a closed day, and stays on it when it is no partition any more. An insert is passed over: whoever
-- settles finds that nothing was stored, and that the day is closed.
CREATE FUNCTION refuse_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN RETURN NULL; END IF;
  RAISE EXCEPTION '% is closed', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- As before, but what the ledger stands on does not go this way: it is retired, a closed day at a time.
CREATE OR REPLACE FUNCTION drop_partitions(parent text, first_kept date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  partition text;
  dropped integer := 0;
BEGIN
  IF parent = 'events' THEN
    RAISE EXCEPTION 'events are retired by closed days' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('adserve.partitions', 0));
  FOR partition IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = format('adserve.%I', parent)::regclass AND c.relname < parent || to_char(first_kept, '_YYYYMMDD')
  LOOP
    EXECUTE format('DROP TABLE adserve.%I', partition);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

ALTER TABLE rollups ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own  ON rollups FOR SELECT TO adserve_tenant USING (advertiser_id = tenant());
CREATE POLICY all_ ON rollups TO adserve_owner USING (true);
CREATE POLICY read ON rollups FOR SELECT TO adserve_analyst, adserve_recorder, adserve_operator, adserve_catalogue USING (true);

GRANT SELECT ON rollups, rollup_parts TO adserve_recorder, adserve_analyst, adserve_operator, adserve_catalogue, adserve_tenant;
GRANT SELECT ON closed_days, closing_entries, closing_figures TO adserve_recorder, adserve_analyst, adserve_operator;
GRANT SELECT, INSERT ON reconciliations TO adserve_recorder;
GRANT SELECT ON reconciliations TO adserve_analyst, adserve_operator;
