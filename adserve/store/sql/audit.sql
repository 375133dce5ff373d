-- A row is a figure over all events of a database, derived from nothing but its rows: what a run counts is held against it.

-- name: outcomes
SELECT kind, outcome, count(*) AS events FROM events GROUP BY kind, outcome ORDER BY kind, outcome

-- name: billed
SELECT campaign_id, sum(billed_micros)::bigint AS micros FROM events GROUP BY campaign_id HAVING sum(billed_micros) <> 0

-- name: posted
SELECT p.campaign_id, sum(p.micros)::bigint AS micros
FROM postings p JOIN accounts a ON a.id = p.account_id
WHERE a.kind = 'revenue' GROUP BY p.campaign_id

-- name: billed_twice
SELECT count(*) FROM (
  SELECT FROM events WHERE outcome = 'recorded' GROUP BY issued_day, ticket_id HAVING count(*) > 1
) AS twice

-- name: over_cap
SELECT count(*) FROM (
  SELECT count(*) OVER (
    PARTITION BY viewer, scope ORDER BY counted_at
    RANGE BETWEEN $3::integer * interval '1 second' - interval '1 ms' PRECEDING AND CURRENT ROW
  ) AS seen
  FROM (
    SELECT v.viewer, min(e.received_at) AS counted_at,
           CASE $1::text WHEN 'ad' THEN min(ad_id) WHEN 'campaign' THEN min(campaign_id)
                         WHEN 'advertiser' THEN min(advertiser_id) ELSE 0 END AS scope
    FROM events e JOIN viewer_caps v USING (issued_day, ticket_id)
    WHERE e.kind IN ('impression', 'view') AND e.outcome NOT IN ('late', 'over_cap')
    GROUP BY issued_day, ticket_id, v.viewer
  ) AS counted
) AS windows
WHERE seen > $2
