"""/v1/ramps: plans by which a surface's audience gets ads step by step, and what they must not make worse."""

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct

from adserve.api.ramp_shapes import (
    STEPS_MAX,
    ActBody,
    LookShown,
    MoveShown,
    PlanBody,
    RampShown,
    decode_plan,
    encode_look,
    encode_moved,
    encode_ramp,
)
from adserve.api.resource import OPERATORS
from adserve.domain.ramps import Act
from adserve.domain.time import Clock
from adserve.store import ramps, rollouts
from adserve.store.desk import Connection, Desk
from adserve.store.idempotency import Answer
from adserve.web.idempotency import once
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.paging import PageQuery, encode_cursor, id_after
from adserve.web.replies import Page, answer_response, created, json_response

POINTS_MAX = 500


class RampQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """`active` leaves out plans that have ended, or (false) those that have not."""

    active: bool | None = None
    surface: str | None = None


class LooksQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The looks at a step, from 1 on (without one: at all of them), thinned out evenly to `points` over the time that they span."""

    step: Annotated[int, Meta(ge=1, le=STEPS_MAX)] | None = None
    points: Annotated[int, Meta(ge=1, le=POINTS_MAX)] = 200


class Looks(Struct, frozen=True):
    """Oldest first; the newest look is always among them."""

    items: list[LookShown]


class RampsApi:
    def __init__(self, desk: Desk, surfaces: Collection[str], clock: Clock) -> None:
        self._desk = desk
        self._surfaces = surfaces
        self._clock = clock

    async def create(self, call: Call[PlanBody, NoQuery]) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            answer = await once(connection, call, partial(self._create, connection, call))
        return answer_response(answer)

    async def _create(self, connection: Connection, call: Call[PlanBody, NoQuery]) -> Answer:
        now_ms = self._clock()
        plan = decode_plan(call.body, self._surfaces, now_ms)
        id_ = await ramps.create(connection, plan, call.caller.name, call.body.reason, now_ms)
        return created(await self._shown(connection, id_), f"/v1/ramps/{id_}")

    async def page(self, call: Call[None, RampQuery]) -> web.StreamResponse:
        query = call.query
        async with self._desk.transaction(None) as connection:
            paused = await rollouts.paused(connection)
            filters = query.active, query.surface
            found = await ramps.page(connection, id_after(query), query.limit + 1, *filters)
            looks = await ramps.newest_looks(connection, [made.ramp.id for made in found])
        shown, now_ms = found[: query.limit], self._clock()
        following = encode_cursor(shown[-1].ramp.id) if len(found) > query.limit else None
        items = [encode_ramp(made, looks[made.ramp.id], now_ms, paused) for made in shown]
        return json_response(Page(items, following))

    async def get(self, call: Call[None, NoQuery]) -> web.StreamResponse:
        async with self._desk.transaction(None) as connection:
            return json_response(await self._shown(connection, call.id))

    async def history(self, call: Call[None, PageQuery]) -> web.StreamResponse:
        query = call.query
        async with self._desk.transaction(None) as connection:
            await ramps.one(connection, call.id)
            found = await ramps.history(connection, call.id, id_after(query), query.limit + 1)
        shown = found[: query.limit]
        following = encode_cursor(shown[-1].id) if len(found) > query.limit else None
        return json_response(Page([encode_moved(moved) for moved in shown], following))

    async def looks(self, call: Call[None, LooksQuery]) -> web.StreamResponse:
        query = call.query
        step = None if query.step is None else query.step - 1
        async with self._desk.transaction(None) as connection:
            await ramps.one(connection, call.id)
            found = await ramps.looks(connection, call.id, step, query.points)
        return json_response(Looks([encode_look(look) for look in found]))

    async def act(self, act: Act, call: Call[ActBody, NoQuery]) -> web.StreamResponse:
        step = None if call.body.step is None else call.body.step - 1
        async with self._desk.transaction(None) as connection:
            await ramps.act(connection, call.id, act, call.caller.name, call.body.reason, self._clock(), step)
            return json_response(await self._shown(connection, call.id))

    async def _shown(self, connection: Connection, id_: int) -> RampShown:
        made, paused = await ramps.one(connection, id_), await rollouts.paused(connection)
        looks = await ramps.newest_looks(connection, [id_])
        return encode_ramp(made, looks[id_], self._clock(), paused)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/ramps",
                id="createRamp",
                tag="ramps",
                summary="Plan a staged ramp",
                description="It starts by itself at its time. Until it has ended, it alone sets the percents of its places, which must stand "
                "at one percent that is not above its first step.",
                handle=self.create,
                scopes=OPERATORS,
                body=PlanBody,
                answer=RampShown,
                statuses=(201,),
                idempotent=True,
                refusals=(409,),
                example=EXAMPLE,
            ),
            *self._readers(),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/ramps/{{id}}/{act}",
                    id=id_,
                    tag="ramps",
                    summary=summary,
                    handle=partial(self.act, act),
                    scopes=OPERATORS,
                    body=ActBody,
                    answer=RampShown,
                    refusals=(409,),
                    example={"reason": "looked at with the feed team", "step": 2},
                )
                for act, (id_, summary) in _ACTS.items()
            ),
        ]

    def _readers(self) -> list[Operation]:
        def reader(path: str, id_: str, summary: str, **more: Any) -> Operation:
            return Operation(
                method="GET", path=path, id=id_, tag="ramps", summary=summary, scopes=OPERATORS, **more
            )

        one = "/v1/ramps/{id}"
        return [
            reader(
                "/v1/ramps",
                "listRamps",
                "The plans, oldest first",
                handle=self.page,
                query=RampQuery,
                answer=Page[RampShown],
            ),
            reader(one, "getRamp", "One plan, and where it stands", handle=self.get, answer=RampShown),
            reader(
                f"{one}/history",
                "rampHistory",
                "Who or what moved the plan, when and why, and what was seen then; oldest first",
                handle=self.history,
                query=PageQuery,
                answer=Page[MoveShown],
            ),
            reader(
                f"{one}/looks",
                "rampLooks",
                "What the plan saw over time",
                handle=self.looks,
                query=LooksQuery,
                answer=Looks,
            ),
        ]


_ACTS = {
    Act.PAUSE: ("pauseRamp", "Keep the plan at its percent until a person resumes it"),
    Act.RESUME: ("resumeRamp", "Let a plan that is paused or held go on; its step begins anew"),
    Act.ADVANCE: ("advanceRamp", "Take the next step now"),
    Act.APPROVE: ("approveRamp", "Let the plan take the step that needs approval"),
    Act.ROLL_BACK: ("rollBackRamp", "Return to the last good percent, and end the plan"),
    Act.ABORT: ("abortRamp", "End the plan, and leave the percents as they are"),
}
EXAMPLE = {
    "surface": "status",
    "countries": ["ID"],
    "steps": [
        {"percent": 0.01, "min_time_s": 3_600},
        {"percent": 1, "min_time_s": 86_400, "min_viewers": 1_000},
        {"percent": 25, "min_time_s": 86_400, "min_viewers": 20_000, "approval": True},
    ],
    "guardrails": [
        {"metric": "session_seconds", "direction": "falls", "bound": 0.02, "min_viewers": 1_000},
        {"metric": "hide_rate", "direction": "rises", "bound": 0.03, "on_breach": "hold"},
    ],
    "hours": [9, 10, 11, 14, 15, 16],
    "time_zone": "Asia/Jakarta",
}
