"""`adserve demo`: the whole service with a sample feed before it, for a person or (`--once`) for a crowd."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from tqdm import tqdm

from adserve.access.keys import Scope
from adserve.background import Background, Task
from adserve.bootstrap.core import Core, draw_128_bits, system_clock
from adserve.bootstrap.server import database_server
from adserve.bootstrap.service import Service, start
from adserve.commands.arguments import positive
from adserve.commands.scratch import issue_key, scratch
from adserve.commands.serve import configure_logs, stop_signal, until
from adserve.database import fresh, schema
from adserve.database.refusal import DatabaseRefused
from adserve.domain.surfaces import Surface
from adserve.pages.demo.handlers import SURFACE, DemoPages
from adserve.pages.demo.service import Service as Reached
from adserve.pages.demo.witness import Witness
from adserve.settings import Settings
from adserve.simulation.caller import OUR_CLIENT, Caller, CallRefused
from adserve.simulation.clock import SkippingClock
from adserve.simulation.crowd import Crowd, viewers
from adserve.simulation.onlookers import ROUND_S, Harm, Onlookers
from adserve.simulation.report import Tally
from adserve.simulation.seed import Api, SeedError, plant
from adserve.simulation.summary import Summary, summary_of, text_of
from adserve.simulation.upstream import upstream_app
from adserve.store.audit import Audit
from adserve.store.books import reconciled
from adserve.store.figures import Figures

DATABASE = "adserve_demo"
ART = "/demo/art"
APPLIED_POLL_S = 0.05
RAMP_LOOK_S = 2
"""The demo's ramp takes a minute, not weeks."""

FOR_PEOPLE = {"percent": 100}
FOR_THE_CROWD = {"percent": 90, "holdout_percent": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="send a crowd through, report and stop")
    parser.add_argument("--json", action="store_true", help="with --once: report as one line of JSON")
    parser.add_argument(
        "--viewers", type=positive, default=300, help="with --once: the size of the crowd (300)"
    )
    parser.add_argument("--seed", type=int, default=0, help="with --once: who is in the crowd (0)")
    parser.add_argument(
        "--keep", action="store_true", help="with --once: keep the database and print its URL"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """0 when it was stopped or everything adds up, 1 when something does not."""
    configure_logs("WARNING")
    try:
        if not arguments.once:
            return uvloop.run(_show(settings))
        summary = uvloop.run(_once(arguments, settings))
    except (DatabaseRefused, CallRefused, SeedError) as error:
        _say(f"adserve demo: {error}")
        return 1
    print(summary.json() if arguments.json else text_of(summary))
    return 1 if summary.differences else 0


async def _show(settings: Settings) -> int:
    stop = stop_signal()
    async with (
        database_server(settings, _say) as server_url,
        _sample_upstream() as upstream_url,
        aiohttp.ClientSession(headers=OUR_CLIENT) as session,
    ):
        database_url = await fresh.ensure(server_url, DATABASE)
        await schema.update(database_url, _say)
        witness, harm = Witness(), Harm()
        service = await start(
            _wrapping(settings, upstream_url),
            database_url,
            witness=witness.before,
            extend=partial(_add_pages, session, witness, harm),
        )
        try:
            async with _onlooking(service, session, harm):
                await _plant(service, session, FOR_PEOPLE)
                key = await issue_key(service.core, "demo console", Scope.OPERATOR)
                _say(f"\n  Open {service.url}/demo")
                _say(f"  Console: {service.url}/console, with the operator key {key}")
                _say(f"  API: {service.url}/docs\n  Ctrl-C stops everything.\n")
                return await until(stop, service)
        finally:
            await service.stop()


async def _once(arguments: argparse.Namespace, settings: Settings) -> Summary:
    clock = SkippingClock(system_clock)
    async with (
        scratch(settings, "demo", _say, keep=arguments.keep) as (own, database_url),
        _sample_upstream() as upstream_url,
        aiohttp.ClientSession(headers=OUR_CLIENT) as session,
    ):
        service = await start(_wrapping(own, upstream_url), database_url, clock=clock)
        try:
            await _plant(service, session, FOR_THE_CROWD)
            return await _crowded(arguments, service, session, clock)
        finally:
            await service.stop()


async def _crowded(
    arguments: argparse.Namespace, service: Service, session: aiohttp.ClientSession, clock: SkippingClock
) -> Summary:
    tally = Tally()
    crowd = Crowd(Caller(session, service.url, await issue_key(service.core, "crowd", Scope.FEED)), tally)
    with tqdm(total=arguments.viewers, desc="crowd", unit="viewer", disable=None) as bar:
        await crowd.go(list(viewers(arguments.viewers, arguments.seed)), clock.skip, bar.update)
    books = await reconciled(service.core.pools.analyst)
    ads = service.core.live.current().snapshot.ads
    return summary_of(
        crowd,
        tally,
        await Audit(service.core.pools.recorder).stored(),
        viewers=arguments.viewers,
        campaigns={ad.campaign.id: ad.campaign.name for ad in ads},
        differences=[str(difference) for difference in books.differences],
    )


async def _plant(service: Service, session: aiohttp.ClientSession, rollout: dict[str, int]) -> None:
    """Sets up what is missing of the cast, opens the rollout unless somebody has set it, and returns when the service
    decides by both."""
    core = service.core
    key = await issue_key(core, "planting the demo", Scope.OPERATOR)
    if not core.live.current().snapshot.ads:
        _say("drawing and planting the cast, once")
    await plant(Api(session, service.url, key), core.media.put, f"{core.settings.base_url}/demo/visit")
    if SURFACE not in core.live.current().snapshot.rollouts:
        await Caller(session, service.url, key).call("PUT", "/v1/rollout", {"surfaces": {SURFACE: rollout}})
    planted = await core.catalogue.state()
    while core.live.current().snapshot.version < planted.catalogue_version:  # noqa: ASYNC110 - once, at start
        await asyncio.sleep(APPLIED_POLL_S)


def _wrapping(settings: Settings, upstream_url: str) -> Settings:
    """Of whatever surfaces there are, the demo has one."""
    surface = settings.surfaces.get(SURFACE, Surface())
    return msgspec.structs.replace(
        settings, upstream_url=upstream_url, surfaces={SURFACE: surface}, ramp_look_s=RAMP_LOOK_S
    )


async def _add_pages(
    session: aiohttp.ClientSession, witness: Witness, harm: Harm, core: Core, app: web.Application
) -> None:
    keys = [await issue_key(core, f"demo {scope}", scope) for scope in (Scope.FEED, Scope.OPERATOR)]
    service = Reached(session, core.settings.base_url, *keys)
    figures = Figures(core.pools.analyst, core.clock)
    group = core.settings.surfaces[SURFACE].group
    DemoPages(service, figures, witness, core.live.current, group, harm).add_to(app)


@asynccontextmanager
async def _onlooking(service: Service, session: aiohttp.ClientSession, harm: Harm) -> AsyncIterator[None]:
    """Lives while somebody looks at the demo, and goes before the service does."""
    core = service.core
    caller = Caller(session, service.url, await issue_key(core, "demo onlookers", Scope.FEED))
    chance = Random(draw_128_bits())  # noqa: S311 - invented viewers hold no secrets
    onlookers = Onlookers(caller, lambda: bool(core.live.current().snapshot.stages), harm, chance)
    living = Background((Task("onlookers", onlookers.step, ROUND_S),), core.clock)
    living.start()
    try:
        yield
    finally:
        await living.stop()


@asynccontextmanager
async def _sample_upstream() -> AsyncIterator[str]:
    runner = web.AppRunner(upstream_app(ART), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
