-- A row of `events` is one event of one ticket, stored once.

-- name: patience
SET LOCAL statement_timeout = {ms}

-- name: page
SELECT event_id AS event, ticket_id AS ticket, decision_id AS decision, kind, outcome, received_at, occurred_at,
       issued_at, advertiser_id AS advertiser, campaign_id AS campaign, ad_id AS ad, creative_id AS creative, revision,
       surface, country, platform, position, view_ms, price_micros, billed_micros, currency, billable, bid_model,
       budget_day, model, propensity, catalogue_version, rules_version, arm, invalid_reason, traffic_rules
FROM events
WHERE received_at >= coalesce($5, '-infinity'::timestamptz)
  AND received_at < coalesce($6, 'infinity'::timestamptz)
  AND (received_at, event_id) > (coalesce($2, '-infinity'::timestamptz), coalesce($3, '00000000-0000-0000-0000-000000000000'::uuid))
  AND ($4::text IS NULL OR kind = $4)
  AND ($7::bigint IS NULL OR advertiser_id = $7)
  AND ($8::bigint IS NULL OR campaign_id = $8)
  AND ($9::bigint IS NULL OR ad_id = $9)
  AND ($10::text IS NULL OR country = $10)
  AND ($11::text IS NULL OR platform = $11)
  AND ($12::text IS NULL OR surface = $12)
  AND ($13::text IS NULL OR outcome = $13)
  AND ($14::text IS NULL OR invalid_reason = $14)
  AND (NOT $15::boolean OR NOT EXISTS (
    SELECT FROM events i WHERE i.issued_day = events.issued_day AND i.ticket_id = events.ticket_id AND i.kind = 'impression'))
ORDER BY received_at, event_id
LIMIT $1
