import asyncio
from collections.abc import Callable, Iterable, Sequence

from sizes import record
from world import NOW_MS, make_world

from adserve.database.pools import Pools
from adserve.domain.time import DAY_MS, SECOND_MS
from adserve.metering.errors import TicketRefused
from adserve.metering.pseudonyms import Pseudonyms
from adserve.metering.rotation import Rotation
from adserve.metering.tickets import AHEAD_MS, OPENING_TAIL_MS, SEALING_PERIOD_MS, Sealer, TicketKey
from adserve.store.secrets import Secrets


async def test_the_first_key_seals_at_once_and_many_starts_make_one(pools: Pools) -> None:
    await asyncio.gather(*(Secrets(pools.catalogue).rotate(NOW_MS) for _ in range(8)))
    (key,) = await Secrets(pools.catalogue).ticket_keys()
    assert (key.seals_from_ms, key.opens_until_ms, len(key.secret)) == (NOW_MS, None, 32)


async def test_a_key_is_made_ahead_and_the_one_before_opens_on(pools: Pools) -> None:
    secrets = Secrets(pools.catalogue)
    await secrets.rotate(NOW_MS)
    await secrets.rotate(NOW_MS + SEALING_PERIOD_MS - 1)
    assert len(await secrets.ticket_keys()) == 1
    due_ms = NOW_MS + SEALING_PERIOD_MS
    await secrets.rotate(due_ms)
    await secrets.rotate(due_ms)
    old, new = await secrets.ticket_keys()
    assert new.seals_from_ms == due_ms + AHEAD_MS
    assert old.opens_until_ms == new.seals_from_ms + OPENING_TAIL_MS
    await secrets.rotate(old.opens_until_ms + SECOND_MS)
    assert [key.id for key in await secrets.ticket_keys()] == [new.id]


async def test_next_months_secret_is_known_ahead_and_the_cap_secret_stays(pools: Pools) -> None:
    secrets, pseudonyms = Secrets(pools.catalogue), Pseudonyms()
    rotation = Rotation(secrets, Sealer(), pseudonyms)
    await rotation.step(NOW_MS)
    january, february = pseudonyms.of("u", NOW_MS), pseudonyms.of("u", NOW_MS + 31 * DAY_MS)
    assert january[0] == february[0]
    assert january[1] != february[1]
    await rotation.step(NOW_MS + 31 * DAY_MS)
    assert pseudonyms.of("u", NOW_MS) == january
    assert pseudonyms.of("u", NOW_MS + 31 * DAY_MS) == february
    assert len((await secrets.viewer_secrets()).months) == 3


DAYS = 95
"""Three rotations."""


async def refused_before_they_expire(
    pools: Pools, kept: Callable[[Sequence[TicketKey]], Iterable[TicketKey]]
) -> int:
    """Of the tickets of each day, looked at when they are about to expire, with the keys of then."""
    secrets, world, refused, token = Secrets(pools.catalogue), await make_world(pools), 0, ""
    for day in range(DAYS):
        now_ms = NOW_MS + day * DAY_MS
        await secrets.rotate(now_ms)
        keys = await secrets.ticket_keys()
        try:
            if token:
                Sealer(kept(keys)).open(token, now_ms)
        except TicketRefused:
            refused += 1
        token = Sealer(keys).seal(world.ticket(1, issued_at_ms=now_ms, expires_at_ms=now_ms + DAY_MS))
    return refused


async def test_through_rotations_every_ticket_opens_until_it_expires(pools: Pools) -> None:
    refused = await refused_before_they_expire(pools, lambda keys: keys)
    record("key rotation", rounds=3, tickets=DAYS, refused=refused)
    assert refused == 0


async def test_control_with_the_sealing_key_alone_some_do_not(pools: Pools) -> None:
    def sealing(keys: Sequence[TicketKey]) -> list[TicketKey]:
        return [key for key in keys if key.opens_until_ms is None]

    refused = await refused_before_they_expire(pools, sealing)
    record("key rotation", control_refused=refused)
    assert refused > 0
