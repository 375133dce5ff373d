"""/v1/rollout: how much of each surface's audience sees ads, and the switch that stops them all."""

from collections.abc import Collection
from functools import partial
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from adserve.api.ramp_shapes import basis_points
from adserve.api.resource import OPERATORS
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.targeting import Country
from adserve.store import rollouts
from adserve.store.desk import Desk
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import invalid
from adserve.web.replies import json_response

Percent = Annotated[float, Meta(ge=0, le=100, description="Of up to two decimals")]


class Surface(Struct, frozen=True, forbid_unknown_fields=True):
    """`countries` overrule `percent`; a viewer without a country falls under it."""

    percent: Percent
    countries: Annotated[dict[Country, Percent], Meta(max_length=250)] = {}
    holdout_percent: Percent = 0


class Rollout(Struct, frozen=True, forbid_unknown_fields=True):
    """A surface that is left out shows ads to nobody."""

    surfaces: Annotated[dict[str, Surface], Meta(max_length=100)]


class CurrentRollout(Struct, frozen=True):
    surfaces: dict[str, Surface]
    paused: bool


class Applied(Struct, frozen=True):
    """How many of the replicas that are alive obey already."""

    applied: int
    replicas: int


class Switch(Applied, frozen=True):
    """`applied` counts those who stand by the switch as it is now."""

    paused: bool


class RolloutApi:
    def __init__(self, desk: Desk, surfaces: Collection[str]) -> None:
        self._desk = desk
        self._surfaces = surfaces

    async def get(self, _call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            current = await rollouts.read(connection)
            paused = await rollouts.paused(connection)
        return json_response(_encode(current, paused))

    async def put(self, call: Call[Rollout, NoQuery]) -> web.StreamResponse:
        wanted = {name: self._decode(name, surface) for name, surface in call.body.surfaces.items()}
        async with self._desk.transaction(None) as connection:
            await rollouts.replace(connection, wanted)
            paused = await rollouts.paused(connection)
        return json_response(_encode(wanted, paused))

    async def look(self, _call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            paused = await rollouts.paused(connection)
            applied, replicas = await rollouts.standing_by(connection)
        return json_response(Switch(applied, replicas, paused))

    async def switch(self, pause: bool, _call: Call[None, NoQuery]) -> web.StreamResponse:
        """Turns the switch, and waits a moment for the replicas to say that they obey."""
        async with self._desk.transaction(None) as connection:
            version = await rollouts.set_paused(connection, pause)

        async def ask() -> rollouts.Applied:
            async with self._desk.transaction(None) as connection:
                return await rollouts.applied(connection, version)

        return json_response(Applied(*await rollouts.obeyed(ask)))

    def _decode(self, name: str, surface: Surface) -> SurfaceRollout:
        field = f"$.surfaces.{name}"
        if name not in self._surfaces:
            raise invalid(field, f"is not one of {', '.join(self._surfaces)}")
        return SurfaceRollout(
            basis_points(f"{field}.percent", surface.percent),
            basis_points(f"{field}.holdout_percent", surface.holdout_percent),
            {
                country: basis_points(f"{field}.countries.{country}", percent)
                for country, percent in surface.countries.items()
            },
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/rollout",
                id="getRollout",
                tag="rollout",
                summary="Who sees ads",
                handle=self.get,
                scopes=OPERATORS,
                answer=CurrentRollout,
            ),
            Operation(
                method="PUT",
                path="/v1/rollout",
                id="putRollout",
                tag="rollout",
                summary="Decide who sees ads",
                handle=self.put,
                scopes=OPERATORS,
                body=Rollout,
                answer=CurrentRollout,
                refusals=(409,),
                description="What a plan of /v1/ramps holds stays as it is until the plan has ended.",
                example={
                    "surfaces": {"status": {"percent": 5, "countries": {"ID": 10}, "holdout_percent": 1}}
                },
            ),
            Operation(
                method="GET",
                path="/v1/rollout/switch",
                id="getSwitch",
                tag="rollout",
                summary="Whether all ads are paused, and how many replicas obey",
                handle=self.look,
                scopes=OPERATORS,
                answer=Switch,
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/rollout/{verb}",
                    id=f"{verb}Rollout",
                    tag="rollout",
                    summary=summary,
                    handle=partial(self.switch, pause),
                    scopes=OPERATORS,
                    answer=Applied,
                )
                for verb, pause, summary in (
                    ("pause", True, "Stop all ads at once"),
                    ("resume", False, "Let ads be shown again as the percents say"),
                )
            ),
        ]


def _percent(points: int) -> float:
    return points / 100


def _encode(current: dict[str, SurfaceRollout], paused: bool) -> CurrentRollout:
    return CurrentRollout(
        {
            name: Surface(
                _percent(of.percent_bp),
                {country: _percent(points) for country, points in of.countries.items()},
                _percent(of.holdout_bp),
            )
            for name, of in current.items()
        },
        paused,
    )
