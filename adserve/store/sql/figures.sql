-- A row of `events` is one event of one ticket; of `leases`, a part of one campaign's budget of one day.

-- name: newest_events
SELECT e.event_id AS event, e.kind, e.outcome, e.country, a.name AS advertiser_name, c.name AS campaign_name,
       e.billed_micros, e.currency, e.received_at
FROM (SELECT * FROM events ORDER BY received_at DESC, event_id DESC LIMIT $1) AS e
JOIN campaigns c ON c.id = e.campaign_id
JOIN advertisers a ON a.id = e.advertiser_id
ORDER BY e.received_at DESC, e.event_id DESC

-- name: campaign_money
SELECT c.id AS campaign, c.name, a.name AS advertiser_name, c.currency, c.budget_daily_micros AS daily_micros,
       (SELECT coalesce(sum(l.captured_micros), 0)::bigint FROM leases l
        WHERE l.campaign_id = c.id AND l.budget_day = ($1::timestamptz AT TIME ZONE c.time_zone)::date) AS spent_micros
FROM campaigns c JOIN advertisers a ON a.id = c.advertiser_id
WHERE c.status <> 'archived'
ORDER BY c.id
