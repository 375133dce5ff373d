-- A row of `planted` is an impression of one viewer, or now and then a hide: every viewer saw five ads twice in the last weeks.

-- name: become_owner
SET ROLE adserve_owner

-- name: become_oneself
RESET ROLE

-- name: plant
WITH planted AS (
  SELECT n, moment, moment - interval '10 s' AS issued_at, decode(md5('viewer' || n % $4), 'hex') AS viewer, md5(n::text) AS chance,
         1 + (n % $4 * 7 + n / $4 % 5) % $5 AS ad
  FROM generate_series($1::bigint, $2::bigint - 1) AS n,
       LATERAL (SELECT $3::timestamptz + n * $6::interval AS moment)
), numbered AS (
  SELECT *, (lpad(to_hex((extract(epoch FROM issued_at) * 1000)::bigint), 12, '0') || '7' || substr(chance, 1, 3) || '8'
             || substr(chance, 4, 15))::uuid AS ticket_id
  FROM planted
), mapped AS (
  INSERT INTO viewer_caps SELECT (issued_at AT TIME ZONE 'UTC')::date, ticket_id, viewer FROM numbered
)
INSERT INTO events (
  issued_day, ticket_id, kind, event_id, outcome, billed_micros, price_micros, currency, billable, bid_model, decision_id,
  advertiser_id, campaign_id, ad_id, creative_id, revision, lease_id, budget_day, epoch, surface, country, platform, position,
  propensity, model, catalogue_version, rules_version, arm, labels, issued_at, expires_at, received_at, occurred_at, view_ms)
SELECT
  (issued_at AT TIME ZONE 'UTC')::date, ticket_id, CASE n % 1000 WHEN 0 THEN 'hide' ELSE 'impression' END, ticket_id, 'unbilled_kind',
  0, 2500, 'USD', 'view', 'cpm', ticket_id, 1000000 + ad % 500, 1000000 + ad, 1000000 + ad, 1, 1, 1, '2026-01-01', 1, 'status', 'ID', 'android', 3,
  1, 'prior', 1, 1, 'exposed', '{}', issued_at, issued_at + interval '1 h', moment, NULL, NULL
FROM numbered

-- Events of weeks have been looked through by autovacuum; who reads a row first else has to write as well.
-- name: vacuum
VACUUM (ANALYZE)

-- name: forget_checkpoint
DELETE FROM counter_checkpoints
