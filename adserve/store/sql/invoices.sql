-- A row of `invoices` is an advertiser's month in one currency, of `invoice_lines` a campaign's day on it.

-- name: page
SELECT id, advertiser_id, currency, month, time_zone, exponent, status, number, buyer, seller, gross_micros, invalid_micros,
       credits_micros, net_micros, total_micros, due_micros, drafted_at, issued_at, paid_at, voided_at
FROM invoices
WHERE id > $1
  AND ($3::bigint IS NULL OR advertiser_id = $3)
  AND ($4::text IS NULL OR currency = $4)
  AND ($5::text IS NULL OR status = $5)
  AND ($6::date IS NULL OR month = $6)
ORDER BY id LIMIT $2

-- name: one
SELECT id, advertiser_id, currency, month, time_zone, exponent, status, number, buyer, seller, gross_micros, invalid_micros,
       credits_micros, net_micros, total_micros, due_micros, drafted_at, issued_at, paid_at, voided_at
FROM invoices WHERE id = $1

-- name: lines
SELECT l.line, l.campaign_id, l.campaign, l.day, l.unit, l.corrects, c.number AS corrects_number, l.quantity, l.invalid,
       l.gross_micros, l.invalid_micros, l.credits_micros, l.net_micros, l.total_micros
FROM invoice_lines l LEFT JOIN invoices c ON c.id = l.corrects
WHERE l.invoice_id = $1 ORDER BY l.line

-- name: issue
SELECT issue_invoice($1, $2, $3, $4)

-- name: void
SELECT void_invoice($1, $2)

-- name: pay
SELECT pay_invoice($1, $2)

-- name: due_runs
SELECT time_zone, month FROM due_invoice_runs($1, $2)

-- name: draft
SELECT draft_invoices($1, $2, $3)

-- name: take_time
SET LOCAL statement_timeout = '1h'

-- name: invoiced
SELECT EXISTS (SELECT FROM invoices WHERE advertiser_id = $1)
