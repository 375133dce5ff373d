"""How much of each surface's audience sees ads, and the switch that beats every percent."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from adserve.domain.rollouts import SurfaceRollout
from adserve.store.desk import Connection
from adserve.store.statements import load

SQL = load("rollouts")


class Applied(NamedTuple):
    """How many of the replicas that live have applied a version of the switch."""

    applied: int
    replicas: int


async def read(connection: Connection) -> dict[str, SurfaceRollout]:
    return {row["surface"]: _from_row(row) for row in await connection.fetch(SQL.read)}


async def replace(connection: Connection, rollouts: Mapping[str, SurfaceRollout]) -> None:
    """A surface that is left out shows ads to nobody."""
    await connection.execute(SQL.lock)  # one after the other, or two would both add a surface
    await connection.execute(SQL.clear)
    rows = [(name, of.percent_bp, of.holdout_bp, of.countries) for name, of in rollouts.items()]
    await connection.executemany(SQL.add, rows)


async def paused(connection: Connection) -> bool:
    answer: bool = await connection.fetchval(SQL.paused)
    return answer


async def set_paused(connection: Connection, pause: bool) -> int:
    """Turns the switch; answers the version of it that replicas have to apply."""
    version: int = await connection.fetchval(SQL.set_paused, pause)
    return version


async def applied(connection: Connection, switch_version: int) -> Applied:
    return Applied(*await connection.fetchrow(SQL.applied, switch_version))


def _from_row(row: Any) -> SurfaceRollout:
    return SurfaceRollout(row["percent_bp"], row["holdout_bp"], row["countries"])
