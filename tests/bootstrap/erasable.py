"""A whole service that holds something of a viewer in every place there is, and a search for it by raw bytes."""

import base64
import io
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import md5
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import redis
from msgspec import Struct
from ramping import begin_ramp
from service import PIXEL, campaign_body
from world import superuser

from adserve import settings
from adserve.access.keys import SECRET_BYTES, Scope, new_key
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.service import Service, start
from adserve.domain.events import Event, EventKind, Outcome
from adserve.domain.ids import EventId
from adserve.domain.tickets import Ticket
from adserve.domain.time import from_ms
from adserve.domain.traffic import Origin, Verdict
from adserve.metering.erasing import IN_FLIGHT_MS
from adserve.simulation.clock import SkippingClock
from adserve.store.keys import Keys

ONCE_A_DAY = {"caps": [{"scope": "campaign", "count": 1, "window_s": 86_400}]}
FREE: dict[str, Any] = {"name": "Uncapped"}
TABLES = """
SELECT c.oid::regclass::text AS name, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""


class Place:
    """The service under a clock that a test moves; no background task runs but by `run`."""

    def __init__(
        self, service: Service, session: aiohttp.ClientSession, clock: SkippingClock, url: str
    ) -> None:
        self.service = service
        self.core = service.core
        self.clock = clock
        self.database_url = url
        self._session = session
        self._keys: dict[Scope, str] = {}
        self._forms: dict[str, set[bytes]] = {}

    async def run(self) -> None:
        await self.service.run_tasks(self.clock())

    async def erase_now(self) -> None:
        """What the background task does, two minutes on, and once more."""
        for _ in range(2):
            await self.core.privacy.erase(self.clock() + IN_FLIGHT_MS)

    async def call(self, path: str, body: Any, scope: Scope = Scope.OPERATOR) -> tuple[int, Any]:
        if scope not in self._keys:
            new = new_key(secrets.token_bytes(SECRET_BYTES))
            await Keys(self.core.pools.operator).issue(
                new, f"the {scope}'s", frozenset({scope}), None, from_ms(self.clock())
            )
            await self.core.auth.refresh()
            self._keys[scope] = new.secret
        headers = {"Authorization": f"Bearer {self._keys[scope]}"}
        async with self._session.post(self.service.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def furnish(self) -> None:
        media = await self.core.media.put(PIXEL, "image/png", 1080, 1920)
        advertiser = (await self.call("/v1/advertisers", {"name": "Kopi Rana"}))[1]["id"]
        amount = {"amount": {"micros": 1_000_000_000, "currency": "USD"}}
        await self.call(f"/v1/advertisers/{advertiser}/deposits", amount)
        for campaign in (ONCE_A_DAY, FREE):
            made = (await self.call("/v1/campaigns", campaign_body(advertiser, **campaign)))[1]["id"]
            creative = {"advertiser": advertiser, "kind": "image", "media": media, "headline": "Slow down.",
                        "call_to_action": "shop_now", "landing_url": "https://example.com/kopi"}  # fmt: skip  # laid out as rows
            shown = (await self.call("/v1/creatives", creative))[1]["id"]
            await self.call("/v1/ads", {"campaign": made, "creative": shown})
        await begin_ramp(self.core.pools, self.clock(), 10_000)
        for _ in range(2):  # the second has leases
            await self.run()

    async def tickets(self, viewer: str, **more: Any) -> list[str]:
        ask = {"viewer": viewer, "feed_length": 30, "deadline_ms": 1_000, "max_ads": 2} | more
        status, answer = await self.call("/v1/slots", ask, Scope.FEED)
        assert status == 200, answer
        return [placement["ticket"] for placement in answer["placements"]]

    async def outcomes(self, *tickets: str, kind: str = "impression") -> list[str]:
        events = [{"ticket": ticket, "kind": kind} for ticket in tickets]
        status, answer = await self.call("/v1/events", {"events": events}, Scope.FEED)
        assert status == 200, answer
        return [result["outcome"] for result in answer["results"]]

    async def fared(self, viewer: str, *ids: str, **more: Any) -> list[str]:
        outcomes = [{"id": id_, "viewer": viewer, "session_seconds": 300} | more for id_ in ids]
        status, answer = await self.call("/v1/outcomes", {"outcomes": outcomes}, Scope.FEED)
        assert status == 200, answer
        return [result["result"] for result in answer["results"]]

    def opened(self, token: str, outcome: Outcome, viewer: str) -> Event:
        ticket: Ticket = self.core.sealer.open(token, self.clock())
        verdict = Verdict(origin=Origin(device=device_of(viewer)))
        return Event(
            EventId(uuid4()), EventKind.IMPRESSION, ticket, outcome, self.clock(), None, None, verdict
        )

    async def seen_everywhere(self, *viewers: str) -> dict[str, str]:
        """Leaves something of each viewer in every place; answers a ticket of each that was not reported yet."""
        waiting = {}
        for viewer in viewers:
            first, second = await self.tickets(viewer, request="r-1")
            assert await self.outcomes(first, second) == ["recorded", "recorded"]
            waiting[viewer] = [(await self.tickets(viewer, request=f"r-{n}"))[0] for n in (2, 3, 4, 5)]
            assert await self.outcomes(first, kind="hide") == ["unbilled_kind"]
            assert await self.fared(viewer, f"session of {viewer}") == ["recorded"]
        await self.run()  # decisions are recorded, and a checkpoint is taken
        for viewer, (pending, failed, spooled, _) in waiting.items():
            await self.core.events.journal.settle([self.opened(pending, Outcome.ACCEPTED, viewer)])
            await self.core.events.journal.quarantine(self.opened(failed, Outcome.RECORDED, viewer), "a test")
            await self.core.events.spool.keep([self.opened(spooled, Outcome.RECORDED, viewer)])
        return {viewer: late for viewer, (*_, late) in waiting.items()}

    def forms(self, viewer: str) -> list[bytes]:
        """The id, its device and its pseudonyms as bytes and as text; that of a month is remembered, as its secret is destroyed. Counters
        in memory have 15 bytes of one."""
        cap, log = self.core.pseudonyms.of(viewer, self.clock())
        forms = self._forms.setdefault(viewer, {viewer.encode()})
        for raw in (cap[:15], log[:15], device_of(viewer)[:15]):
            forms |= {raw, base64.b64encode(raw), raw.hex().encode()}
        return list(forms)

    async def found(self, viewer: str, redis_url: str | None = None) -> set[str]:
        """The tables, parts of memory and keys of Redis that have any form of the viewer in them, and the spool."""
        forms = self.forms(viewer)
        places = {name async for name, data in self._dump() if any(form in data for form in forms)}
        memory = {"assignments": self.core.judged.assignments, "counters": self.core.counters, "hides": self.core.hides, "intake": self.core.intake,
                  "recording": self.core.recording, "privacy": self.core.privacy, "slots": self.core.slots}  # fmt: skip  # laid out as rows
        seen: set[int] = set()
        for name, part in memory.items():
            if any([form in data for data in _bytes_in(part, seen) for form in forms]):
                places.add(f"memory of {name}")
        spool = b"".join(file.read_bytes() for file in (self.core.settings.data_home / "spool").iterdir())
        places |= {"spool"} if any(form in spool for form in forms) else set()
        if redis_url is not None:
            with redis.Redis.from_url(redis_url) as client:
                data = b"".join(key + (client.get(key) or b"") for key in client.keys("*"))
                places |= {"redis"} if any(form in data for form in forms) else set()
        return places

    async def tables_with(self, text: str) -> set[str]:
        return {name async for name, data in self._dump() if text.encode() in data}

    async def _dump(self) -> AsyncIterator[tuple[str, bytes]]:
        connection = await superuser(self.database_url)
        try:
            for _, name in await connection.fetch(TABLES):
                rows = io.BytesIO()
                await connection.copy_from_table(name, output=rows, format="binary")
                yield name.rpartition("_2")[0] if "_2" in name else name, rows.getvalue()
        finally:
            await connection.close()


def device_of(viewer: str) -> bytes:
    """The pseudonym of a device that nobody else has."""
    return md5(viewer.encode(), usedforsecurity=False).digest()


def _bytes_in(thing: Any, seen: set[int]) -> Iterator[bytes]:
    """Every string of bytes or text that can be reached from a thing of ours."""
    if isinstance(thing, bytes | str):
        yield thing if isinstance(thing, bytes) else thing.encode("utf-8", "replace")
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping):
        parts: Any = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        parts = list(thing)
    elif isinstance(thing, Struct):
        parts = [getattr(thing, name) for name in thing.__struct_fields__]
    elif type(thing).__module__.startswith("adserve"):
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [*vars(thing).values()] if hasattr(thing, "__dict__") else []
        parts += [getattr(thing, name) for name in slots if hasattr(thing, name)]
    else:
        return
    for part in parts:
        yield from _bytes_in(part, seen)


@asynccontextmanager
async def serving(database_url: str, home: Path, **given: Any) -> AsyncIterator[Place]:
    clock = SkippingClock(system_clock)
    chosen = settings.load({}, data_home=str(home), port=0, decision_sample_rate=1.0, **given)
    service = await start(chosen, database_url, clock=clock, background=False)
    try:
        async with aiohttp.ClientSession() as session:
            yield Place(service, session, clock, database_url)
    finally:
        await service.stop()
