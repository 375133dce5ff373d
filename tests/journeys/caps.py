"""Whether caps held, asked of the events without anything of ours."""

import asyncpg

CAP = "campaign:1/86400"
DAY_S = 86_400

_TOO_SOON = """
SELECT count(*) FROM (
  SELECT e.received_at - lag(e.received_at) OVER (PARTITION BY v.viewer, e.campaign_id ORDER BY e.received_at) AS since
  FROM events e JOIN viewer_caps v ON v.issued_day = e.issued_day AND v.ticket_id = e.ticket_id
  WHERE e.kind = 'impression' AND e.outcome IN ('recorded', 'unbilled_kind', 'over_budget', 'invalid_traffic')
) AS shown WHERE since < make_interval(secs => $1)
"""


async def shown_too_soon(database: asyncpg.Connection, window_s: int = DAY_S) -> int:
    """How many impressions of a campaign came less than a window after the viewer's one before."""
    count: int = await database.fetchval(_TOO_SOON, window_s)
    return count


async def billed_twice(database: asyncpg.Connection) -> int:
    count: int = await database.fetchval(
        "SELECT count(*) FROM (SELECT FROM events WHERE billed_micros > 0 GROUP BY ticket_id HAVING count(*) > 1) AS twice"
    )
    return count
