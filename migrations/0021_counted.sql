-- What an invoice was counted from is kept, so that reconciliation can count it again, whatever has come late since.

-- PostgreSQL's own transaction, which a snapshot tells to be in it or not; null of what was committed before this migration.
ALTER TABLE transactions ADD COLUMN xid xid8;
ALTER TABLE transactions ALTER COLUMN xid SET DEFAULT pg_current_xact_id();
COMMENT ON COLUMN events.transaction_id IS 'The transaction that it was charged in, or found invalid; null where it was neither';

-- What was charged from `counted_from` to the end of the month and is seen in `counted_in` stands on this invoice or on
-- earlier ones; null for invoices from before this migration.
ALTER TABLE invoices ADD COLUMN counted_from date, ADD COLUMN counted_in pg_snapshot;

-- In which snapshot drafts were made last: whoever has no invoice of the month had nothing charged in it then.
ALTER TABLE invoice_runs ADD COLUMN counted_in pg_snapshot;
