-- A row is a machine's spool: everything that its processes received before `settled_until` is in the ledger. A lease stays open
-- until all of them have said so of the moment when it is due.
CREATE TABLE spools (
  id             uuid PRIMARY KEY,
  settled_until  timestamptz NOT NULL,
  heard_at       timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON spools TO adserve_recorder;
GRANT SELECT ON spools TO adserve_operator;
