"""A bounded crowd of invented viewers: goes through feeds, and reports what it saw in every way that clients have.

Some of it is sent twice, some is forged, some comes late, and some ads are released and shown all the same. Whoever is
in the crowd and what each does follows from a seed; how the visits interleave does not.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, assert_never

import msgspec
from msgspec import Struct

from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import SECOND_MS
from adserve.simulation.caller import Caller, CallRefused, EventAnswer, Placed, PlacedAd, Urls
from adserve.simulation.report import Tally

CONCURRENCY = 16
FEEDS_PER_VIEWER = 2
INSISTENT_EVERY = 15
TICKET_TTL_S = 60
FEED_LENGTH = 24
ASKS_MAX = 12

SHARES = {EventKind.VIEW: 0.6, EventKind.CLICK: 0.15, EventKind.HIDE: 0.02, EventKind.REPORT: 0.01}
"""How often an ad that is seen leads to what."""
TWICE_SHARE = 0.1
FORGED_SHARE = 0.05
LATE_SHARE = 0.1
UNSEEN_SHARE = 0.1
BY_URL_SHARE = 0.5
PERSONALISED_SHARE = 0.8
OPTED_OUT_SHARE = 0.03

LOST = "lost"
"""An event whose URL answered well and that is not there: no other outcome, so that it is found to disagree."""

_HOMES = (("ID", "id"), ("DE", "de"), ("GB", "en"), ("US", "en"), ("BR", "pt"), ("NG", "en"), ("IN", "hi"))
_INTERESTS = ("music", "food", "hiking", "sport", "travel", "books")


class Viewer(NamedTuple):
    """`chance` decides everything that this viewer does."""

    id: str
    context: dict[str, Any]
    consent: dict[str, bool]
    chance: Random


def viewers(count: int, seed: int) -> Iterator[Viewer]:
    for number in range(count):
        chance = Random(f"{seed}:{number}")  # noqa: S311 - invented viewers hold no secrets
        country, language = chance.choice(_HOMES)
        context = {
            "country": country,
            "language": language,
            "platform": chance.choice(("android", "android", "ios", "web")),
            "age": chance.randint(16, 70),
            "interests": chance.sample(_INTERESTS, 2),
        }
        consent = {
            "personalised": chance.random() < PERSONALISED_SHARE,
            "ads": chance.random() >= OPTED_OUT_SHARE,
        }
        yield Viewer(f"viewer-{number:04}", context, consent, chance)


class _Item(Struct, frozen=True):
    type: str = ""
    position: int = 0
    ticket: str = ""
    ad: PlacedAd | None = None
    urls: Urls | None = None


class _Feed(Struct, frozen=True):
    items: tuple[_Item, ...]


_feed = msgspec.json.Decoder(_Feed)


class _Sent(NamedTuple):
    """An event of an ad; `Placed` is compared by its fields, so that the same event is found again."""

    placed: Placed
    kind: EventKind

    @property
    def url(self) -> str | None:
        """Where clients that only fetch URLs report this."""
        match self.kind:
            case EventKind.IMPRESSION:
                return self.placed.urls.impression
            case EventKind.CLICK:
                return self.placed.urls.click
            case EventKind.HIDE:
                return self.placed.urls.hide
            case EventKind.REPORT:
                return self.placed.urls.report
            case EventKind.VIEW | EventKind.COMPLETE:
                return None
            case _:
                assert_never(self.kind)


class Crowd:
    """`tally` is what the crowd was told, complete when `go` returns; `slots_ms` are the times that slots took."""

    def __init__(self, caller: Caller, tally: Tally) -> None:
        self.slots_ms: list[float] = []
        self.feeds = 0
        self._caller = caller
        self._tally = tally
        self._by_url: Counter[_Sent] = Counter()
        self._told: set[_Sent] = set()
        self._late: list[_Sent] = []

    async def go(
        self, crowd: Sequence[Viewer], skip: Callable[[int], None], progress: Callable[[int], object]
    ) -> None:
        """`skip` lets time pass for the service, so that some tickets expire."""
        queue = iter(enumerate(crowd))

        async def work() -> None:
            for number, viewer in queue:
                await self._visit(viewer)
                if number % INSISTENT_EVERY == 0:
                    await self._insist(viewer)
                progress(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(work())
        skip((TICKET_TTL_S + 1) * SECOND_MS)
        await self._send(self._late)
        await self._ask_what_became_of_urls()

    async def _visit(self, viewer: Viewer) -> None:
        for _ in range(FEEDS_PER_VIEWER):
            await self._watch(viewer, await self._wrapped_feed(viewer))
        placed = await self._slots(viewer)
        if placed and viewer.chance.random() < LATE_SHARE:
            self._late += [_Sent(ad, EventKind.IMPRESSION) for ad in placed]
        else:
            await self._watch(viewer, placed)

    async def _insist(self, viewer: Viewer) -> None:
        """Gives ads back, fills up on as many as there are, and shows those that were given back all the same."""
        released = await self._slots(viewer)
        if not released:
            return
        await self._caller.release([placed.ticket for placed in released])
        for _ in range(ASKS_MAX):
            again = await self._slots(viewer)
            if not again:
                break
            await self._send([_Sent(placed, EventKind.IMPRESSION) for placed in again])
        await self._send([_Sent(placed, EventKind.IMPRESSION) for placed in released])

    async def _wrapped_feed(self, viewer: Viewer) -> list[Placed]:
        headers = {
            "X-Adserve-Key": self._caller.key,
            "X-Adserve-Viewer": viewer.id,
            "X-Adserve-Context": msgspec.json.encode(viewer.context).decode(),
            "X-Adserve-Consent": msgspec.json.encode(viewer.consent).decode(),
            "Authorization": f"Bearer {viewer.id}",
        }
        url = f"{self._caller.base_url}/v1/feed/status"
        async with self._caller.session.get(url, headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise CallRefused("GET /v1/feed/status", answer.status, body.decode(errors="replace"))
        self.feeds += 1
        placed = [
            Placed(item.position, item.ticket, item.ad, item.urls)
            for item in _feed.decode(body).items
            if item.type == "ad" and item.ad is not None and item.urls is not None
        ]
        self._tally.placed += len(placed)
        return placed

    async def _slots(self, viewer: Viewer) -> Sequence[Placed]:
        body = {
            "viewer": viewer.id,
            "feed_length": FEED_LENGTH,
            "ticket_ttl_s": TICKET_TTL_S,
            "deadline_ms": 1_000,
            "context": viewer.context,
            "consent": viewer.consent,
        }
        started = time.perf_counter()
        answer = await self._caller.slots(body)
        self.slots_ms.append((time.perf_counter() - started) * 1_000)
        self._tally.asked(answer)
        return answer.placements

    async def _watch(self, viewer: Viewer, placements: Sequence[Placed]) -> None:
        """What one person does with the ads of a feed, each event by either way, some of them by both."""
        chance = viewer.chance
        for placed in placements:
            if chance.random() < UNSEEN_SHARE:
                continue
            for kind in _done_with(chance):
                sent = _Sent(placed, kind)
                for _ in range(2 if chance.random() < TWICE_SHARE else 1):
                    if sent.url is not None and chance.random() < BY_URL_SHARE:
                        await self._fire(sent, sent.url)
                    else:
                        await self._send([sent])
            if chance.random() < FORGED_SHARE:
                await self._send([_Sent(_forged(placed, chance), EventKind.IMPRESSION)])

    async def _send(self, events: Sequence[_Sent]) -> None:
        answers = await self._caller.send(
            [{"ticket": placed.ticket, "kind": kind} for placed, kind in events]
        )
        for (placed, kind), answer in zip(events, answers, strict=True):
            self._tally.happened(placed.ad.campaign, kind, answer)
            if answer.outcome != Outcome.DUPLICATE:
                self._told.add(_Sent(placed, kind))

    async def _fire(self, sent: _Sent, url: str) -> None:
        """The answer to a URL is a picture or the way to the advertiser, and never what became of the event."""
        async with self._caller.session.get(url, allow_redirects=False) as answer:
            await answer.read()
            if answer.status not in (200, 302):
                raise CallRefused("GET an event's URL", answer.status, answer.reason or "")
        self._by_url[sent] += 1

    async def _ask_what_became_of_urls(self) -> None:
        """The first of several is what is stored, unless the crowd was told so when it sent it in another way."""
        for sent, times in self._by_url.items():
            duplicates = times
            if sent not in self._told:
                stored = await self._caller.events_of(sent.placed.ticket)
                first = next((event for event in stored if event.kind == sent.kind), EventAnswer(LOST))
                self._tally.happened(sent.placed.ad.campaign, sent.kind, first)
                duplicates -= 1
            self._tally.events[sent.kind, Outcome.DUPLICATE] += duplicates


def _done_with(chance: Random) -> Iterator[EventKind]:
    yield EventKind.IMPRESSION
    for kind, share in SHARES.items():
        if chance.random() < share:
            yield kind


def _forged(placed: Placed, chance: Random) -> Placed:
    """The same but for one character of its ticket."""
    at = chance.randrange(len(placed.ticket) - 1)
    other = "A" if placed.ticket[at] != "A" else "B"
    return msgspec.structs.replace(placed, ticket=placed.ticket[:at] + other + placed.ticket[at + 1 :])
