"""Many impressions through kills and lost answers: what was acknowledged is there, once, and billed to the micro."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median

import aiohttp
import pytest
from flood import SURELY_LOST_S, Flood, amid
from live import calling
from proxy import Proxy
from sizes import SHARE, record, sized, whole_run
from stacked import Stack, stacked
from traffic import books, early_front, keyless_twin

pytestmark = [whole_run, pytest.mark.slow]

KILLED_IMPRESSIONS = sized(1_000_000, 3_000)
SERVICE_KILLS = sized(50, 1)
POSTGRES_KILLS = sized(20, 1)
SERVICE_BACK_S = 5.0
POSTGRES_BACK_S = 30.0
BUSY = 1 if SHARE else 6
"""Other tests run beside the small ones, so that a start takes longer."""
DROPPED_IMPRESSIONS = sized(100_000, 2_000)
DROPS = 0.3
CONTROL_IMPRESSIONS = sized(20_000, 600)
REPLAYS = 1_000


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    with stacked(home) as made:
        yield made


@pytest.fixture
async def flood(stack: Stack) -> AsyncIterator[Flood]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=False)) as session:
        flood = Flood(session, stack.live.url, stack.keys["feed"], stack.name_of, random.Random(1))
        yield flood
        stack.known |= flood.sent


async def test_nothing_acknowledged_is_lost_or_twice_through_kills(flood: Flood, stack: Stack) -> None:
    service_s: list[float] = []
    service_cpu_s: list[float] = []
    postgres_s: list[float] = []

    async def kill_service() -> None:
        before = flood.unanswered
        service_s.append(await stack.kill_service())
        assert flood.unanswered > before
        service_cpu_s.append(stack.live.cpu_s)

    async def kill_postgres() -> None:
        before = flood.disturbed
        postgres_s.append(await stack.kill_postgres())
        assert flood.disturbed > before

    faults = [kill_service] * SERVICE_KILLS + [kill_postgres] * POSTGRES_KILLS
    random.Random(2).shuffle(faults)
    await amid(flood, KILLED_IMPRESSIONS, faults)
    verdict = await flood.verdict(stack.server.url, stack.known)
    record(
        "kill -9 of the service and of PostgreSQL",
        rounds=len(service_s) + len(postgres_s),
        planned=len(faults),
        service_kills=len(service_s),
        postgres_kills=len(postgres_s),
        service_back_s_max=round(max(service_s), 2),
        service_back_s_median=round(median(service_s), 2),
        service_back_cpu_s_max=round(max(service_cpu_s), 2),
        postgres_back_s_max=round(max(postgres_s), 2),
        postgres_back_s_median=round(median(postgres_s), 2),
        sent=len(flood.sent),
        calls_without_answer=flood.unanswered,
        **verdict._asdict(),
    )
    assert verdict.clean, verdict
    assert verdict.acknowledged == verdict.stored == len(flood.sent)
    assert (await books(stack.server.url)).exact
    assert max(service_s) < SERVICE_BACK_S * BUSY
    assert max(postgres_s) < POSTGRES_BACK_S * BUSY


async def test_control_a_front_that_answers_early_loses_through_a_kill(flood: Flood, stack: Stack) -> None:

    async def kill_service() -> None:
        await stack.kill_service()

    async with early_front(stack.live.url) as url:
        flood.events_url = url
        await amid(flood, CONTROL_IMPRESSIONS, [kill_service])
    verdict = await flood.verdict(stack.server.url, stack.known, SURELY_LOST_S)
    record("kill -9 of the service and of PostgreSQL", control_lost=verdict.lost)
    assert verdict.lost > 0


async def test_nothing_is_lost_or_twice_where_answers_are_dropped(flood: Flood, stack: Stack) -> None:
    async with Proxy(stack.live.port, random.Random(3)).running() as proxy:
        proxy.drops = DROPS
        flood.url, flood.goal = f"http://127.0.0.1:{proxy.port}", DROPPED_IMPRESSIONS
        await flood.run()
        assert proxy.dropped > 0
        dropped = proxy.dropped
    verdict = await flood.verdict(stack.server.url, stack.known)
    record("answers dropped", rounds=1, drop_share=DROPS, answers_dropped=dropped, **verdict._asdict())
    assert verdict.clean, verdict
    assert (await books(stack.server.url)).exact


async def test_control_a_ledger_without_a_key_has_some_twice_where_answers_are_dropped(flood: Flood) -> None:
    async with keyless_twin() as (port, tickets), Proxy(port, random.Random(3)).running() as proxy:
        proxy.drops = DROPS
        flood.events_url, flood.goal = f"http://127.0.0.1:{proxy.port}", CONTROL_IMPRESSIONS
        await flood.run()
    twice = len(tickets) - len(set(tickets))
    record("answers dropped", control_twice=twice)
    assert twice > 0


async def replayed(url: str, key: str, ticket: str) -> list[str]:
    """What all of them were answered, sent at once: one a call, and then all in one call."""
    headers = {"Authorization": f"Bearer {key}"}
    event = {"ticket": ticket, "kind": "impression"}

    async def report(events: list[dict[str, str]]) -> list[str]:
        async with session.post(f"{url}/v1/events", json={"events": events}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return [result["outcome"] for result in (await answer.json())["results"]]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        answers = await asyncio.gather(*(report([event]) for _ in range(REPLAYS)))
        return [outcome for outcomes in answers for outcome in outcomes] + await report([event] * REPLAYS)


async def test_a_ticket_replayed_a_thousand_times_at_once_is_billed_once(stack: Stack) -> None:
    async with calling(stack.live, stack.keys) as caller:
        (ticket, *_) = await caller.tickets("replayed")
        outcomes = await replayed(stack.live.url, stack.keys["feed"], ticket)
        (kept,) = (await caller.call("GET", f"/v1/events/{ticket}", key="feed")).body["events"]
    async with keyless_twin() as (port, tickets):
        await replayed(f"http://127.0.0.1:{port}", "", ticket)
    record(
        "one ticket a thousand times at once",
        rounds=1,
        acknowledged=len(outcomes),
        twice=outcomes.count("recorded") - 1,
        control_twice=len(tickets) - 1,
    )
    assert outcomes.count("recorded") == 1
    assert set(outcomes) == {"recorded", "duplicate"}
    assert kept["outcome"] == "recorded"
    assert len(tickets) - 1 > 0
