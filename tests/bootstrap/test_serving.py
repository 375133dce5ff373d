"""The serving lock of a whole service (I4)."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from waiting import until

from adserve import settings
from adserve.api.health import Part
from adserve.background import LONG_S, Background, Failure
from adserve.bootstrap.core import Core
from adserve.bootstrap.edge import tasks_part
from adserve.bootstrap.service import Service, bound, start
from adserve.database.replica_lock import GRACE_S, ServingLock

SET_BACK_S = 400
S_NS = 1_000_000_000


async def serves(service: Service) -> tuple[bool, bool]:
    """As /readyz says, and as events are judged by."""
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/readyz") as answer:
        told: bool = (await answer.json())["parts"]["serving lock"]["ok"]
    return told, service.core.intake._may_serve()


async def test_a_clock_that_is_set_back_gives_a_process_without_the_lock_no_more_time(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_ns, steady_ns = time.time_ns, time.clock_gettime_ns
    service = await start(settings.load(data_home=str(tmp_path), port=0), database_url, background=False)
    try:
        await service._runners.stop()  # nobody says any more that we live
        monkeypatch.setattr(time, "time_ns", lambda: set_ns() - SET_BACK_S * S_NS)
        serving = [await serves(service)]
        monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: steady_ns(clock) + round(GRACE_S) * S_NS)
        serving.append(await serves(service))
    finally:
        await service.stop()
    assert serving == [(True, True), (False, False)]


async def test_a_start_that_fails_leaves_nothing_behind_that_would_take_the_lock_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections may take minutes to close. All that time it would keep the next start waiting."""

    async def fail(core: Core, _now_ms: int) -> None:
        await core.filling.done.wait()
        raise ConnectionError("away")

    left: list[set[asyncio.Task[Any]]] = []
    before, release = asyncio.all_tasks(), ServingLock.release

    async def note_and_release(lock: ServingLock) -> None:
        left.append(asyncio.all_tasks() - before)
        await release(lock)

    monkeypatch.setattr(Core, "ensure_partitions", fail)
    monkeypatch.setattr(ServingLock, "release", note_and_release)
    with pytest.raises(ConnectionError, match="away"):
        await start(settings.load(data_home=str(tmp_path), port=0), database_url)
    assert left == [set()]


async def failing(service: Service, task: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Any]:
    """What /readyz says once a task fails and its loop has noticed."""
    (broken,) = [each for each in service._tasks if each.name == task]

    async def fail(_now_ms: int) -> None:
        raise KeyError(task)

    background = Background([broken._replace(step=fail, every_s=0.01, wake=None)], service.core.clock)
    monkeypatch.setattr(service, "_periodic", background)
    background.start()
    async with aiohttp.ClientSession() as session:

        async def answer() -> tuple[int, Any]:
            async with session.get(f"{service.url}/readyz") as reply:
                return reply.status, (await reply.json())["parts"]["tasks"]

        async def noticed() -> bool:
            _, part = await answer()
            return task in part["detail"] and not part["ok"]

        await until(noticed)
        told = await answer()
    await background.stop()
    return told


async def test_a_task_that_fails_for_long_shows_and_only_one_that_is_needed_makes_the_replica_unready(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adserve.bootstrap.edge.LONG_S", 0.1)
    service = await start(settings.load(data_home=str(tmp_path), port=0), database_url, background=False)
    try:
        status, part = await failing(service, "old decisions", monkeypatch)
        assert (status, part["needed"], "KeyError: 'old decisions'" in part["detail"]) == (200, False, True)
        status, part = await failing(service, "leases", monkeypatch)
        assert (status, part["needed"], "KeyError: 'leases'" in part["detail"]) == (503, True, True)
    finally:
        await service.stop()


def test_a_task_that_fails_for_a_moment_is_named_and_nothing_else() -> None:
    away = Failure("Away: gone", True, 0, LONG_S)
    assert tasks_part({"leases": away}) == Part(True, "leases: Away: gone (for 300 s)", needed=False)
    assert not tasks_part({"leases": away._replace(last_s=LONG_S + 1)}).ok


async def test_of_two_that_start_on_one_port_at_once_the_later_one_says_so(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may bind it as long as neither listens."""
    first = bound(settings.load(port=0))
    ensure = Core.ensure_partitions

    async def listen_first(core: Core, now_ms: int) -> None:
        first.listen()
        await ensure(core, now_ms)

    monkeypatch.setattr(Core, "ensure_partitions", listen_first)
    with first, pytest.raises(settings.SettingsError, match=r"cannot listen on .*: Address already in use"):
        await start(settings.load(data_home=str(tmp_path), port=first.getsockname()[1]), database_url)
