import asyncio
import json

import pytest
from world import PRICE_MICROS, make_world, superuser

from adserve.__main__ import main
from adserve.database.pools import Pools


async def test_it_exits_with_1_and_names_the_difference(
    pools: Pools, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    world = await make_world(pools)
    lease = await world.lease(10_000)
    await world.journal.settle([world.event(world.ticket(lease))])
    assert await asyncio.to_thread(main, ["reconcile"]) == 0
    assert "all exact" in capsys.readouterr().out
    owner = await superuser(database_url)
    await owner.execute("UPDATE leases SET captured_micros = captured_micros + 1")
    await owner.close()
    assert await asyncio.to_thread(main, ["reconcile", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["billed_micros"] == {"USD": PRICE_MICROS}
    assert [found["check"] for found in answer["differences"]] == ["lease captures"]
    assert await asyncio.to_thread(main, ["reconcile"]) == 1
    assert "off by 1" in capsys.readouterr().out
