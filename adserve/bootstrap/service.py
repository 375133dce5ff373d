"""A service from its first connection to its last: started, served, stopped in order."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from uuid import uuid4

from aiohttp import ClientSession, web
from msgspec import structs

from adserve.api.slots import SlotsApi
from adserve.api.upstream import open_session
from adserve.background import Background, Failure, Task
from adserve.bootstrap import privacy
from adserve.bootstrap.core import (
    CATALOGUE_CHANNEL,
    SWITCH_CHANNEL,
    Core,
    Progress,
    alone,
    build_core,
    draw_128_bits,
    first_tasks_of,
    later_tasks_of,
    steady_clock,
    system_clock,
)
from adserve.bootstrap.edge import Witness, console_of, events_api_of, operations_of, slots_api_of
from adserve.bootstrap.maintenance import Maintenance
from adserve.bootstrap.peers import PERIOD_S, Peers
from adserve.bootstrap.ramps import Walking
from adserve.bootstrap.reviews import counting
from adserve.database import durability
from adserve.database.pools import Sizes, open_pools
from adserve.database.refusal import DatabaseRefused
from adserve.database.replica_lock import BEAT_S, ServingLock
from adserve.database.shared_serving import SharedServing
from adserve.domain.time import SECOND_MS, Clock
from adserve.limits.keeper import TICKET_TTL_MAX_MS
from adserve.limits.rules import GRACE_MS
from adserve.settings import Settings, SettingsError
from adserve.store import ramps
from adserve.store.invoices import Drafts
from adserve.store.notify import Listener
from adserve.web.app import HANDLED, Handler, build_app
from adserve.web.auth import Auth
from adserve.web.gate import Connection
from adserve.web.lane import Decide, Lane
from adserve.web.operations import REQUESTS

log = logging.getLogger(__name__)

BACKLOG = 1_024
IDLE_S = 75.0
"""How long a connection may go without a whole head: longer than clients keep theirs, and nobody drips for ever."""
IN_FLIGHT_S = 10.0
"""How long a shutdown waits for requests that are being answered."""
HAND_OVER_S = 10.0
SPARE_CONNECTIONS = 6
"""Of the recorder's, beside its writers: filling shared counters takes two, for minutes; leases and pending events one each,
outcomes two."""
FILL_S = 1.0
FILL_WAIT_S = 1.0
"""How long a start waits for its counters: after that it serves what needs none."""
INVOICES_S = 3_600.0


class Service:
    """A process that serves: made by `start`, ended by `stop`. `url` is where it listens.

    `finished` is set when the service cannot go on: another process has taken its place.
    """

    def __init__(self, core: Core, slots: SlotsApi, session: ClientSession, peers: Peers | None) -> None:
        self.core = core
        self.url = f"http://{core.settings.host}:{core.settings.port}"
        self.finished = asyncio.Event()
        self._session = session
        self._slots = _lane(core, partial(slots.answer_plainly, core.slots, core.auth), "slots")
        self._events = _lane(core, partial(events_api_of(core).report_plainly, core.auth), "reportEvents")
        self._wakes = {
            name: asyncio.Event()
            for name in (CATALOGUE_CHANNEL, SWITCH_CHANNEL, Auth.CHANNEL, privacy.CHANNEL, ramps.CHANNEL)
        }
        self._listener = Listener(core.database_url, self._wakes)
        self._first = first_tasks_of(core, self._wakes)
        self._tasks = (*self._first, *later_tasks_of(core))
        self._runners = Background(
            (
                Task("recorder", self._record, 1.0, needed=True),
                Task("serving lock", self._keep_lock, BEAT_S),
                Task("counters", self._fill, FILL_S, core.filling.wake),
            ),
            steady_clock,
        )
        drafts = Drafts(core.pools.operator, TICKET_TTL_MAX_MS + GRACE_MS)
        invoices = Task("invoices", drafts.step, INVOICES_S)
        told = () if peers is None else (Task("peers", peers.step, PERIOD_S),)
        self._periodic = Background(
            (
                Task("listener", self._listener.step, 1.0),
                *told,
                *self._tasks,
                *Maintenance(core).tasks(),
                *_walking(core).tasks(self._wakes),
                invoices,
                counting(core.pools),
            ),
            core.clock,
        )
        self._peers = peers
        if peers is not None:
            peers.paused = lambda: core.live.paused_here
        self._due_ms: dict[str, int] = {}
        self._http: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    @property
    def failures(self) -> dict[str, Failure]:
        return self._runners.failures | self._periodic.failures

    async def run_tasks(self, now_ms: int) -> None:
        """One step of every task, in their order."""
        for task in self._tasks:
            await self._run(task, now_ms)

    async def tick(self, now_ms: int) -> None:
        """One step of every task that is due: what a virtual clock drives instead of the loops."""
        for task in self._tasks:
            if now_ms >= self._due_ms.get(task.name, 0) or (task.wake is not None and task.wake.is_set()):
                await self._run(task, now_ms)

    async def _run(self, task: Task, now_ms: int) -> None:
        if task.wake is not None:
            task.wake.clear()
        await task.step(now_ms)
        self._due_ms[task.name] = now_ms + round(task.every_s * SECOND_MS)

    async def open(self, app: web.Application, listener: socket.socket, *, background: bool) -> None:
        """Runs the first tasks once, then begins to listen, with full counters unless filling them takes long."""
        self._runners.start()
        for task in self._first:
            await self._run(task, self.core.clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(FILL_WAIT_S):
                await self.core.filling.done.wait()
        if background:
            self._periodic.start()
        self._http = web.AppRunner(app, shutdown_timeout=IN_FLIGHT_S)
        await self._http.setup()
        server, loop = self._http.server, asyncio.get_running_loop()
        assert server is not None  # noqa: S101 - for the type checker: it is set up
        handler = partial(
            Handler,
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # which it takes as the runner does, whatever its annotation says
            keepalive_timeout=IDLE_S,
            **HANDLED,  # type: ignore[arg-type]  # one flag: the checker takes it for any of the arguments
        )
        gate = partial(Connection, self.core.limiter, self.core.refusals, self._slots, self._events)
        try:
            self._server = await loop.create_server(lambda: gate(handler()), sock=listener, backlog=BACKLOG)
        except OSError as error:  # another was bound to it as well, and listened first
            raise _taken(self.core.settings, error) from error

    async def stop(self) -> None:
        """In order: accept no more, answer what is in flight, drain the recorder, stop the tasks, hand over, close.

        Where PostgreSQL hangs, all that needs it is given up after HAND_OVER_S.
        """
        if self._server is not None:
            self._server.close()
        await asyncio.gather(self._slots.close(IN_FLIGHT_S), self._events.close(IN_FLIGHT_S))
        if self._http is not None:
            await self._http.cleanup()
        handing_over = asyncio.create_task(self._hand_over())
        if (await asyncio.wait({handing_over}, timeout=HAND_OVER_S))[1]:
            log.warning("PostgreSQL hangs: closing its connections")
            self.core.pools.terminate()
        await handing_over
        await self._session.close()

    async def _hand_over(self) -> None:
        await self.core.recorder.drain()
        await self._periodic.stop()
        now_ms = self.core.clock()
        for name, hand_over in (
            *(() if self._peers is None else (("figures", self._peers.step(now_ms)),)),
            ("spool", self.core.spooled.leave()),
            ("leases", self.core.keeper.stop(now_ms)),
            ("checkpoint", self.core.checkpoint(now_ms)),
            ("recorded decisions", self.core.recording.step(now_ms)),
            ("funnel", self.core.funnel.step(now_ms, ended=True)),
            ("assignments", self.core.judged.hand_over(now_ms)),
            ("replica", self.core.catalogue.leave()),
        ):
            try:
                await hand_over
            except Exception as error:
                # PostgreSQL may be away: a start after a crash makes up for each of these.
                log.warning("not handed over", extra={"part": name, "reason": repr(error)})
        await self.give_up()
        await self.core.lock.release()
        await self.core.pools.close()

    async def give_up(self) -> None:
        """Ends what runs, before the lock goes: its keeper would take it again. Nothing is handed over."""
        await self._periodic.stop()
        await self._runners.stop()
        self._listener.close()
        self.core.filling.close()
        self.core.events.spool.close()

    async def _record(self, _now_ms: int) -> None:
        await self.core.recorder.run()

    async def _fill(self, _now_ms: int) -> None:
        await self.core.filling.step(self.core.clock())

    async def _keep_lock(self, now_ms: int) -> None:
        try:
            await self.core.lock.keep(now_ms)
        except DatabaseRefused:
            self.finished.set()
            raise


Extend = Callable[[Core, web.Application], Awaitable[None]]


async def start(  # noqa: PLR0913 - each is a seam of its own
    settings: Settings,
    database_url: str,
    *,
    clock: Clock = system_clock,
    draw: Callable[[], int] = draw_128_bits,
    background: bool = True,
    progress: Progress = log.info,
    witness: Witness = lambda slots: slots,
    extend: Extend | None = None,
    peers: Peers | None = None,
) -> Service:
    """A service that answers when this returns. The database must be migrated. Raises DatabaseRefused.

    Without `background`, `Service.tick` has to be called as time goes on. `witness` stands before the slots that the
    wrapper asks; `extend` adds pages to the application; `peers` are those who share the port.
    """
    async with AsyncExitStack() as undo:
        listener = bound(settings, shared=peers is not None)
        undo.callback(listener.close)
        settings = structs.replace(settings, port=listener.getsockname()[1])
        holder = uuid4()
        pools = await open_pools(
            database_url,
            sizes=Sizes(recorder=settings.recorder_writers + SPARE_CONNECTIONS),
            holder=holder,
        )
        undo.push_async_callback(pools.close)
        async with pools.recorder.acquire() as connection:
            await durability.check(connection, system_clock)
        lock = (
            SharedServing(database_url)
            if settings.redis_url is not None
            else ServingLock(database_url, settings.data_home, holder)
        )
        await lock.acquire(steady_clock())
        undo.push_async_callback(lock.release)
        await alone(lock, progress)
        core = await build_core(settings, database_url, pools, lock, clock, draw)
        if isinstance(lock, ServingLock):
            await core.catalogue.forget_replicas()
        session = open_session(settings.upstream_timeout_ms)
        undo.push_async_callback(session.close)
        slots = slots_api_of(core)
        service = Service(core, slots, session, peers)
        undo.push_async_callback(service.give_up)
        operations = operations_of(core, slots, session, witness, lambda: service.failures, peers)
        app = build_app(
            operations, core.auth, body_max_bytes=settings.body_max_bytes, version=version("adserve")
        )
        console_of(core, operations).add_to(app)
        if extend is not None:
            await extend(core, app)
        await service.open(app, listener, background=background)
        undo.pop_all()
    return service


def _walking(core: Core) -> Walking:
    return Walking(core.pools.operator, look_ms=core.settings.ramp_look_s * SECOND_MS)


def _lane(core: Core, decide: Decide, operation: str) -> Lane:
    return Lane(
        decide,
        core.limiter.seconds,
        core.clock,
        body_max_bytes=core.settings.body_max_bytes,
        count=REQUESTS.labels(operation, "200").inc,
    )


def bound(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Bound, so that the port is ours and known, and not listening: nobody waits for us while we start. A shared one others
    may bind and listen on, too: the kernel deals connections out between them."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise _taken(settings, error) from error
    return listener


def _taken(settings: Settings, error: OSError) -> SettingsError:
    return SettingsError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}")
