"""A process that dies at any statement of any minute of a plan leaves it where the next one finds it in order."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from plans import PLAN, Seen, act, history, made, stands

from adserve.bootstrap.ramps import Walking
from adserve.database.pools import Pools
from adserve.domain.ramps import Act, Status
from adserve.domain.time import MINUTE_MS
from adserve.store.errors import Contradiction

STATEMENTS = 11
"""A step that moves a plan has one fewer."""
WALKED = [(Status.RUNNING, 0), (Status.RUNNING, 1), (Status.RUNNING, 2), (Status.COMPLETED, 2)]
LOPSIDED = "the percents are not those of the plan"


class Dies:
    """A pool whose connection breaks at one statement, as that of a process does that is killed there."""

    def __init__(self, pool: Any, at_statement: int) -> None:
        self._pool = pool
        self._left = at_statement

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["Dies"]:
        async with self._pool.acquire() as self._connection:
            yield self

    def transaction(self) -> Any:
        return self._connection.transaction()

    def __getattr__(self, name: str) -> Any:
        async def run(*given: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise ConnectionError("killed")
            return await getattr(self._connection, name)(*given)

        return run


class Hasty(Dies):
    """The broken twin: each statement commits by itself."""

    def transaction(self) -> Any:
        return contextlib.nullcontext()


async def walked(pools: Pools, clock: Any, dying: type[Dies], dies_at: int) -> list[tuple[Status, int] | str]:
    """Where the plan stood after each minute, in which one process died and another went on; and what was wrong in between."""
    country, observe = f"A{chr(ord('A') + dies_at)}", Seen().observe
    id_ = await made(pools, clock, msgspec.structs.replace(PLAN, countries=(country,)))
    told: list[tuple[Status, int] | str] = []
    for _ in WALKED:
        with contextlib.suppress(ConnectionError):
            await Walking(dying(pools.operator, dies_at), observe).step(clock())
        *_, countries = await stands(pools, id_)
        if countries[country] != (await history(pools, id_))[-1][2]:
            told.append(LOPSIDED)
        await Walking(pools.operator, observe).step(clock())
        told.append((await stands(pools, id_))[:2])
        clock.advance(MINUTE_MS)
    return told


@pytest.mark.parametrize("dying", [Dies, Hasty])
async def test_a_crash_in_any_minute_resumes_the_plan_in_the_right_state(
    pools: Pools, clock: Any, dying: type[Dies]
) -> None:
    """The control: moves that are no transaction are found."""
    wrong = {}
    for dies_at in range(STATEMENTS):
        told = await walked(pools, clock, dying, dies_at)
        if told != WALKED:
            wrong[dies_at] = told
        with contextlib.suppress(Contradiction):
            await act(pools, dies_at + 1, Act.ABORT, clock)
    if dying is Dies:
        assert wrong == {}
    else:
        assert any(LOPSIDED in told for told in wrong.values())
