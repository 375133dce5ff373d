"""How much of each surface's audience sees ads, and the switch that beats every percent."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adserve.domain.rollouts import SurfaceRollout
from adserve.store.desk import Connection
from adserve.store.errors import Contradiction
from adserve.store.statements import load

SQL = load("rollouts")

APPLIED_WITHIN_S = 1.0
APPLIED_POLL_S = 0.02

NOBODY = SurfaceRollout()


class Applied(NamedTuple):
    """How many of the replicas that live have applied a version of the switch."""

    applied: int
    replicas: int


async def read(connection: Connection) -> dict[str, SurfaceRollout]:
    return {row["surface"]: _from_row(row) for row in await connection.fetch(SQL.read)}


async def lock(connection: Connection) -> None:
    """Whoever changes percents does it one after the other, plans included."""
    await connection.execute(SQL.lock)


async def replace(connection: Connection, rollouts: Mapping[str, SurfaceRollout]) -> None:
    """A surface that is left out shows ads to nobody. Raises Contradiction for a change of a place that a plan holds."""
    await lock(connection)
    before = await read(connection)
    for surface, country, ramp in await connection.fetch(SQL.held):
        if not _same(before.get(surface, NOBODY), rollouts.get(surface, NOBODY), country):
            place = f"{surface} in {country}" if country else surface
            raise Contradiction(f"Plan {ramp} holds {place}: end it first (/v1/ramps/{ramp}).")
    await connection.execute(SQL.clear)
    rows = [(name, of.percent_bp, of.holdout_bp, of.countries) for name, of in rollouts.items()]
    await connection.executemany(SQL.add, rows)


async def set_percent(
    connection: Connection, surface: str, countries: Sequence[str], percent_bp: int
) -> None:
    """Of the surface itself where no country is named. The rollouts must be locked."""
    if countries:
        await connection.execute(SQL.set_countries, surface, dict.fromkeys(countries, percent_bp))
    else:
        await connection.execute(SQL.set_percent, surface, percent_bp)


async def paused(connection: Connection) -> bool:
    answer: bool = await connection.fetchval(SQL.paused)
    return answer


async def set_paused(connection: Connection, pause: bool) -> int:
    """Turns the switch; answers the version of it that replicas have to apply."""
    version: int = await connection.fetchval(SQL.set_paused, pause)
    return version


async def standing_by(connection: Connection) -> Applied:
    """How many of the replicas that live stand by the switch as it is now."""
    return Applied(*await connection.fetchrow(SQL.standing_by))


async def applied(connection: Connection, switch_version: int) -> Applied:
    return Applied(*await connection.fetchrow(SQL.applied, switch_version))


async def obeyed(ask: Callable[[], Awaitable[Applied]]) -> Applied:
    """Waits a moment for the replicas to say that they obey."""
    loop = asyncio.get_running_loop()
    until = loop.time() + APPLIED_WITHIN_S
    while True:
        answer = await ask()
        if answer.applied == answer.replicas or loop.time() >= until:
            return answer
        await asyncio.sleep(APPLIED_POLL_S)


def _same(before: SurfaceRollout, after: SurfaceRollout, country: str) -> bool:
    """Whether the same viewers of a place see ads; those of a country with a percent of its own, and then it keeps it."""
    if before.holdout_bp != after.holdout_bp:
        return False
    if country:
        return before.countries.get(country) == after.countries.get(country)
    return before.percent_bp == after.percent_bp


def _from_row(row: Any) -> SurfaceRollout:
    return SurfaceRollout(row["percent_bp"], row["holdout_bp"], row["countries"])
