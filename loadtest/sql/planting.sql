-- A row of `$1` is a brand of the market: its name and its campaigns, as the bodies that the API takes.

-- name: become_owner
SET ROLE adserve_owner;

-- name: plant
WITH brand AS MATERIALIZED (
  SELECT nextval(pg_get_serial_sequence('adserve.advertisers', 'id')) AS id, body
  FROM jsonb_array_elements($1::jsonb) AS body
), wanted AS MATERIALIZED (
  SELECT brand.id AS advertiser,
         nextval(pg_get_serial_sequence('adserve.campaigns', 'id')) AS campaign,
         nextval(pg_get_serial_sequence('adserve.creatives', 'id')) AS creative,
         campaign.body
  FROM brand CROSS JOIN jsonb_array_elements(brand.body -> 'campaigns') AS campaign (body)
), advertiser AS (
  INSERT INTO adserve.advertisers (id, name) SELECT id, body ->> 'name' FROM brand
), campaign AS (
  INSERT INTO adserve.campaigns (
    id, advertiser_id, name, objective, starts_at, time_zone, bid_model, bid_micros, currency, billable,
    budget_daily_micros, pacing, priority, targeting, caps, separation
  )
  SELECT campaign, advertiser, body ->> 'name', 'awareness', (body ->> 'starts_at')::timestamptz, 'UTC',
         body #>> '{bid,model}', (body #>> '{bid,price,micros}')::bigint, body #>> '{bid,price,currency}', body ->> 'billable',
         (body #>> '{budget,daily,micros}')::bigint, body ->> 'pacing', body ->> 'priority', body -> 'targeting',
         body -> 'caps', ARRAY (SELECT jsonb_array_elements_text(body -> 'separation'))
  FROM wanted
), creative AS (
  INSERT INTO adserve.creatives (id, advertiser_id, kind, media, headline, body, call_to_action, landing_url)
  SELECT creative, advertiser, 'image', $2, (body ->> 'name') || ': all that you could want',
         'Made by hand, in small numbers, for people who look twice.', 'shop_now', 'https://example.com/landing'
  FROM wanted
), ad AS (
  INSERT INTO adserve.ads (advertiser_id, campaign_id, creative_id) SELECT advertiser, campaign, creative FROM wanted
)
SELECT id FROM brand;

-- name: deposit
SELECT count(adserve.deposit(advertiser, $2, 'USD', 'planting', now())) FROM unnest($1::bigint[]) AS advertiser;

-- name: analyze
ANALYZE adserve.advertisers, adserve.campaigns, adserve.creatives, adserve.ads, adserve.accounts;

-- name: change
UPDATE adserve.campaigns SET bid_micros = bid_micros + 1000 WHERE id = $1;
