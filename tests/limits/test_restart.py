"""What a process that died leaves behind: the counters of the next must not have an impression earlier than the log."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple
from uuid import UUID

from counting import START_MS, TTL_MS, VIEWER, Shown, campaign_cap, parts, reservation, ticket_id

from adserve.domain.events import EventKind, Outcome
from adserve.limits.counters import MemoryCounters
from adserve.limits.rebuild import OVERLAP_MS, rebuild

WINDOW_MS = 120_000
AD = Shown(1, 1, 1, caps=(campaign_cap(1, 1, WINDOW_MS // 1_000),))
TICKET = AD.ticket(ticket_id(1))


class Logged(NamedTuple):
    ticket: UUID
    received_at_ms: int
    viewer: bytes = VIEWER
    ad: int = AD.ad
    campaign: int = AD.campaign
    advertiser: int = AD.advertiser
    labels: tuple[str, ...] = ()
    kind: EventKind = EventKind.IMPRESSION
    outcome: Outcome = Outcome.RECORDED
    expires_at_ms: int = START_MS + TTL_MS
    settled: bool = True


async def log(*events: Logged) -> AsyncIterator[Logged]:
    for event in events:
        yield event


async def reserved(counters: MemoryCounters, number: int, at_ms: int) -> bool:
    ask = reservation([AD], [ticket_id(number)], at_ms)
    return (await counters.reserve(VIEWER, ask, at_ms)).reserved == (0,)


async def confirmed_checkpoint(at_ms: int) -> list[bytes]:
    """Of counters that died after an impression was confirmed."""
    counters = MemoryCounters(1)
    assert await reserved(counters, 1, START_MS)
    assert await counters.confirm(TICKET, at_ms, at_ms)
    return list(counters.dump())


class TrustsACheckpoint(MemoryCounters):
    """A broken twin: what was confirmed in the moment of a crash is taken for stored."""

    async def load(self, parts: AsyncIterable[bytes], doubted_from_ms: int) -> None:
        await super().load(parts, doubted_from_ms + 2 * OVERLAP_MS)


async def restarted(
    checkpoint: list[bytes], taken_at_ms: int, *events: Logged, make: type[MemoryCounters] = MemoryCounters
) -> MemoryCounters:
    counters = make(2)
    await rebuild(counters, parts(checkpoint), log(*events), taken_at_ms - OVERLAP_MS, lambda _: None)
    return counters


async def test_what_was_confirmed_and_not_stored_before_a_crash_may_come_again_later() -> None:
    seen_ms = START_MS + 1_000
    counters = await restarted(await confirmed_checkpoint(seen_ms), seen_ms)
    again_ms = seen_ms + WINDOW_MS
    assert not await reserved(counters, 2, again_ms)
    assert await counters.confirm(TICKET, again_ms, again_ms)
    assert not await reserved(counters, 3, again_ms + WINDOW_MS - 1)
    assert await reserved(counters, 4, again_ms + WINDOW_MS)


async def test_control_a_checkpoint_that_is_trusted_lets_a_second_one_through() -> None:
    seen_ms = START_MS + 1_000
    counters = await restarted(await confirmed_checkpoint(seen_ms), seen_ms, make=TrustsACheckpoint)
    assert await reserved(counters, 2, seen_ms + WINDOW_MS)


async def test_what_was_stored_before_a_crash_keeps_its_moment() -> None:
    seen_ms = START_MS + 1_000
    stored = Logged(TICKET.ticket, seen_ms)
    counters = await restarted(await confirmed_checkpoint(seen_ms), seen_ms, stored)
    assert not await reserved(counters, 2, seen_ms + WINDOW_MS - 1)
    assert await reserved(counters, 3, seen_ms + WINDOW_MS)


async def test_what_was_confirmed_long_before_the_checkpoint_was_stored() -> None:
    seen_ms = START_MS + 1_000
    counters = await restarted(await confirmed_checkpoint(seen_ms), seen_ms + OVERLAP_MS + 1)
    assert await reserved(counters, 2, seen_ms + WINDOW_MS)


async def test_of_two_reports_in_flight_the_one_that_is_stored_may_be_the_later() -> None:
    counters = MemoryCounters(1)
    assert await reserved(counters, 1, START_MS)
    first_ms = TICKET.expires_at_ms - 4_000
    assert await counters.confirm(TICKET, first_ms, first_ms)
    assert await counters.confirm(TICKET, first_ms + 4_000, first_ms + 4_000)
    await counters.doubt(TICKET)  # of the first it is not known; the second is stored
    assert not await reserved(counters, 2, first_ms + 4_000 + WINDOW_MS - 1)
