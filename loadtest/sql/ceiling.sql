-- A row of `bare_events` is an event with its key and what a bill needs of it, and nothing that looks after it. The others are
-- rows as `settle_batch` writes them, in tables with the same columns, keys, indexes, checks and partitions, but without triggers and
-- policies.

-- name: create
CREATE TABLE bare_events (
  issued_day     date NOT NULL,
  ticket_id      uuid NOT NULL,
  kind           text NOT NULL,
  event_id       uuid NOT NULL,
  outcome        text NOT NULL,
  billed_micros  bigint NOT NULL,
  campaign_id    bigint NOT NULL,
  received_at    timestamptz NOT NULL,
  PRIMARY KEY (issued_day, ticket_id, kind)
);
CREATE TABLE same_events (LIKE adserve.events INCLUDING ALL) PARTITION BY RANGE (issued_day);
CREATE TABLE same_postings (LIKE adserve.postings INCLUDING ALL);
CREATE TABLE same_deltas (LIKE adserve.rollup_deltas INCLUDING ALL);
DO $$
DECLARE
  today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  FOR n IN -1 .. 1 LOOP
    EXECUTE format('CREATE TABLE same_events_%s PARTITION OF same_events FOR VALUES FROM (%L) TO (%L)',
                   n + 1, today + n, today + n + 1);
  END LOOP;
END $$

-- name: insert
INSERT INTO bare_events
SELECT * FROM unnest($1::date[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::timestamptz[])
ON CONFLICT DO NOTHING RETURNING ticket_id

-- name: insert_same
WITH stored AS (
  INSERT INTO same_events (
    issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
    decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
    country, platform, position, propensity, model, catalogue_version, rules_version, arm, labels, issued_at,
    expires_at, received_at, occurred_at, view_ms)
  SELECT
    issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
    decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
    country, platform, position, propensity, model, catalogue_version, rules_version, arm, string_to_array(labels, ','),
    issued_at, expires_at, received_at, occurred_at, view_ms
  FROM unnest(
    $1::date[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
    $10::text[], $11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::integer[], $17::bigint[],
    $18::date[], $19::bigint[], $20::text[], $21::text[], $22::text[], $23::integer[], $24::double precision[], $25::text[],
    $26::bigint[], $27::integer[], $28::text[], $29::text[], $30::timestamptz[], $31::timestamptz[], $32::timestamptz[],
    $33::timestamptz[], $34::integer[]
  ) AS given (
    issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model,
    decision_id, advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface,
    country, platform, position, propensity, model, catalogue_version, rules_version, arm, labels, issued_at,
    expires_at, received_at, occurred_at, view_ms)
  ON CONFLICT DO NOTHING RETURNING ticket_id
), posted AS (
  INSERT INTO same_postings (transaction_id, account_id, campaign_id, lease_id, micros, currency)
  SELECT * FROM unnest($35::bigint[], $36::bigint[], $37::bigint[], $38::bigint[], $39::bigint[], $40::text[])
), counted AS (
  INSERT INTO same_deltas (hour, advertiser_id, campaign_id, ad_id, currency, kind, outcome, events, billed_micros)
  SELECT * FROM unnest($41::timestamptz[], $42::bigint[], $43::bigint[], $44::bigint[], $45::text[], $46::text[], $47::text[],
                       $48::bigint[], $49::bigint[])
)
SELECT ticket_id FROM stored
