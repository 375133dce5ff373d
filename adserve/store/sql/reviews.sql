-- A row of `creatives` here is what a person has to judge; one of `creative_verdicts` is what was judged of a revision, kept for ever.

-- name: page
-- Those that have been in a state for the longest first.
SELECT c.id, c.advertiser_id, v.name AS advertiser_name, c.revision, c.kind, c.media, m.width, m.height, c.headline, c.body,
       c.call_to_action, c.landing_url, c.status, c.review, c.review_at,
       last.revision AS judged_revision, last.verdict, last.reason, last.at
FROM creatives c
JOIN advertisers v ON v.id = c.advertiser_id
JOIN media m ON m.sha256 = c.media
LEFT JOIN LATERAL (
  SELECT revision, verdict, reason, at FROM creative_verdicts WHERE creative_id = c.id ORDER BY id DESC LIMIT 1
) last ON true
WHERE c.review = $1 AND c.status <> 'archived'
  AND (c.review_at, c.id) > (coalesce($2, '-infinity'::timestamptz), $3)
  AND ($5::bigint IS NULL OR c.advertiser_id = $5)
ORDER BY c.review_at, c.id LIMIT $4

-- name: one
SELECT c.id, c.advertiser_id, v.name AS advertiser_name, c.revision, c.kind, c.media, m.width, m.height, c.headline, c.body,
       c.call_to_action, c.landing_url, c.status, c.review, c.review_at,
       last.revision AS judged_revision, last.verdict, last.reason, last.at
FROM creatives c
JOIN advertisers v ON v.id = c.advertiser_id
JOIN media m ON m.sha256 = c.media
LEFT JOIN LATERAL (
  SELECT revision, verdict, reason, at FROM creative_verdicts WHERE creative_id = c.id ORDER BY id DESC LIMIT 1
) last ON true
WHERE c.id = $1

-- name: judge
UPDATE creatives SET review = $2, review_reason = $3, review_key = $4, version = version + 1, updated_at = now() WHERE id = $1

-- name: waiting
SELECT count(*) AS creatives, coalesce(extract(epoch FROM now() - min(review_at)), 0)::float8 AS oldest_s
FROM creatives WHERE review = 'waiting' AND status <> 'archived'
