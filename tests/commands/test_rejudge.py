import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace
from world import PRICE_MICROS, World, make_world

from adserve.__main__ import main
from adserve.database.pools import Pools
from adserve.domain.events import Event
from adserve.domain.traffic import Origin, Verdict

DAYS = ("--from", "2026-01-01", "--to", "2026-01-02")


def hosted(world: World, lease: int) -> Event:
    origin = Origin(network="52.95.110.0/24", address=b"a" * 16)
    return replace(world.event(world.ticket(lease)), verdict=Verdict(None, 1, origin))


async def test_it_credits_once_and_says_how_far_it_is(
    pools: Pools,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    networks = tmp_path / "networks"
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    monkeypatch.setenv("ADSERVE_NETWORKS_PATH", str(networks))
    world = await make_world(pools)
    lease = await world.lease(100_000)
    await world.journal.settle([hosted(world, lease), world.event(world.ticket(lease))])

    async def rejudge(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["rejudge", *DAYS, *arguments])
        return code, *capsys.readouterr()

    code, _, said = await rejudge()
    assert (code, said.count("networks_path: ")) == (2, 1)
    await asyncio.to_thread(networks.write_text, "52.95.110.0/24\n")
    code, out, _ = await rejudge("--dry-run")
    assert (code, out) == (0, "2 events judged, 1 of 2 charged ones are invalid; nothing was written\n")
    code, out, said = await rejudge()
    assert out.endswith(f"version 1: 1 new findings, 1 credits of {PRICE_MICROS:,} micros\n")
    assert len(said.splitlines()) == 48
    assert "2026-01-01 13:00: 2 events judged, 1 charged ones are invalid" in said
    code, out, _ = await rejudge()
    assert out.endswith("version 1: 0 new findings, 0 credits of 0 micros\n")


@pytest.mark.parametrize(
    "days", [("2026-01-02", "2026-01-01"), ("2026-02-30", "2026-03-01"), ("today", "now")]
)
def test_days_that_cannot_be_are_a_usage_error(
    days: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["rejudge", "--from", days[0], "--to", days[1]])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert "--" in capsys.readouterr().err
