"""Credits as far as traffic needs them, and a broken twin of what issues them."""

import asyncpg

OWN = """
SET ROLE adserve_owner;
CREATE TABLE credits (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, issued_day date, ticket_id uuid, kind text, micros bigint CHECK (micros > 0),
  reason text, rules_version integer, at timestamptz, UNIQUE (issued_day, ticket_id, kind, reason));
CREATE FUNCTION issue_credit(
  p_issued_day date, p_ticket_id uuid, p_kind text, p_reason text, p_micros bigint, p_rules_version integer, p_at timestamptz
) RETURNS bigint LANGUAGE sql AS $$
  INSERT INTO credits (issued_day, ticket_id, kind, micros, reason, rules_version, at)
  SELECT p_issued_day, p_ticket_id, p_kind, coalesce(p_micros, billed_micros), p_reason, p_rules_version, p_at FROM events
  WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind ON CONFLICT DO NOTHING RETURNING id
$$;
GRANT SELECT ON credits TO adserve_analyst;
RESET ROLE;
"""

TWICE = """
SET ROLE adserve_owner;
ALTER TABLE credits DROP CONSTRAINT credits_issued_day_ticket_id_kind_reason_key;
CREATE OR REPLACE FUNCTION issue_credit(
  p_issued_day date, p_ticket_id uuid, p_kind text, p_reason text, p_micros bigint, p_rules_version integer, p_at timestamptz
) RETURNS bigint LANGUAGE sql AS $$
  INSERT INTO credits (issued_day, ticket_id, kind, micros, reason, rules_version, at)
  SELECT p_issued_day, p_ticket_id, p_kind, billed_micros, p_reason, p_rules_version, p_at FROM events
  WHERE issued_day = p_issued_day AND ticket_id = p_ticket_id AND kind = p_kind RETURNING id
$$;
RESET ROLE;
"""


async def furnish_credits(owner: asyncpg.Connection) -> None:
    if await owner.fetchval("SELECT to_regclass('adserve.credits')") is None:
        await owner.execute(OWN)
