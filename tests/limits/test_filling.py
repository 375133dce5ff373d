"""Until counters are filled they say so; then nothing of what was counted before is missing."""

from collections.abc import AsyncIterator

import pytest
from counting import START_MS, VIEWER, parts, reservation, ticket_id
from test_restart import AD, Logged, confirmed_checkpoint

from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import DAY_MS
from adserve.limits.counters import CountersAway, MemoryCounters
from adserve.limits.rebuild import OVERLAP_MS, Filling
from adserve.limits.rules import campaign_key, hide_key

NOW_MS = START_MS + DAY_MS
SHOWN = [(campaign_key(AD.campaign), DAY_MS)]


class Past:
    """A checkpoint and an event log."""

    def __init__(self, checkpoint: list[bytes] | None, *events: Logged, fails: int = 0) -> None:
        self.checkpoint = checkpoint
        self.events = events
        self.fails = fails
        self.counts = True
        self.asked_since: list[int] = []

    async def taken_at_ms(self) -> int | None:
        return None if self.checkpoint is None else START_MS + 1

    async def parts(self) -> AsyncIterator[bytes]:
        async for part in parts(self.checkpoint or ()):
            yield part

    async def count_since(self, received_at_ms: int) -> int | None:
        self.asked_since.append(received_at_ms)
        return len(self.events) if self.counts else None

    async def since(self, received_at_ms: int) -> AsyncIterator[Logged]:
        for event in self.events:
            if self.fails:
                self.fails -= 1
                raise ConnectionError("gone")
            yield event


def filling_from(past: Past) -> tuple[MemoryCounters, Filling]:
    counters = MemoryCounters(2, filled=False)
    return counters, Filling(counters, past, past)


async def test_counters_that_are_not_filled_know_nothing() -> None:
    counters, filling = filling_from(Past(None))
    ticket = AD.ticket(ticket_id(1))
    for asked in (
        counters.recall(VIEWER, None, NOW_MS),
        counters.reserve(VIEWER, reservation([AD], [ticket_id(1)], NOW_MS), NOW_MS),
        counters.confirm(ticket, NOW_MS, NOW_MS),
        counters.release(ticket, NOW_MS),
        counters.usage(VIEWER, SHOWN, NOW_MS),
    ):
        with pytest.raises(CountersAway):
            await asked
    await filling.step(NOW_MS)
    assert filling.done.is_set()
    assert await counters.usage(VIEWER, SHOWN, NOW_MS) == [0]


async def test_a_hide_is_taken_while_they_are_filled() -> None:
    counters, filling = filling_from(Past(await confirmed_checkpoint(START_MS)))
    await counters.hide(AD.ticket(ticket_id(1)), NOW_MS)
    await filling.step(NOW_MS)
    assert await counters.usage(VIEWER, [(hide_key(AD.advertiser), DAY_MS)], NOW_MS) == [1]


async def test_the_log_is_read_from_before_the_checkpoint() -> None:
    past = Past(await confirmed_checkpoint(START_MS), Logged(ticket_id(2), START_MS + 2))
    counters, filling = filling_from(past)
    assert filling.detail == "filling"
    await filling.step(NOW_MS)
    assert past.asked_since == [START_MS + 1 - OVERLAP_MS]
    assert filling.detail == "filling, 0 of 1 events"
    assert await counters.usage(VIEWER, SHOWN, START_MS + 2) == [2]


async def test_a_log_that_cannot_say_how_long_it_is_is_read() -> None:
    past = Past(None, Logged(ticket_id(1), START_MS))
    past.counts = False
    _, filling = filling_from(past)
    await filling.step(NOW_MS)
    assert filling.done.is_set()
    assert filling.detail == "filling, 0 events"


async def test_filling_that_broke_off_is_begun_anew() -> None:
    log = [Logged(ticket_id(number), START_MS) for number in (1, 2)]
    counters, filling = filling_from(Past(await confirmed_checkpoint(START_MS), *log, fails=1))
    with pytest.raises(ConnectionError):
        await filling.step(NOW_MS)
    assert not counters.filled
    await filling.step(NOW_MS)
    assert await counters.usage(VIEWER, SHOWN, START_MS) == [2]


async def test_without_a_checkpoint_that_can_be_read_the_whole_log_is() -> None:
    for checkpoint in (None, [b"\x01written by an earlier version"]):
        past = Past(checkpoint, Logged(ticket_id(1), START_MS), Logged(ticket_id(2), START_MS, outcome=Outcome.LATE),
                    Logged(ticket_id(3), START_MS, kind=EventKind.REPORT))  # fmt: skip  # laid out as rows
        counters, filling = filling_from(past)
        await filling.step(NOW_MS)
        assert past.asked_since[-1] == NOW_MS - 200 * DAY_MS
        assert await counters.usage(VIEWER, [*SHOWN, (hide_key(AD.advertiser), 2 * DAY_MS)], NOW_MS - 1) == [
            1,
            1,
        ]
