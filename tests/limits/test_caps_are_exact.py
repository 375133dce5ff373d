"""I4 under random use: no sliding window ever holds more counted impressions than its cap.

The judge keeps nothing but the list of impressions that were counted, and looks at every window that ends with one.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from counting import (
    KINDS,
    START_MS,
    Shown,
    advertiser_cap,
    campaign_cap,
    cap_on_all,
    parts,
    reservation,
    ticket_id,
)
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS
from adserve.limits.counters import MemoryCounters
from adserve.limits.entries import CONFIRMED, ENTRY_BYTES, RESERVED, Entry, entry_at, find
from adserve.limits.rebuild import OVERLAP_MS
from adserve.limits.reservations import Grant, Reservation
from adserve.limits.rules import ALL, RETENTION_MS, Rule, ad_key

VIEWERS = (b"v" * 16, b"w" * 16)
OVER_ALL = cap_on_all(4, 3_600)
ADS = (
    Shown(1, 1, 1, caps=(Rule(ad_key(1), 1, 60_000), campaign_cap(1, 2, 3_600), advertiser_cap(1, 3, 86_400), OVER_ALL)),
    Shown(2, 1, 1, caps=(campaign_cap(1, 2, 3_600), advertiser_cap(1, 3, 86_400), OVER_ALL)),
    Shown(3, 2, 1, caps=(campaign_cap(2, 1, 180 * 86_400), advertiser_cap(1, 3, 86_400), OVER_ALL)),
    Shown(4, 3, 2, caps=(campaign_cap(3, 1, 60), campaign_cap(3, 2, 600), OVER_ALL)),
    Shown(5, 4, 3, caps=(OVER_ALL,)),
)  # fmt: skip  # laid out as rows
EXACT_WINDOWS_S = (60, 61, 3_600, 86_400, 7 * 86_400, 180 * 86_400 - 1, 180 * 86_400)
ANY_CAPS = st.lists(
    st.tuples(
        st.sampled_from(sorted({key for ad in ADS for key in ad.keys} | {ALL})),
        st.integers(1, 4),
        st.sampled_from(EXACT_WINDOWS_S) | st.integers(60, 180 * 86_400),
    ),
    max_size=12,
)
WAITED_MAX_MS = RETENTION_MS - 180 * DAY_MS
"""Entries outlive the longest window by this much, so no event may wait longer to be confirmed."""
PAUSES_MS = (0, 1, 999, 30_000, 59_999, 60_000, 600_000, 3_599_999, 3_600_000, 86_400_000, 179 * 86_400_000)
TTLS_MS = (60_000, 3_600_000, 86_400_000)

WHICH = st.integers(0, 2**16)
ORDERS = st.permutations(range(len(ADS)))


def with_caps(caps: list[tuple[str, int, int]]) -> tuple[Shown, ...]:
    """The ads under other caps: each on every ad that it is about."""
    rules = [Rule(key, most, window_s * 1_000) for key, most, window_s in caps]
    return tuple(ad._replace(caps=tuple(one for one in rules if one.key in (ALL, *ad.keys))) for ad in ADS)


class Answer(NamedTuple):
    counted: bool
    at_ms: int
    ticket: Ticket
    ad: Shown


class Use(RuleBasedStateMachine):
    """Decisions, reports and releases in any order, on counters that `make` gives for an epoch."""

    make: Callable[[int], Any]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.counters = self.make(1)
        self.now_ms = START_MS
        self.tickets: list[tuple[Ticket, Shown]] = []
        self.answers: dict[UUID, Answer] = {}
        self.ads: tuple[Shown, ...] = ADS

    @property
    def caps(self) -> list[Rule]:
        return sorted({cap for ad in self.ads for cap in ad.caps})

    def teardown(self) -> None:
        self.runner.close()

    def issue(self, ad: Shown, viewer: bytes, ttl_ms: int) -> None:
        self.tickets.append((ad.ticket(ticket_id(len(self.tickets)), viewer, self.now_ms, ttl_ms), ad))

    @rule(pause_ms=st.sampled_from(PAUSES_MS))
    def wait(self, pause_ms: int) -> None:
        self.now_ms += pause_ms

    @rule(
        viewer=st.sampled_from(VIEWERS),
        order=ORDERS,
        places=st.integers(1, 3),
        ttl_ms=st.sampled_from(TTLS_MS),
    )
    def decide(self, viewer: bytes, order: list[int], places: int, ttl_ms: int) -> None:
        tickets = [ticket_id(len(self.tickets) + place) for place in range(places)]
        ranked = [self.ads[index] for index in order]
        ask = reservation(ranked, tickets, self.now_ms, ttl_ms)
        grant = self.runner.run(self.counters.reserve(viewer, ask, self.now_ms))
        for index in grant.reserved:
            self.issue(ranked[index], viewer, ttl_ms)

    @rule(viewer=st.sampled_from(VIEWERS), which=WHICH, ttl_ms=st.sampled_from(TTLS_MS))
    def lose_a_reservation(self, viewer: bytes, which: int, ttl_ms: int) -> None:
        """The ticket is out there, but the counters that knew it are gone."""
        self.issue(self.ads[which % len(self.ads)], viewer, ttl_ms)

    @precondition(lambda self: self.tickets)
    @rule(which=WHICH, lag_ms=st.sampled_from((0, 0, 0, 1, 1_000, 59_999, 600_000, 5_000_000)))
    def report(self, which: int, lag_ms: int) -> None:
        """An impression or view, maybe again, maybe confirmed long after it was received in time."""
        ticket, ad = self.tickets[which % len(self.tickets)]
        if self.now_ms - ticket.expires_at_ms > WAITED_MAX_MS:
            return
        at_ms = max(ticket.issued_at_ms, min(self.now_ms - lag_ms, ticket.expires_at_ms))
        counted = self.runner.run(self.counters.confirm(ticket, at_ms, self.now_ms))
        first = self.answers.setdefault(ticket.ticket, Answer(counted, at_ms, ticket, ad))
        if at_ms >= first.at_ms or not first.counted:
            assert counted is first.counted, "the first confirmation decides"
        elif counted:  # what is stored with an earlier moment counts at that
            self.answers[ticket.ticket] = first._replace(at_ms=at_ms)
        self.judge(ticket.viewer_cap)

    @precondition(lambda self: self.tickets)
    @rule(which=WHICH)
    def release(self, which: int) -> None:
        ticket, _ = self.tickets[which % len(self.tickets)]
        released = self.runner.run(self.counters.release(ticket, self.now_ms))
        assert not (released and ticket.ticket in self.answers), "what was shown cannot be released"

    def judge(self, viewer: bytes) -> None:
        counted = [
            (answer.at_ms, (ALL, *answer.ad.keys))
            for answer in self.answers.values()
            if answer.counted and answer.ticket.viewer_cap == viewer
        ]
        for cap in self.caps:
            moments = [at_ms for at_ms, keys in counted if cap.key in keys]
            for end_ms in moments:
                together = sum(end_ms - cap.window_ms < at_ms <= end_ms for at_ms in moments)
                assert together <= cap.most, f"{together} impressions in a window of {cap}"


class UseOfMemory(Use):
    """Adds what only counters that live in a process do: sweeps, checkpoints and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint: list[bytes] = []
        self.saved_ms = 0

    @rule()
    def sweep(self) -> None:
        self.counters.sweep(self.now_ms)

    @rule()
    def save(self) -> None:
        self.checkpoint, self.saved_ms = list(self.counters.dump()), self.now_ms

    @rule()
    def restart(self) -> None:
        """From the last checkpoint, however old, and the event log."""
        self.counters = self.make(self.counters.epoch + 1)
        self.runner.run(self.counters.load(parts(self.checkpoint), self.saved_ms - OVERLAP_MS))
        for counted, at_ms, ticket, ad in self.answers.values():
            self.counters.restore(
                ticket.viewer_cap, ticket.ticket, counted, at_ms, ticket.expires_at_ms, ad.keys
            )


class UnderAnyCaps(Use):
    """Many rules of any window, and pauses as long as these."""

    @initialize(caps=ANY_CAPS)
    def choose_caps(self, caps: list[tuple[str, int, int]]) -> None:
        self.ads = with_caps(caps)

    @precondition(lambda self: self.caps)
    @rule(which=WHICH, off_ms=st.integers(-1, 1))
    def wait_for_a_window(self, which: int, off_ms: int) -> None:
        self.now_ms += self.caps[which % len(self.caps)].window_ms + off_ms


USES = {"memory": UseOfMemory}


def put_through(kind: str, make: Callable[[int], Any], *ways: type[Use], **options: Any) -> None:
    use = type("Used", (*ways, USES[kind]), {"make": staticmethod(make)})
    run_state_machine_as_test(
        use, settings=settings(derandomize=True, deadline=None, stateful_step_count=40, **options)
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_window_ever_exceeds_its_cap(kind: str) -> None:
    put_through(kind, KINDS[kind], max_examples=150)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_window_ever_exceeds_any_cap(kind: str) -> None:
    put_through(kind, KINDS[kind], UnderAnyCaps, max_examples=150)


def divided(packed: bytes, out: Callable[[Entry], bool]) -> tuple[bytes, bytes]:
    """The entries that stay, and those that are out."""
    entries = [packed[at : at + ENTRY_BYTES] for at in range(0, len(packed), ENTRY_BYTES)]
    stay, go = ([one for one in entries if out(entry_at(one, 0)) is away] for away in (False, True))
    return b"".join(stay), b"".join(go)


class CountsOnlyTheConfirmed(MemoryCounters):
    """Reservations do not count: two decisions in flight take the same last place."""

    async def reserve(self, viewer: bytes, ask: Reservation, now_ms: int, wait_ms: int = 0) -> Grant:
        confirmed, reserved = divided(self._packed(viewer), lambda entry: entry.state == RESERVED)
        self._keep(viewer, confirmed)
        grant = await super().reserve(viewer, ask, now_ms)
        self._keep(viewer, self._packed(viewer) + reserved)
        return grant


class BelievesEveryTicket(MemoryCounters):
    """A ticket whose reservation is not known counts without a look at the windows around it."""

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        return await super().confirm(msgspec.structs.replace(ticket, rules=()), at_ms, now_ms)


class LooksOnlyBack(MemoryCounters):
    """An impression out of time order has to fit the window that ends with it, and no later one."""

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        viewer = ticket.viewer_cap
        if find(self._packed(viewer), ticket.ticket) >= 0:
            return await super().confirm(ticket, at_ms, now_ms)
        earlier, later = divided(
            self._packed(viewer), lambda entry: entry.state == CONFIRMED and entry.at_ms > at_ms
        )
        self._keep(viewer, earlier)
        counted = await super().confirm(ticket, at_ms, now_ms)
        self._keep(viewer, self._packed(viewer) + later)
        return counted


@pytest.mark.parametrize("broken", [CountsOnlyTheConfirmed, BelievesEveryTicket, LooksOnlyBack])
def test_broken_counters_are_noticed(broken: type[MemoryCounters]) -> None:
    with pytest.raises(AssertionError, match="impressions in a window"):
        put_through("memory", broken, max_examples=3_000, phases=[Phase.generate], print_blob=False)
