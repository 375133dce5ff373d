"""The serving lock of a whole service (I4)."""

import time
from pathlib import Path

import aiohttp
import pytest

from adserve import settings
from adserve.bootstrap.service import Service, start
from adserve.database.replica_lock import GRACE_S

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
