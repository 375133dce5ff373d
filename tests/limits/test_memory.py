"""What a viewer and a ticket cost: millions of them are remembered at once."""

import random
import tracemalloc

from counting import START_MS, Shown, reservation

from adserve.domain.ids import uuid7
from adserve.domain.time import DAY_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.leases import LeaseBook
from adserve.limits.purses import Lease

VIEWERS = 3_000
BYTES_MAX = 350

TICKETS = 30_000
TICKETS_A_MS = 12
KEPT_BYTES_MAX = 64


async def test_a_viewer_of_five_ads_seen_twice_takes_at_most_350_bytes() -> None:
    """All in: the key, the entries with their tickets' ids, the tables' slots."""
    chance = random.Random(1)
    ads = [Shown(number, number, number % 50) for number in range(1_000)]
    counters = MemoryCounters(1)
    for ad in ads:  # the table of profiles is there once, for everybody
        await counters.reserve(
            ad.ad.to_bytes(16, "little"),
            reservation([ad], [uuid7(START_MS, chance.getrandbits(74))]),
            START_MS,
        )
    tracemalloc.start()
    for _ in range(VIEWERS):
        viewer = b"v" + chance.randbytes(15)  # all in one table: many small ones take more
        for ad in chance.sample(ads, 5):
            for _ in range(2):
                ticket = ad.ticket(uuid7(START_MS, chance.getrandbits(74)), viewer)
                assert await counters.confirm(ticket, START_MS, START_MS)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(counters) == VIEWERS + len(ads)
    assert BYTES_MAX * 0.8 < taken / VIEWERS <= BYTES_MAX


def test_a_price_that_stays_kept_under_a_ticket_takes_at_most_64_bytes() -> None:
    chance = random.Random(1)
    book = LeaseBook()
    book.add(Lease(1, 1, 1, TICKETS * 7_000, START_MS + DAY_MS))
    tracemalloc.start()
    for number in range(TICKETS):
        at_ms = START_MS + number // TICKETS_A_MS
        hold = book.hold(1, 7_000, at_ms)
        assert hold is not None
        book.keep(hold, uuid7(at_ms, chance.getrandbits(74)), 6_000 + number % 1_000, at_ms + 3_600_000)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 32 < taken / TICKETS <= KEPT_BYTES_MAX
