import asyncio
import random
import re
import secrets
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from outcome_rows import FIRST, SCAN, SECOND, STAGE, SUMS, assigned, outcomes, told, viewer
from world import NOW_MS, World, superuser

from adserve.database.pools import Pools
from adserve.domain.events import Outcome
from adserve.domain.rollouts import Stage
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, from_ms
from adserve.store.errors import Away
from adserve.store.outcomes import EVENTS_LAG_MS, EVENTS_SPAN_MS, IDS_KEPT_MS, SQL, Outcomes, Told
from adserve.store.spools import Spools

LATER = Stage(7, 1, NOW_MS + HOUR_MS)
READ_MS = NOW_MS + EVENTS_LAG_MS + 2 * SECOND_MS


async def rows(pools: Pools, what: str = "*", stage: Stage = STAGE) -> list[Any]:
    query = f"SELECT {what} FROM arm_viewers WHERE ramp_id = $1 AND entered_at = $2 ORDER BY viewer"
    return [tuple(row) for row in await pools.recorder.fetch(query, stage.ramp, from_ms(stage.since_ms))]


async def sums_are_true(pools: Pools, stage: Stage = STAGE) -> bool:
    """Whether the arms' moments are what the viewers' rows add up to."""
    key = stage.ramp, from_ms(stage.since_ms)
    scanned, kept = [
        {tuple(row) for row in await pools.recorder.fetch(query, *key)} for query in (SCAN, SUMS)
    ]
    assert scanned
    return scanned == kept


async def test_each_viewer_is_assigned_once_and_stays_in_their_arm(pools: Pools) -> None:
    store = outcomes(pools)
    await store.assign([assigned(1), assigned(2), assigned(1)])
    await store.assign([assigned(2), assigned(3)])
    moved = assigned(2)._replace(standing=assigned(1).standing)
    await store.assign([moved])
    assert await rows(pools, "arm") == [("exposed",), ("control",), ("exposed",)]
    assert await sums_are_true(pools)


async def test_what_is_told_adds_up_by_viewer_and_what_is_not_told_is_not_nothing(pools: Pools) -> None:
    store = outcomes(pools)
    await store.assign([assigned(1)])
    new = await store.add([told(1, 1, 20, 300), told(2, 1, 10), told(3, 2, None, None, True, 2)], NOW_MS)
    assert len(new) == 3
    await store.add([told(4, 2, None, None, False)], NOW_MS)
    sums = "statuses_viewed, statuses_told, session_seconds, sessions_told, returned, returns_told, posts_made, posts_told"
    assert await rows(pools, sums) == [(30, 2, 300, 1, 0, 0, 0, 0), (0, 0, 0, 0, 1, 2, 2, 1)]
    assert await sums_are_true(pools)


class Credulous(Outcomes):
    """A broken twin: looks whether an id came before, and then writes."""

    known: frozenset[bytes] = frozenset()

    async def _add(self, told: Sequence[Told], now_ms: int) -> set[bytes]:
        new = [each for each in told if each.key not in self.known]
        await asyncio.sleep(0.01)
        await super()._add([each._replace(key=secrets.token_bytes(16)) for each in new], now_ms)
        self.known |= {each.key for each in new}
        return {each.key for each in new}


async def counted(store: Outcomes, pools: Pools) -> int:
    """How often one outcome counts that is told by many at once, and later again."""
    batch = [told(number, number, 1) for number in range(1, 30)]
    await asyncio.gather(*(store.add(random.Random(seed).sample(batch, 29), NOW_MS) for seed in range(8)))
    assert await store.add(batch, NOW_MS + DAY_MS) == set()
    return max(statuses for (statuses,) in await rows(pools, "statuses_viewed"))


async def test_an_outcome_counts_once_however_often_and_at_once_it_is_told(pools: Pools) -> None:
    assert await counted(outcomes(pools), pools) == 1
    assert await sums_are_true(pools)


async def test_control_looking_before_writing_counts_twice(pools: Pools) -> None:
    assert await counted(Credulous(pools.recorder, FIRST), pools) > 1


async def test_the_moments_follow_the_rows_whatever_happens_at_once(pools: Pools) -> None:
    """Writers of the same viewers in any order, erasures and compactions, with two processes."""
    stores = outcomes(pools), outcomes(pools, SECOND)

    async def live(seed: int) -> None:
        chance, store = random.Random(seed), stores[seed % 2]
        for nth in range(12):
            some = [chance.randrange(1, 60) for _ in range(20)]
            match chance.randrange(5):
                case 0:
                    await store.assign([assigned(number) for number in some])
                case 1:
                    await store.erase([viewer(number) for number in some[:3]])
                case 2:
                    await store.compact()
                case _:
                    keys = iter(range(seed * 100_000 + nth * 1_000, 1 << 40))
                    batch = [
                        told(next(keys), number, chance.randrange(9), chance.randrange(600))
                        for number in some
                    ]
                    assert len(await store.add(batch, NOW_MS)) == 20

    await asyncio.gather(*(live(seed) for seed in range(8)))
    assert await sums_are_true(pools)
    await stores[0].compact()
    assert await sums_are_true(pools)
    metrics = await pools.recorder.fetch("SELECT count(*) FROM arm_sums GROUP BY arm, metric")
    assert {count for (count,) in metrics} == {1}


async def test_parts_that_cancel_out_but_for_their_squares_are_kept(pools: Pools) -> None:
    """The rest of the arm's parts may be beyond what is compacted at once."""
    await pools.recorder.executemany(
        "INSERT INTO arm_sums VALUES (7, $1, 'exposed', 'statuses', $2, $3, 0, $4, 0, 0)",
        [(from_ms(NOW_MS), 2, 4, 10), (from_ms(NOW_MS), -2, -4, -8)],
    )
    await outcomes(pools).compact()
    assert await pools.recorder.fetch("SELECT viewers, x, xx FROM arm_sums") == [(0, 0, 2)]


async def test_control_a_lost_trigger_is_noticed(pools: Pools, database_url: str) -> None:
    store = outcomes(pools)
    await store.add([told(1, 1, 20, 300)], NOW_MS)
    connection = await superuser(database_url)
    await connection.execute("ALTER TABLE arm_viewers DISABLE TRIGGER updated")
    await connection.close()
    await store.add([told(2, 1, 20, 300)], NOW_MS)
    assert not await sums_are_true(pools)


async def shown(world: World, number: int, kind: str = "impression", **facts: Any) -> None:
    """An event of an ad that a viewer was shown, received a second after NOW_MS."""
    billed = kind == facts.get("billable", "impression")
    outcome = facts.pop("outcome", Outcome.RECORDED if billed else Outcome.UNBILLED_KIND)
    lease = await world.lease(100_000)
    ticket = world.ticket(lease, viewer_cap=viewer(number), **facts)
    await world.journal.settle([world.event(ticket, kind, outcome)])


async def test_what_came_of_ads_is_counted_once_among_the_exposed_of_the_step(
    pools: Pools, world: World
) -> None:
    store, other = outcomes(pools), outcomes(pools, SECOND)
    await store.assign([assigned(1), assigned(2), assigned(3)])
    for kind in ("impression", "impression", "click", "hide", "report"):
        await shown(world, 1, kind)
    await shown(world, 1, bid_model="cpc", billable="click")
    await shown(world, 1, "click", bid_model="cpc", billable="click")
    await shown(world, 2, bid_model="cpc", billable="click")
    await shown(world, 2)  # of the control: saw ads by some other way
    await shown(world, 5)  # nobody who is known
    await shown(world, 3, issued_at_ms=NOW_MS - 1)
    await shown(world, 3, arm="none")
    await shown(world, 3, surface="stories")
    await shown(world, 3, outcome=Outcome.LATE)
    await asyncio.gather(*(each.count_events("status", STAGE, READ_MS) for each in (store, other)))
    await store.count_events("status", STAGE, READ_MS + SECOND_MS)
    figures = "impressions, clicks, hides, reports"
    assert await rows(pools, figures) == [(3, 2, 1, 1), (0, 0, 0, 0), (0, 0, 0, 0)]
    paid = await pools.recorder.fetch("SELECT paid_impressions, paid_clicks FROM arm_event_reads")
    assert [tuple(row) for row in paid] == [(1, 1)]
    assert await sums_are_true(pools)


async def test_events_wait_until_their_batches_have_committed_and_are_caught_up_with_bit_by_bit(
    pools: Pools, world: World
) -> None:
    store, early = outcomes(pools), Stage(7, 0, NOW_MS - EVENTS_SPAN_MS)
    await store.assign([assigned(1, early)])
    await shown(world, 1)
    await store.count_events("status", early, NOW_MS + EVENTS_LAG_MS)
    assert await rows(pools, "impressions", early) == [(0,)]
    await store.count_events("status", early, READ_MS)
    assert await rows(pools, "impressions", early) == [(1,)]


async def test_events_are_counted_once_what_was_spooled_before_them_has_settled(
    pools: Pools, world: World
) -> None:
    store, spools, later_ms = outcomes(pools), Spools(pools.recorder), READ_MS + HOUR_MS
    await store.assign([assigned(1)])
    await spools.note(FIRST, NOW_MS, later_ms)
    await store.count_events("status", STAGE, later_ms)
    await shown(world, 1)  # it settles after an hour
    await spools.note(FIRST, later_ms, later_ms)
    await store.count_events("status", STAGE, later_ms)
    assert await rows(pools, "impressions") == [(1,)]


async def test_a_spool_that_is_silent_is_waited_for_only_while_all_are(pools: Pools, world: World) -> None:
    store, spools, later_ms = outcomes(pools), Spools(pools.recorder), READ_MS + HOUR_MS
    await store.assign([assigned(1)])
    await shown(world, 1)
    await spools.note(FIRST, NOW_MS, NOW_MS)
    await store.count_events("status", STAGE, later_ms)
    assert await rows(pools, "impressions") == [(0,)], "nobody was heard: the database was away"
    await spools.note(SECOND, later_ms, later_ms)
    await store.count_events("status", STAGE, later_ms)
    assert await rows(pools, "impressions") == [(1,)]


async def test_an_erased_viewer_leaves_no_row_and_no_part_in_the_moments(pools: Pools) -> None:
    store = outcomes(pools)
    for stage in (STAGE, LATER):
        await store.assign([assigned(1, stage), assigned(2, stage)])
    await store.add([told(1, 1, 20, 300), told(2, 2, 10)], NOW_MS)
    assert [held["arm"] for held in await store.held(viewer(1))] == ["exposed", "exposed"]
    await store.erase([viewer(1)])
    assert await store.held(viewer(1)) == []
    assert await rows(pools, "arm") == await rows(pools, "arm", LATER) == [("control",)]
    assert await sums_are_true(pools)
    assert await sums_are_true(pools, LATER)


async def test_what_is_old_is_forgotten(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adserve.store.outcomes.FORGET_AT_ONCE", 2)
    store = outcomes(pools)
    await store.assign([assigned(number) for number in range(5)])
    await store.add([told(1, 9, 20)], NOW_MS + HOUR_MS)
    await store.forget(NOW_MS + 1, NOW_MS + HOUR_MS)
    assert await rows(pools, "viewer") == [(viewer(9),)]
    assert await sums_are_true(pools)
    count = "SELECT count(*) FROM outcome_ids"
    assert await pools.recorder.fetchval(count) == 1
    await store.forget(NOW_MS, NOW_MS + 2 * HOUR_MS + IDS_KEPT_MS)
    assert await pools.recorder.fetchval(count) == 0


async def test_without_the_database_it_says_so(pools: Pools) -> None:
    store = outcomes(pools)
    await pools.recorder.close()
    for asked in (store.assign([assigned(1)]), store.add([told(1, 1, 20)], NOW_MS), store.compact()):
        with pytest.raises(Away):
            await asked


async def test_events_are_found_by_when_they_came_and_viewers_by_their_ticket(
    pools: Pools, world: World, database_url: str
) -> None:
    """Of some thousand events and viewers, those of a few seconds."""
    store, lease = outcomes(pools), await world.lease(100_000_000)
    await store.assign([assigned(2 * number + 1) for number in range(3_000)])
    for first in range(0, 3_000, 500):
        events = [
            replace(
                world.event(world.ticket(lease, viewer_cap=viewer(2 * number + 1))),
                received_at_ms=NOW_MS + number * SECOND_MS,
            )
            for number in range(first, first + 500)
        ]
        await world.journal.settle(events)
    connection = await superuser(database_url)
    await connection.execute("ANALYZE")
    lines = await connection.fetch(
        f"EXPLAIN {SQL.count_events}",
        *(
            7,
            from_ms(NOW_MS),
            "status",
            from_ms(NOW_MS + 2 * MINUTE_MS),
            from_ms(NOW_MS + 2 * MINUTE_MS + 9_999),
        ),
    )
    await connection.close()
    plan = "\n".join(line for (line,) in lines)
    assert re.search(r"events_\w+_received_at", plan), plan
    assert not re.search(r"Seq Scan on (events|viewer_caps|arm_viewers)", plan), plan
