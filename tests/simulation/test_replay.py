from collections.abc import Callable

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from service_twin import PRICE_MICROS, ServiceTwin

from adserve.domain.slots import Context
from adserve.simulation.caller import Caller, CallRefused
from adserve.simulation.clock import VirtualClock
from adserve.simulation.logs import Columns, LogMapping, Malformed, Row
from adserve.simulation.replay import DAY_MAY_BEGIN_EVERY_MS, STEP_EVERY_MS, STEP_EVERY_ROWS, Replay
from adserve.simulation.report import Tally

START_MS = 1_499_040_000_000  # 2017-07-03T00:00:00Z
MAPPING = LogMapping(Columns("at", "%s", "campaign", "click"))
CAMPAIGNS = {1: "one", 2: "two"}


def row(after_ms: int, *, viewer: str = "v", campaign: str = "one", clicked: bool = False) -> Row:
    return Row(2, START_MS + after_ms, viewer, campaign, clicked, Context(country="ID"), None, 1_000)


async def replayed(
    rows: list[Row], *, campaigns: list[int] | None = None, stopped: Callable[[], bool] = lambda: False
) -> tuple[ServiceTwin, Tally]:
    clock, tally = VirtualClock(START_MS), Tally()
    twin = ServiceTwin(clock, campaigns or [1])
    async with TestServer(twin.app) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, str(server.make_url("")).rstrip("/"), "key")
        replay = Replay(caller, clock, twin.step, MAPPING, CAMPAIGNS, "status")
        await replay.run(rows, tally, lambda _: None, stopped)
    return twin, tally


async def test_each_row_asks_at_its_own_moment_and_its_ad_is_reported_when_the_second_is_over() -> None:
    twin, tally = await replayed([row(0), row(400), row(1_000)])
    assert [at - START_MS for at, _ in twin.asked] == [0, 400, 1_000]
    assert [at - START_MS for at, _ in twin.reported] == [1_000, 1_000, 2_000]
    assert tally.placed == 3
    assert tally.billed_micros == {1: 3 * PRICE_MICROS}


async def test_a_request_tells_what_the_row_tells() -> None:
    twin, _ = await replayed([row(0, viewer="u-7")])
    (_, body), *_ = twin.asked
    assert body["viewer"] == "u-7"
    assert body["context"]["country"] == "ID"
    assert body["floor"] == {"micros": 1_000, "currency": "USD"}
    assert body["consent"] == {"personalised": True}


@pytest.mark.parametrize(("served", "clicks"), [(1, 1), (2, 0)])
async def test_a_click_happens_when_the_ad_is_that_of_the_log(served: int, clicks: int) -> None:
    twin, tally = await replayed([row(0, clicked=True)], campaigns=[served])
    assert [event["kind"] for _, event in twin.reported].count("click") == clicks
    assert tally.events["click", "unbilled_kind"] == clicks


async def test_a_row_that_the_service_refuses_is_named_and_passed_over() -> None:
    _, tally = await replayed([row(0, viewer="hostile"), row(1)])
    assert [type(one) for one in tally.malformed] == [Malformed]
    assert tally.malformed[0].line == 2
    assert "no such viewer" in tally.malformed[0].reason
    assert tally.requests == 1


async def test_who_is_out_of_the_rollout_is_not_counted_in_it() -> None:
    _, tally = await replayed([row(0, viewer="unknown"), row(1)])
    assert (tally.requests, tally.in_rollout(), tally.placed) == (2, 1, 1)


async def test_it_stops_between_two_seconds_with_everything_reported() -> None:
    seconds = iter([False, True])
    twin, tally = await replayed([row(0), row(5_000)], stopped=lambda: next(seconds))
    assert tally.requests == 1
    assert len(twin.reported) == 1


async def test_the_service_steps_as_time_passes_as_rows_come_and_when_a_day_may_begin() -> None:
    rows = [row(0), row(STEP_EVERY_MS + 1_000)]
    rows += [row(STEP_EVERY_MS + 2_000 + number) for number in range(STEP_EVERY_ROWS)]
    rows += [row(DAY_MAY_BEGIN_EVERY_MS - 2_000), row(DAY_MAY_BEGIN_EVERY_MS)]
    twin, _ = await replayed(rows)
    steps = [at - START_MS for at in twin.steps]
    assert steps == [
        STEP_EVERY_MS + 1_000,
        STEP_EVERY_MS + 2_009,
        DAY_MAY_BEGIN_EVERY_MS - 2_000,
        DAY_MAY_BEGIN_EVERY_MS,
    ]


async def test_a_fault_of_the_service_is_no_row_s_fault() -> None:
    clock = VirtualClock(START_MS)
    twin = ServiceTwin(clock, [])
    async with TestServer(twin.app) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, str(server.make_url("")).rstrip("/"), "key")
        replay = Replay(caller, clock, twin.step, MAPPING, CAMPAIGNS, "status")
        with pytest.raises(CallRefused, match="500"):
            await replay.run([row(0)], Tally(), lambda _: None, lambda: False)
