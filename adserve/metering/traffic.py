"""Judges whether traffic is invalid: the same events in the same order give the same verdicts, today or a year later.

What has to be remembered for that, a process remembers of the events that it has seen itself, within named bounds: with
several processes a flood through all of them is seen by each in part, and by `adserve rejudge` as a whole.
"""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from adserve.domain.events import CLICK, CONFIRMING, IMPRESSION, EventKind
from adserve.domain.time import DAY_MS
from adserve.domain.traffic import NOWHERE, UNJUDGED, Origin, Rate, Reason, Rules, Source, Verdict
from adserve.metering.networks import NO_NETWORKS, Networks
from adserve.metering.origins import Origins
from adserve.metering.windows import MARK_BYTES, Memory, Window

IMPRESSIONS_MAX = 100_000
"""Of one generation: remembered are those that say when they occurred, and invalid ones."""


class Facts(Protocol):
    """What of a ticket is judged. Where the viewer is not named (any more), `viewer_cap` is empty."""

    @property
    def ticket(self) -> UUID: ...
    @property
    def viewer_cap(self) -> bytes: ...
    @property
    def issued_at_ms(self) -> int: ...


class Moments(Struct, frozen=True, gc=False):
    """`impression_at_ms` is when the ticket's impression occurred, as far as another than the judge knows it."""

    received_at_ms: int
    occurred_at_ms: int | None = None
    view_ms: int | None = None
    impression_at_ms: int | None = None


class _Shown(Struct, frozen=True, gc=False):
    occurred_at_ms: int | None
    invalid: bool


class Judge:
    """Judges by one version of the rules."""

    def __init__(self, rules: Rules) -> None:
        self.use(rules)
        self._shown: Memory[_Shown] = Memory(IMPRESSIONS_MAX)
        self._impressions = Window()
        self._clicks = Window()
        self._clicks_of_address = Window()
        self._viewers = Window()

    def use(self, rules: Rules) -> None:
        self._rules = rules
        self._allowed = frozenset(rules.clients_allowed)

    def sweep(self, now_ms: int) -> None:
        for memory in (self._shown, self._impressions, self._clicks, self._clicks_of_address, self._viewers):
            memory.sweep(now_ms)

    def erase(self, viewer: bytes) -> None:
        """Of a device's viewers the beginnings of their pseudonyms stay, until their window is over."""
        self._impressions.forget(viewer)
        self._clicks.forget(viewer)

    def judge(self, kind: EventKind, facts: Facts, moments: Moments, origin: Origin) -> Reason | None:
        """None for valid traffic."""
        reason = None if origin is NOWHERE else self._of_source(origin)
        if reason is None and moments.view_ms is not None:
            reason = self._of_view(facts, moments)
        if reason is None and kind is not IMPRESSION:
            reason = self._of_impression(kind, facts, moments)
        if reason is None:
            reason = self._of_rates(kind, facts, moments, origin)
        if kind is IMPRESSION and (reason is not None or moments.occurred_at_ms is not None):
            shown = _Shown(moments.occurred_at_ms, reason is not None)
            self._shown.put(facts.ticket.bytes, shown, moments.received_at_ms, DAY_MS)
        return reason

    def _of_source(self, origin: Origin) -> Reason | None:
        if origin.crawlers and self._rules.declared_bots and not self._allowed.issuperset(origin.crawlers):
            return Reason.DECLARED_BOT
        if origin.hosted and self._rules.data_centres:
            return Reason.DATA_CENTRE
        return None

    def _of_view(self, facts: Facts, moments: Moments) -> Reason | None:
        slack_ms, view_ms = self._rules.view_slack_ms, moments.view_ms
        existed_ms = moments.received_at_ms - facts.issued_at_ms
        if slack_ms is not None and view_ms is not None and view_ms > existed_ms + slack_ms:
            return Reason.IMPOSSIBLE_VIEW
        return None

    def _of_impression(self, kind: EventKind, facts: Facts, moments: Moments) -> Reason | None:
        """Order and speed are judged by the client's clock alone, and only where it told both moments."""
        shown = self._shown.get(facts.ticket.bytes)
        if shown is not None and shown.invalid:
            return Reason.INVALID_IMPRESSION
        impression_at_ms, occurred_at_ms = moments.impression_at_ms, moments.occurred_at_ms
        if shown is not None and impression_at_ms is None:
            impression_at_ms = shown.occurred_at_ms
        if impression_at_ms is None or occurred_at_ms is None:
            return None
        if occurred_at_ms < impression_at_ms:
            return Reason.IMPOSSIBLE_ORDER if self._rules.impossible_order else None
        soonest_ms = self._rules.click_after_ms
        if kind is CLICK and soonest_ms is not None and occurred_at_ms < impression_at_ms + soonest_ms:
            return Reason.IMPOSSIBLE_SPEED
        return None

    def _of_rates(self, kind: EventKind, facts: Facts, moments: Moments, origin: Origin) -> Reason | None:
        rules, mark = self._rules, facts.ticket.bytes[-MARK_BYTES:]
        viewer = facts.viewer_cap or None
        when = _happened(facts, moments), moments.received_at_ms
        if kind in CONFIRMING and _beyond(rules.impressions_of_viewer, self._impressions, viewer, mark, when):
            return Reason.TOO_MANY_IMPRESSIONS
        if kind is CLICK:
            if _beyond(rules.clicks_of_viewer, self._clicks, viewer, mark, when):
                return Reason.CLICK_FLOOD_OF_VIEWER
            if _beyond(rules.clicks_of_address, self._clicks_of_address, origin.address, mark, when):
                return Reason.CLICK_FLOOD_OF_ADDRESS
        if origin.device is None or viewer is None:
            return None
        if _beyond(rules.viewers_of_device, self._viewers, origin.device, viewer[:MARK_BYTES], when):
            return Reason.SHARED_DEVICE
        return None


def _beyond(rate: Rate | None, window: Window, key: bytes | None, mark: bytes, when: tuple[int, int]) -> bool:
    """`when` it happened, and when we heard of it. Without a rate or a key nothing is too much."""
    return rate is not None and key is not None and window.exceeded(key, mark, rate, *when)


def _happened(facts: Facts, moments: Moments) -> int:
    """What a client kept back is not a flood when it sends it: its own moment counts, where that can be true."""
    at_ms = moments.occurred_at_ms
    if at_ms is not None and facts.issued_at_ms <= at_ms <= moments.received_at_ms:
        return at_ms
    return moments.received_at_ms


class Traffic:
    """Judges events as they come, by the rules of the moment; before there are any, nothing is judged."""

    def __init__(self, origins: Origins, note: Callable[[Reason], object] = lambda reason: None) -> None:
        self._origins = origins
        self._note = note
        self._judge = Judge(Rules())
        self._networks: Networks = NO_NETWORKS
        self._version: int | None = None
        self._valid = UNJUDGED

    def use(self, version: int, rules: Rules, networks: Networks) -> None:
        self._version, self._networks = version, networks
        self._valid = Verdict(rules=version)
        self._judge.use(rules)

    async def erase(self, viewer: bytes) -> None:
        self._judge.erase(viewer)

    def sweep(self, now_ms: int) -> None:
        """Forgets what no rule asks for any more."""
        self._judge.sweep(now_ms)

    def judge(self, kind: EventKind, facts: Facts, moments: Moments, source: Source | None) -> Verdict:
        if self._version is None:
            return UNJUDGED
        if source is None:
            origin = NOWHERE
        else:
            origin = self._origins.of(source, self._networks, moments.received_at_ms)
        reason = self._judge.judge(kind, facts, moments, origin)
        if reason is None and origin is NOWHERE:
            return self._valid
        if reason is not None:
            self._note(reason)
        return Verdict(reason, self._version, origin if facts.viewer_cap else NOWHERE)
