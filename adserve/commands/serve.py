"""`adserve serve`: answers slot requests and records events until it is told to stop."""

import argparse
import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop
from pythonjsonlogger.json import JsonFormatter

from adserve.bootstrap.memory import collect_rarely
from adserve.bootstrap.peers import Peers
from adserve.bootstrap.server import database_server
from adserve.bootstrap.service import Service, start
from adserve.bootstrap.supervisor import Supervisor
from adserve.commands.arguments import positive
from adserve.database import schema
from adserve.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings say everything else."""
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes that share the port and the counters of ADSERVE_REDIS_URL (default: 1)",
    )
    # This is one of them, started by the first process.
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--link", type=int, help=argparse.SUPPRESS)  # the socket over which they speak
    parser.add_argument("--paused", action="store_true", help=argparse.SUPPRESS)  # the others had SIGUSR1


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.workers > 1 and settings.redis_url is None:
        raise SettingsError(
            "--workers needs ADSERVE_REDIS_URL: with counters in memory only one process may serve"
        )
    configure_logs(settings.log_level)
    if arguments.worker is not None:
        link = socket.socket(fileno=arguments.link)
        serving = _work(settings, arguments.worker, link, paused=arguments.paused)
    elif arguments.workers > 1:
        serving = _supervise(settings, arguments.workers)
    else:
        serving = _serve(settings)
    try:
        return uvloop.run(serving)
    except asyncio.CancelledError:  # it was to stop before it had started
        return 0


def configure_logs(level: str) -> None:
    """One JSON object a line on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


async def _serve(settings: Settings) -> int:
    stop, pause = stop_signal(), set_by(signal.SIGUSR1)
    with heeding(stop) as started:
        async with database_server(settings, log.info) as url:
            if settings.database_url is None:
                await schema.update(url, log.info)
            return await _serve_until(stop, pause, settings, url, started)


async def _work(settings: Settings, worker: str, link: socket.socket, *, paused: bool) -> int:
    """One of several: PostgreSQL and its schema are the supervisor's."""
    assert settings.database_url is not None  # noqa: S101 - the supervisor says which
    stop, pause = stop_signal(), set_by(signal.SIGUSR1)
    if paused:
        pause.set()
    with heeding(stop) as started:
        peers = Peers(worker, link, stop.set)
        return await _serve_until(stop, pause, settings, settings.database_url, started, peers)


async def _supervise(settings: Settings, workers: int) -> int:
    stop, pause = stop_signal(), set_by(signal.SIGUSR1)
    with heeding(stop) as started:
        async with database_server(settings, log.info) as url:
            if settings.database_url is None:
                await schema.update(url, log.info)
            supervisor = Supervisor(settings, url, workers)
            started()
            if pause.is_set():
                supervisor.pause()
            running = asyncio.create_task(supervisor.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, supervisor.pause)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            supervisor.stop()
            return await running


async def _serve_until(
    stop: asyncio.Event,
    pause: asyncio.Event,
    settings: Settings,
    url: str,
    started: Callable[[], object],
    peers: Peers | None = None,
) -> int:
    service = await start(settings, url, peers=peers)
    started()
    collect_rarely()
    try:
        if pause.is_set():  # it came while we started
            service.core.live.pause()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, service.core.live.pause)
        log.info("serving", extra={"url": service.url})
        return await until(stop, service)
    finally:
        await service.stop()


def stop_signal() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM."""
    return set_by(signal.SIGINT, signal.SIGTERM)


def set_by(*signals: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    return event


@contextmanager
def heeding(stop: asyncio.Event) -> Iterator[Callable[[], object]]:
    """The task is cancelled when it is to stop before it has called what it is given: a start may wait for minutes, for
    PostgreSQL's recovery or for an earlier process."""
    starting = asyncio.current_task()
    assert starting is not None  # noqa: S101 - for the type checker
    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(lambda told: None if told.cancelled() else starting.cancel())
    try:
        yield stopping.cancel
    finally:
        stopping.cancel()


async def until(stop: asyncio.Event, service: Service) -> int:
    """Waits for the end; 1 when the service could not go on."""
    ends = [asyncio.create_task(stop.wait()), asyncio.create_task(service.finished.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    return 1 if service.finished.is_set() else 0
