"""What the demo's crowd says it was told, against SQL of the test's own."""

import json

from commands_run import Adserve, Kept

VIEWERS = 60


async def test_a_crowd_goes_through_and_every_sum_agrees_with_the_database(
    adserve: Adserve, kept: Kept
) -> None:
    ended = adserve("demo", "--once", "--json", "--keep", "--viewers", VIEWERS)
    assert ended.code == 0, ended.said
    summary = json.loads(ended.out.splitlines()[-1])
    assert summary["reconciliation"] == "exact"
    assert summary["feeds"] == 2 * VIEWERS
    assert summary["requests"] >= VIEWERS
    assert {"duplicate", "late", "over_cap", "recorded", "refused", "unbilled_kind"} <= summary[
        "events"
    ].keys()
    assert {"holdout", "not_in_rollout"} <= summary["no_fill"].keys()
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]

    database = await kept(ended)
    stored = dict(await database.fetch("SELECT outcome, count(*) FROM events GROUP BY 1"))
    told = {
        outcome: count
        for outcome, count in summary["events"].items()
        if outcome not in ("duplicate", "refused")
    }
    assert stored == told
    billed = dict(
        await database.fetch(
            "SELECT c.name, sum(e.billed_micros)::bigint FROM events e JOIN campaigns c ON c.id = e.campaign_id "
            "GROUP BY 1 HAVING sum(e.billed_micros) > 0"
        )
    )
    assert billed == summary["billed_micros"]
    revenue = await database.fetchval(
        "SELECT sum(p.micros)::bigint FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = 'revenue'"
    )
    assert revenue == sum(billed.values())
