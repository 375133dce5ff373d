"""`adserve serve`: answers slot requests and records events until it is told to stop."""

import argparse
import asyncio
import logging
import signal

import uvloop
from pythonjsonlogger.json import JsonFormatter

from adserve.bootstrap.memory import collect_rarely
from adserve.bootstrap.server import database_server
from adserve.bootstrap.service import Service, start
from adserve.database import schema
from adserve.settings import Settings

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: the settings say everything."""


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    configure_logs(settings.log_level)
    return uvloop.run(_serve(settings))


def configure_logs(level: str) -> None:
    """One JSON object a line on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


async def _serve(settings: Settings) -> int:
    stop = stop_signal()
    async with database_server(settings, log.info) as url:
        if settings.database_url is None:
            await schema.update(url, log.info)
        service = await start(settings, url)
        collect_rarely()
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, service.core.live.pause)
            log.info("serving", extra={"url": service.url})
            return await until(stop, service)
        finally:
            await service.stop()


def stop_signal() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def until(stop: asyncio.Event, service: Service) -> int:
    """Waits for the end; 1 when the service could not go on."""
    ends = [asyncio.create_task(stop.wait()), asyncio.create_task(service.finished.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    return 1 if service.finished.is_set() else 0
