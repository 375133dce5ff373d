-- What the click model learns from: a row is an impression that counted, and whether its ticket was clicked in time.

-- name: days
SELECT min(issued_day), max(issued_day) FROM events

-- name: impressions
SELECT shown.received_at, shown.issued_at, whose.viewer, shown.country, shown.platform, shown.surface, shown.ad_id, shown.campaign_id,
       shown.advertiser_id, creatives.kind, creatives.call_to_action, clicked.ticket_id IS NOT NULL AS clicked
FROM events shown
JOIN creatives ON creatives.id = shown.creative_id
LEFT JOIN viewer_log whose ON whose.issued_day = shown.issued_day AND whose.ticket_id = shown.ticket_id
LEFT JOIN events clicked
  ON clicked.issued_day = shown.issued_day AND clicked.ticket_id = shown.ticket_id
  AND clicked.kind = 'click' AND clicked.outcome NOT IN ('late', 'invalid_traffic')
WHERE shown.issued_day = $1
  AND shown.kind = 'impression'
  AND shown.outcome NOT IN ('late', 'over_cap', 'invalid_traffic')
  AND shown.expires_at <= $2
