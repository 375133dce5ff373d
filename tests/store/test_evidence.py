import random
from collections.abc import Iterable
from typing import Any

import pytest
from outcome_rows import FIRST, SECOND, STAGE, assigned, outcomes, told, viewer
from world import NOW_MS, superuser

from adserve.database.pools import Pools
from adserve.domain.ramps import COMPARED, OF_EXPOSED, Evidence, Metric, Moments, Plan, Ramp, Status
from adserve.domain.ramps import Step as PlanStep
from adserve.domain.rollouts import Stage
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS, from_ms
from adserve.rollout.figures import Minute, Saved
from adserve.store import evidence
from adserve.store.evidence import gather
from adserve.store.outcomes import EVENTS_SPAN_MS

RAMP = Ramp(
    7,
    Plan("status", (PlanStep(100, 60), PlanStep(5_000, 60)), (), countries=("ID", "BR")),
    Status.RUNNING,
    0,
    NOW_MS,
    0,
    "",
)
NOTHING = Moments(0, 0, 0, 0, 0, 0)


async def seen(pools: Pools, now_ms: int = NOW_MS + MINUTE_MS) -> Evidence:
    return await gather(pools.operator, RAMP, now_ms)


def moments(pairs: Iterable[tuple[float, float]]) -> Moments:
    told = [(x, y) for x, y in pairs if y]
    return Moments(
        len(told),
        sum(x for x, _ in told),
        sum(y for _, y in told),
        sum(x * x for x, _ in told),
        sum(x * y for x, y in told),
        sum(y * y for _, y in told),
    )


async def test_of_a_step_that_has_seen_nothing_it_says_so(pools: Pools) -> None:
    told = await seen(pools)
    assert (told.exposed, told.control, told.exposed_share) == (0, 0, 0)
    assert told.compared == dict.fromkeys(COMPARED, (NOTHING, NOTHING))
    assert told.of_exposed == dict.fromkeys(OF_EXPOSED, NOTHING)
    assert told.operational == {}
    assert told.events_behind_ms == MINUTE_MS
    await outcomes(pools).count_events("status", STAGE, NOW_MS + 3 * MINUTE_MS)
    assert (await seen(pools, NOW_MS + 4 * MINUTE_MS)).events_behind_ms == 4 * MINUTE_MS - EVENTS_SPAN_MS


async def test_it_has_the_moments_of_each_arm_since_the_step_was_entered(pools: Pools) -> None:
    store, chance = outcomes(pools), random.Random(4)
    await pools.operator.execute(
        "INSERT INTO rollouts VALUES ('status', 0, 500, '{\"ID\": 7500, \"BR\": 7500}')"
    )
    await store.assign([assigned(number) for number in range(40)])
    earlier = Stage(7, 0, NOW_MS - 1)
    await store.add([told(9_999, 1, 50, 500, True, 5, stage=earlier)], NOW_MS)
    statuses: dict[int, list[tuple[int, int]]] = {number: [] for number in range(40)}
    for key in range(100):
        number, viewed, seconds = chance.randrange(30), chance.randrange(40), chance.randrange(600)
        await store.add([told(key, number, viewed, seconds, bool(viewed % 2), None)], NOW_MS)
        statuses[number].append((viewed, seconds))
    seen_now = await seen(pools)
    assert (seen_now.exposed, seen_now.control) == (20, 20)
    assert seen_now.exposed_share == pytest.approx(0.75)
    for place, odd in enumerate((True, False)):
        arm = [told for number, told in statuses.items() if number % 2 == odd]
        viewed = moments((sum(v for v, _ in told), len(told)) for told in arm)
        seconds_ = moments((sum(s for _, s in told), len(told)) for told in arm)
        returned = moments((sum(v % 2 for v, _ in told), len(told)) for told in arm)
        assert seen_now.compared[Metric.STATUSES_VIEWED][place] == viewed
        assert seen_now.compared[Metric.SESSION_SECONDS][place] == seconds_
        assert seen_now.compared[Metric.RETURNS_NEXT_DAY][place] == returned
        assert seen_now.compared[Metric.POSTS_MADE][place] == NOTHING


async def test_rates_are_those_of_exposed_viewers(pools: Pools) -> None:
    store = outcomes(pools)
    await store.assign([assigned(number) for number in range(6)])
    await store.add([told(1, 1, None, 300), told(2, 1, None, 300), told(3, 3, None, 200)], NOW_MS)
    for number, counts in ((1, (4, 1, 1, 0)), (5, (2, 0, 1, 1))):
        await pools.recorder.execute(
            "UPDATE arm_viewers SET impressions = $2, clicks = $3, hides = $4, reports = $5 WHERE viewer = $1",
            viewer(number),
            *counts,
        )
    rates = (await seen(pools)).of_exposed
    assert rates[Metric.HIDE_RATE] == moments([(1, 4), (1, 2)])
    assert rates[Metric.REPORT_RATE] == moments([(0, 4), (1, 2)])
    assert rates[Metric.CLICK_RATE] == moments([(1, 4), (0, 2)])
    assert rates[Metric.AD_LOAD] == moments([(4, 2), (0, 1)])


def minute(**counts: Any) -> Minute:
    made = Minute(**counts)
    made.decision_ms[10] = made.decisions
    return made


async def test_operational_figures_are_those_of_all_replicas_of_late(pools: Pools) -> None:
    for replica, slow in ((FIRST, 0), (SECOND, 30)):
        store = outcomes(pools, replica)
        of_late = minute(looked=400, unfilled=20, decisions=500, errors=5, paced=10, off_pace=0.5)
        of_late.decision_ms[25], of_late.feed_ms[12] = slow, 100
        old = minute(looked=9_000, unfilled=9_000, decisions=9_000, errors=9_000)
        now_ms = NOW_MS + HOUR_MS
        await store.save_minutes([Saved(7, now_ms, of_late), Saved(8, now_ms, old)])
        await store.save_minutes([Saved(7, NOW_MS, old), Saved(7, now_ms, of_late)])  # in place of itself
    figures = (await seen(pools, NOW_MS + HOUR_MS + MINUTE_MS)).operational
    assert figures[Metric.NO_FILL] == 40 / 800
    assert figures[Metric.ERRORS] == 10 / 1_000
    assert figures[Metric.SPEND_PACE] == pytest.approx(0.05)
    assert 50 < figures[Metric.DECISION_P99_MS] < 70
    assert 2.9 < figures[Metric.FEED_LATENCY_P99_MS] < 3.7
    assert Metric.CALIBRATION not in figures


async def test_clicks_are_compared_with_those_predicted_once_there_are_enough(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LEAST_SEEN", 5)
    store = outcomes(pools)
    await store.save_minutes([Saved(7, NOW_MS, minute(placed=1_000, predicted=20.0))])
    for impressions, calibration in ((200, None), (500, 1.3)):
        await pools.recorder.execute(
            "INSERT INTO arm_event_reads VALUES (7, $1, $1, $2, 13) ON CONFLICT (ramp_id, entered_at) DO UPDATE SET paid_impressions = $2",
            from_ms(NOW_MS),
            impressions,
        )
        assert (await seen(pools)).operational.get(Metric.CALIBRATION) == calibration
    assert Metric.CALIBRATION not in (await seen(pools, NOW_MS + 2 * DAY_MS)).operational


async def plan_of(connection: Any, statement: str, *values: Any) -> str:
    """Of a step among many, where each has a few parts."""
    return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))


async def test_no_question_looks_at_viewers(pools: Pools, database_url: str) -> None:
    connection = await superuser(database_url)
    await connection.execute(
        "INSERT INTO arm_sums SELECT n % 500, $1, 'exposed', 'assigned', 1, 1, 1, 1, 1, 1 FROM generate_series(1, 50000) n",
        from_ms(NOW_MS),
    )
    await connection.execute(
        "INSERT INTO ramp_minutes SELECT n % 50, $1, gen_random_uuid(), 1, 1, 1, 1, 1, 1, 1, 1, '{}', '{}' FROM generate_series(1, 5000) n",
        from_ms(NOW_MS),
    )
    await connection.execute("ANALYZE")
    moments = await plan_of(connection, evidence.SQL.moments, 7, from_ms(NOW_MS))
    window = await plan_of(connection, evidence.SQL.window, 7, from_ms(NOW_MS))
    await connection.close()
    assert "Index Scan using arm_sums" in moments or "Bitmap Index Scan on arm_sums" in moments
    assert "arm_viewers" not in moments
    assert "ramp_minutes_pkey" in window


def test_stages_are_told_apart_by_when_they_were_entered() -> None:
    assert Stage(7, 0, NOW_MS) == STAGE != Stage(7, 0, NOW_MS + 1)
