"""/healthz, /readyz and /metrics: for who runs the service."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from adserve.web.operations import AnyQuery, Call, Operation
from adserve.web.replies import json_response


class Part(Struct, frozen=True):
    """One thing that the service uses. `detail` says how it is, also when it is well; `needed` whether the service could not decide
    or not record without it just now."""

    ok: bool
    detail: str = ""
    needed: bool = True


class Alive(Struct, frozen=True):
    status: str = "ok"


class Readiness(Struct, frozen=True):
    ready: bool
    parts: dict[str, Part]


Check = Callable[[], Part]


async def _own_metrics() -> bytes:
    return generate_latest()


class Health:
    """`checks` read what is known already: they await nothing and never fail. `metrics` gives what Prometheus reads."""

    def __init__(
        self, checks: Mapping[str, Check], metrics: Callable[[], Awaitable[bytes]] = _own_metrics
    ) -> None:
        self._checks = checks
        self._metrics = metrics

    async def healthz(self, _call: Call[None, AnyQuery]) -> web.StreamResponse:
        return json_response(Alive())

    async def readyz(self, _call: Call[None, AnyQuery]) -> web.StreamResponse:
        parts = {name: check() for name, check in self._checks.items()}
        ready = all(part.ok or not part.needed for part in parts.values())
        return json_response(Readiness(ready, parts), 200 if ready else 503)

    async def metrics(self, _call: Call[None, AnyQuery]) -> web.StreamResponse:
        return web.Response(body=await self._metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/healthz",
                id="healthz",
                tag="service",
                summary="The process is alive",
                handle=self.healthz,
                query=AnyQuery,
                answer=Alive,
            ),
            Operation(
                method="GET",
                path="/readyz",
                id="readyz",
                tag="service",
                summary="It can decide and record; each part is named",
                description="Answers 503 with the same body when it cannot. While PostgreSQL is away it can, as long as the snapshot "
                "holds and the spool takes events.",
                handle=self.readyz,
                query=AnyQuery,
                answer=Readiness,
                statuses=(200, 503),
            ),
            Operation(
                method="GET",
                path="/metrics",
                id="metrics",
                tag="service",
                summary="Figures for Prometheus",
                handle=self.metrics,
                query=AnyQuery,
                content_types=("text/plain",),
            ),
        ]
