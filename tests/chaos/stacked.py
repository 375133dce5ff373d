"""A PostgreSQL that does not go when a replica is killed, a replica on it, and ads enough to show many at once."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from disk import Disk
from flood import ADS, FEED_LENGTH, roomy
from live import NO_ANSWER, Caller, Live, Postgres, calling, furnish, signal_all
from waiting import until

from adserve.bootstrap.core import system_clock
from adserve.database import embedded
from adserve.database.embedded import Embedded
from adserve.database.migrate import migrate
from adserve.database.pools import open_pool
from adserve.metering.tickets import Sealer
from adserve.store.secrets import Secrets

CAPPED = "capped"
CAMPAIGNS = (
    {"name": CAPPED, "caps": [{"scope": "campaign", "count": 3, "window_s": 86_400}]},
    *({"name": f"free {nth}"} for nth in range(ADS - 1)),
)
RICH = "SELECT deposit(id, 1000000000000000, 'USD', 'chaos', now()) FROM advertisers"
AGAIN_S = 60.0


class Stack:
    """`server` lives in this process; `live` is another, which reaches it by the port that `via` answers for its own."""

    def __init__(self, home: Path, via: Callable[[int], int] = lambda port: port) -> None:
        self.home = home
        self.known: set[bytes] = set()
        self.server: Embedded = asyncio.run(embedded.start(home, lambda _: None))
        migrate(self.server.url, lambda _: None)
        port = urlsplit(self.server.url).port
        assert port is not None
        self.replicas_url = self.server.url.replace(f":{port}/", f":{via(port)}/")
        self.live = Live(home, database_url=self.replicas_url, config=roomy(home))
        self.live.start()
        self.keys = asyncio.run(furnish(self.live, self.server.url, CAMPAIGNS))
        self.capped = asyncio.run(self._enrich())
        self._sealer = asyncio.run(self._read_keys())

    async def _enrich(self) -> int:
        connection = await asyncpg.connect(self.server.url, server_settings={"search_path": "adserve"})
        try:
            await connection.execute(RICH)
            campaign: int = await connection.fetchval("SELECT id FROM campaigns WHERE name = $1", CAPPED)
            return campaign
        finally:
            await connection.close()

    async def _read_keys(self) -> Sealer:
        pool = await open_pool(self.server.url, "adserve_catalogue", size=1)
        try:
            return Sealer(await Secrets(pool).ticket_keys())
        finally:
            await pool.close()

    def name_of(self, token: str) -> bytes:
        """The ticket's id, as the ledger has it."""
        return self._sealer.open(token, system_clock()).ticket.bytes

    async def kill_service(self) -> float:
        """Seconds from the kill -9 until an ad without a cap is shown again."""
        self.live.kill()
        began = time.monotonic()
        await asyncio.to_thread(self.live.start)
        await self.shows(capped=False)
        return time.monotonic() - began

    async def kill_postgres(self) -> float:
        """Seconds from the kill -9 of all of its processes until an event is recorded and an ad with a cap is shown."""
        pid_file = self.home / "postgres" / "cluster" / "postmaster.pid"
        before = pid_file.read_text()
        Postgres(self.home).signal(signal.SIGKILL)
        began = time.monotonic()
        while pid_file.read_text() == before:
            await self.server.mend()
            await asyncio.sleep(0.01)
        await self.shows(capped=True, records=True)
        return time.monotonic() - began

    async def lose_power(self, disk: Disk) -> None:
        """Of the machine that the replica and its PostgreSQL run on."""
        running = Postgres(self.home).pids()
        disk.cut_power()
        self.live.kill()
        signal_all(running, signal.SIGKILL)
        with suppress(OSError):  # it says so on a disk that is gone
            await self.server.stop()
        disk.unmount()
        disk.mount()

    async def start_again(self) -> None:
        self.server = await embedded.start(self.home, lambda _: None)
        self.live = Live(self.home, self.live.port, database_url=self.server.url, config=roomy(self.home))
        await asyncio.to_thread(self.live.start)

    async def shows(self, *, capped: bool, records: bool = False) -> None:
        async with calling(self.live, self.keys) as caller:
            await until(lambda: self._shown(caller, capped, records), AGAIN_S)

    async def _shown(self, caller: Caller, capped: bool, records: bool) -> bool:
        with suppress(*NO_ANSWER):
            viewer = f"probe {time.monotonic_ns()}"
            reply = await caller.slots(viewer, feed_length=FEED_LENGTH, max_ads=ADS)
            fitting = [
                placement["ticket"]
                for placement in reply.body["placements"]
                if (placement["ad"]["campaign"] == self.capped) is capped
            ]
            if not (fitting and records):
                return bool(fitting)
            self.known.add(self.name_of(fitting[0]))
            return (await caller.report(fitting[0])).status == 200
        return False

    def end(self) -> None:
        self.live.end()
        asyncio.run(self.server.stop())


@contextmanager
def stacked(home: Path, via: Callable[[int], int] = lambda port: port) -> Iterator[Stack]:
    stack = Stack(home, via)
    try:
        yield stack
    finally:
        stack.end()
