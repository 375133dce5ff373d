"""The console over real parts: a database, three replicas that follow the switch, and plans that see what a test says.

Only what viewers do is made up, as sums: it is judged, decided, stored and shown by the service's own code.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp import web
from service import SURFACES, desks

from adserve.access.keys import SECRET_BYTES, Scope, new_key
from adserve.api.ramps import RampsApi
from adserve.api.rollout import RolloutApi
from adserve.bootstrap.core import system_clock
from adserve.bootstrap.ramps import Walking
from adserve.catalogue.refresh import Refresh
from adserve.database.pools import Pools
from adserve.domain.ramps import COMPARED, OF_EXPOSED, Evidence, Look, Metric, Moments, Ramp
from adserve.domain.time import HOUR_MS, SECOND_MS, from_ms
from adserve.pages.console.handlers import ConsolePages
from adserve.prediction.prior import Prior
from adserve.rollout.guardrails import judge
from adserve.rollout.mismatch import mismatch_of
from adserve.selection.state import LiveView
from adserve.store.catalogue import Catalogue
from adserve.store.keys import Keys
from adserve.store.sessions import Sessions
from adserve.web.app import build_app
from adserve.web.auth import Auth

REPLICAS = 3
VIEWERS_PER_HOUR_AND_PERCENT = 400
VIEWERS_OF_A_PERCENT = 20_000

USUAL: Mapping[Metric, tuple[float, float]] = {
    Metric.STATUSES_VIEWED: (24.0, 15.0),
    Metric.SESSION_SECONDS: (310.0, 240.0),
    Metric.RETURNS_NEXT_DAY: (0.62, 0.49),
    Metric.POSTS_MADE: (0.8, 1.1),
    Metric.HIDE_RATE: (0.012, 0.11),
    Metric.REPORT_RATE: (0.0011, 0.034),
    Metric.AD_LOAD: (2.4, 1.3),
    Metric.CLICK_RATE: (0.018, 0.14),
}
"""A viewer's mean and deviation."""
IMPRESSIONS = 6


class Console:
    """`effects` are what ads change, as a share of what is usual; `operational` what was measured of late."""

    def __init__(self, pools: Pools, url: str, key: str, auth: Auth) -> None:
        self.pools = pools
        self.url = url
        self.key = key
        self.auth = auth
        self.ahead_ms = 0
        self.effects: dict[Metric, float] = {}
        self.operational = {Metric.DECISION_P99_MS: 11.2, Metric.ERRORS: 0.0002}
        self.imbalance = 1.0
        self.replicas: list[Refresh] = []
        self.walking = Walking(pools.operator, self._observe)

    def clock(self) -> int:
        return system_clock() + self.ahead_ms

    async def look(self, times: int = 1, every_ms: int = HOUR_MS) -> None:
        """Lets time pass, and every plan look at its step after each part of it."""
        for _ in range(times):
            self.ahead_ms += every_ms
            await self.walking.step(self.clock())

    async def follow(self) -> None:
        """One turn of every replica that follows the catalogue and the switch."""
        for refresh in self.replicas:
            await refresh.step(self.clock())
            await refresh.switch(self.clock())

    async def _observe(self, _connection: Any, ramp: Ramp, now_ms: int) -> Look:
        step = ramp.plan.steps[ramp.step]
        hours = (now_ms - ramp.step_entered_at_ms) / HOUR_MS
        percent = step.percent_bp / 100
        audience = VIEWERS_OF_A_PERCENT * percent
        came = VIEWERS_PER_HOUR_AND_PERCENT * percent * hours
        exposed = round(audience * came / (audience + came)) + round(20 * hours)
        control = round(exposed * self.imbalance * (1 + 0.004 * wave(now_ms, "arms")))
        evidence = Evidence(
            exposed,
            control,
            0.5,
            {metric: self._arms(metric, exposed, control, now_ms) for metric in COMPARED},
            {
                metric: sums(
                    exposed, IMPRESSIONS, USUAL[metric], 1 + self.effects.get(metric, 0), now_ms, metric
                )
                for metric in OF_EXPOSED
            },
            self.operational,
        )
        verdicts = tuple(judge(ramp.plan, ramp.step, evidence))
        return Look(now_ms, ramp.step, exposed, control, verdicts, mismatch_of(exposed, control, 0.5))

    def _arms(self, metric: Metric, exposed: int, control: int, now_ms: int) -> tuple[Moments, Moments]:
        usual, change = USUAL[metric], 1 + self.effects.get(metric, 0)
        return sums(exposed, 1, usual, change, now_ms, metric), sums(control, 1, usual, 1.0, now_ms, "")


def wave(now_ms: int, name: str) -> float:
    """Between -1 and 1, the same for the same moment and name: a chance that wanders slowly, as that of sums does."""
    hours, phase = now_ms / HOUR_MS, float(sum(name.encode()))
    return 0.6 * math.sin(hours / 7 + phase) + 0.4 * math.sin(hours / 2.3 + 3 * phase)


def sums(
    viewers: int, per_viewer: int, usual: tuple[float, float], change: float, now_ms: int, name: str
) -> Moments:
    """Of viewers with `per_viewer` of what is counted in, each with a mean that is off by about a standard error."""
    mean, deviation = usual[0] * change, usual[1]
    y = float(viewers * per_viewer)
    mean += 0.8 * wave(now_ms, name) * deviation / max(1.0, y) ** 0.5
    x = mean * y
    xx = (deviation**2 / per_viewer + mean**2) * viewers * per_viewer**2
    return Moments(viewers, x, y, xx, mean * viewers * per_viewer**2, float(viewers * per_viewer**2))


@asynccontextmanager
async def serve_console(pools: Pools) -> AsyncIterator[Console]:
    auth, desk = Auth(Keys(pools.catalogue)), desks(pools)[0]
    new = new_key(secrets.token_bytes(SECRET_BYTES))
    await Keys(pools.operator).issue(new, "Mira Tan", frozenset({Scope.OPERATOR}), None, from_ms(0))
    await auth.refresh()
    console = Console(pools, "", new.secret, auth)
    operations = [
        operation
        for api in (RolloutApi(desk, SURFACES), RampsApi(desk, SURFACES, console.clock))
        for operation in api.operations()
    ]
    app = build_app(operations, auth, body_max_bytes=200_000, version="1")
    ConsolePages(operations, auth, Sessions(desk), SURFACES, system_clock).add_to(app)
    for number in range(1, REPLICAS + 1):
        live = LiveView(SURFACES, Prior({}))
        console.replicas.append(
            Refresh(Catalogue(pools.catalogue, UUID(int=number)), live.publish, live.obey)
        )
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    console.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    following = asyncio.create_task(_follow(console))
    try:
        yield console
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()


async def _follow(console: Console) -> None:
    while True:
        await console.follow()
        await asyncio.sleep(0.1)


async def tell_story(console: Console) -> None:
    """Days of rollouts: one plan is done, one was rolled back, one is under way."""
    console.ahead_ms = -21 * 24 * HOUR_MS
    await plan(console, ["NZ"], [1, 10, 100], "New Zealand first, as ever")
    await console.look(8, 6 * HOUR_MS)
    await plan(console, ["BR"], [0.1, 1, 10], "Brazil asked for ads", approval=())
    await console.look(8, 6 * HOUR_MS)
    console.effects = {Metric.SESSION_SECONDS: -0.07}
    await console.look(40, HOUR_MS)
    console.effects = {}
    console.ahead_ms = -6 * 24 * HOUR_MS
    await console.look(4, 6 * HOUR_MS)
    await plan(console, ["ID", "SG"], [0.01, 0.1, 1, 5, 25, 50, 100], "First ads in Indonesia and Singapore")
    await console.look(round((-console.ahead_ms - 20 * SECOND_MS) // HOUR_MS), HOUR_MS)
    console.ahead_ms = 0


GUARDRAILS = [
    {"metric": "session_seconds", "direction": "falls", "bound": 0.02, "min_viewers": 300},
    {"metric": "statuses_viewed", "direction": "falls", "bound": 0.02, "min_viewers": 300},
    {"metric": "returns_next_day", "direction": "falls", "bound": 0.015, "min_viewers": 1_000},
    {
        "metric": "hide_rate",
        "direction": "rises",
        "bound": 0.03,
        "on_breach": "hold",
        "min_viewers": 200,
    },
    {"metric": "decision_p99_ms", "direction": "rises", "bound": 50, "on_breach": "hold", "min_viewers": 0},
]


async def plan(
    console: Console,
    countries: list[str],
    percents: list[float],
    reason: str,
    approval: tuple[float, ...] = (25.0,),
) -> None:
    steps = [
        {
            "percent": percent,
            "min_time_s": 4 * 3_600 if percent < 1 else 86_400,
            "min_viewers": 0 if percent < 1 else 1_000,
            "approval": percent in approval,
        }
        for percent in percents
    ]
    body = {
        "surface": "status",
        "countries": countries,
        "steps": steps,
        "guardrails": GUARDRAILS,
        "reason": reason,
    }
    async with (
        aiohttp.ClientSession(console.url, headers={"Authorization": f"Bearer {console.key}"}) as session,
        session.post("/v1/ramps", json=body) as answer,
    ):
        assert answer.status == 201, await answer.text()
    await console.look(1, SECOND_MS)
