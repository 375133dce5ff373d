"""`adserve serve` as a process of its own, and what a test does to it and to its PostgreSQL."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import unused_port
from service import Reply, campaign_body
from waiting import until

from adserve.access.keys import SECRET_BYTES, Scope, new_key
from adserve.database import installation
from adserve.database.pools import open_pool
from adserve.domain.time import from_ms
from adserve.simulation.caller import OUR_CLIENT
from adserve.store.keys import Keys
from adserve.store.media import Media

STARTS_WITHIN_S = 120
STOPS_WITHIN_S = 60
DEADLINE_MS = 60_000
"""Of a decision, where none is to miss it."""
FEED_LENGTH = 30
NO_ANSWER = (aiohttp.ClientError, OSError)


class Live:
    """A replica on a port of its own, which it keeps when it is started again."""

    def __init__(
        self, home: Path, port: int | None = None, *, arguments: Collection[str] = (), **settings: object
    ) -> None:
        self.home = home
        self.home.mkdir(exist_ok=True)
        self._arguments = arguments
        self.port = port or unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        always = {"data_home": home, "port": self.port, "log_level": "WARNING"}
        self._settings = {**always, "decision_deadline_max_ms": DEADLINE_MS, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def database_url(self) -> str:
        """The given one, or that of the embedded server."""
        if "database_url" in self._settings:
            return str(self._settings["database_url"])
        place = installation.locate(self.home)
        return place.url(int(place.address.read_text()), "adserve")

    @property
    def cpu_s(self) -> float:
        """What the process has used since it began, which says more than a clock on a busy machine."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def spawn(self) -> None:
        ours = {f"ADSERVE_{name.upper()}": str(value) for name, value in self._settings.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("ADSERVE_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "adserve", "serve", *self._arguments],
                env=others | ours,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Returns when it listens, which it does not do before it can answer."""
        self.spawn()
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self.listens:
            assert self._process is not None
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code."""
        assert self._process is not None
        return self._process.wait(STOPS_WITHIN_S)

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    @property
    def listens(self) -> bool:
        return listens(self.port)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """Whatever has become of it."""
        if self.runs:
            self.terminate()

    @property
    def _log(self) -> Path:
        return self.home / f"serve-{self.port}.log"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Postgres:
    """All processes of the server of a data home."""

    def __init__(self, home: Path) -> None:
        self._pid_file = home / "postgres" / "cluster" / "postmaster.pid"

    def pids(self) -> list[int]:
        """The postmaster first; none when there is none just now."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int(self._pid_file.read_text().split()[0])
            return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        return []

    def signal(self, number: signal.Signals) -> None:
        signal_all(self.pids(), number)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass
class Caller:
    """Speaks HTTP with a replica. `keys` has a secret for each scope."""

    url: str
    session: aiohttp.ClientSession
    keys: dict[str, str]

    async def call(
        self, method: str, path: str, body: Any = None, key: str | None = "operator", **headers: str
    ) -> Reply:
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        given = {} if body is None else {"json": body}
        async with self.session.request(
            method, self.url + path, headers=headers, allow_redirects=False, **given
        ) as answer:
            raw = await answer.read()
            decoded = await answer.json(content_type=None) if "json" in answer.content_type else None
            return Reply(answer.status, decoded, answer.headers, raw)

    async def slots(self, viewer: str, **more: Any) -> Reply:
        ask = {"viewer": viewer, "feed_length": FEED_LENGTH, "deadline_ms": DEADLINE_MS} | more
        return await self.call("POST", "/v1/slots", ask, "feed")

    async def tickets(self, viewer: str, **more: Any) -> list[str]:
        reply = await self.slots(viewer, **more)
        assert reply.status == 200, reply
        return [placement["ticket"] for placement in reply.body["placements"]]

    async def report(self, *tickets: str, kind: str = "impression") -> Reply:
        events = [{"ticket": ticket, "kind": kind} for ticket in tickets]
        return await self.call("POST", "/v1/events", {"events": events}, "feed")

    async def outcomes(self, *tickets: str, kind: str = "impression") -> list[str]:
        reply = await self.report(*tickets, kind=kind)
        assert reply.status == 200, reply
        return [result["outcome"] for result in reply.body["results"]]

    async def rated(self, *tickets: str) -> list[str]:
        """The outcomes, of what PostgreSQL was too slow for at first those that it has later."""
        outcomes = await self.outcomes(*tickets)
        for nth, ticket in enumerate(tickets):
            while outcomes[nth] == "accepted":
                await asyncio.sleep(0.1)
                outcomes[nth] = (await self.kinds(ticket))["impression"]
        return outcomes

    async def kinds(self, ticket: str) -> dict[str, str]:
        """What became of each kind of event of it."""
        reply = await self.call("GET", f"/v1/events/{ticket}", key="feed")
        assert reply.status == 200, reply
        return {event["kind"]: event["outcome"] for event in reply.body["events"]}

    async def no_fill(self, viewer: str) -> str | None:
        answer: str | None = (await self.slots(viewer)).body["no_fill"]
        return answer

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        reply = await self.call("GET", "/readyz", key=None)
        return reply.status, reply.body["parts"]


@asynccontextmanager
async def calling(live: Live, keys: dict[str, str]) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession(auto_decompress=False, headers=OUR_CLIENT) as session:
        yield Caller(live.url, session, keys)


async def furnish(
    live: Live, database_url: str, campaigns: Collection[dict[str, Any]] = ({},)
) -> dict[str, str]:
    """Keys, an advertiser with money, and an ad of each campaign that viewers are shown by now; answers the keys."""
    keys = {}
    pool = await open_pool(database_url, "adserve_operator", size=1)
    try:
        media = await Media(live.home / "media", pool).put(b"not looked into", "image/png", 1080, 1920)
        for scope in (Scope.FEED, Scope.OPERATOR):
            new = new_key(secrets.token_bytes(SECRET_BYTES))
            now = from_ms(time.time_ns() // 1_000_000)
            await Keys(pool).issue(new, "chaos", frozenset({scope}), None, now)
            keys[str(scope)] = new.secret
    finally:
        await pool.close()
    async with calling(live, keys) as caller:
        await until(lambda: _known(caller))
        advertiser = await _make(caller, "/v1/advertisers", {"name": "Kopi Rana"})
        amount = {"amount": {"micros": 1_000_000_000, "currency": "USD"}}
        await _make(caller, f"/v1/advertisers/{advertiser}/deposits", amount)
        for campaign in campaigns:
            campaign_id = await _make(caller, "/v1/campaigns", campaign_body(advertiser, **campaign))
            creative = {
                "advertiser": advertiser,
                "kind": "image",
                "media": media,
                "headline": "Slow down.",
                "call_to_action": "shop_now",
                "landing_url": "https://example.com/kopi",
            }
            creative_id = await _make(caller, "/v1/creatives", creative)
            await _make(caller, "/v1/ads", {"campaign": campaign_id, "creative": creative_id})
        await caller.call("PUT", "/v1/rollout", {"surfaces": {"status": {"percent": 100}}})
        await until(lambda: _places(caller, len(campaigns)))
    return keys


async def _known(caller: Caller) -> bool:
    return (await caller.call("GET", "/v1/rollout")).status == 200


async def _places(caller: Caller, ads: int) -> bool:
    return len(await caller.tickets(secrets.token_hex(8), max_ads=ads)) == ads


async def _make(caller: Caller, path: str, body: dict[str, Any]) -> int:
    reply = await caller.call("POST", path, body)
    assert reply.status == 201, reply
    made: int = reply.body.get("id", 0)
    return made
