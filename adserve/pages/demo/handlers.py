"""What the demo's page asks: feeds with their explanation, the rollout, sample viewers, and the live figures."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, Protocol

import msgspec
import orjson
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from adserve.domain.rollouts import SurfaceRollout
from adserve.pages.assets import Assets
from adserve.pages.demo.ramp import Harm, Ramp
from adserve.pages.demo.service import Service
from adserve.pages.demo.witness import Witness
from adserve.rollout.assignment import bucket_of, in_holdout
from adserve.selection.state import View
from adserve.simulation.scenes import SCENES, draw_scene
from adserve.simulation.seed import BRANDS
from adserve.web.bodies import BodyDecoder, check_is_json, read_body
from adserve.web.problems import FORBIDDEN, NOT_FOUND, UNAVAILABLE, Problem

SURFACE = "status"
SAMPLE_VIEWERS = tuple(f"viewer-{number:03}" for number in range(1, 201))
EVENTS_SHOWN = 40
INTERESTS = ("music", "food", "hiking", "sport")
BODY_MAX_BYTES = 65_536
STREAMS_MAX = 16
LIVE_EVERY_S = 0.3
SILENCE_MAX_S = 10.0
APPLIED_POLL_S = 0.02
APPLIED_POLLS_MAX = 150
_SCENE_SEED_MAX = 99
_ART = re.compile(r"(?P<scene>[a-z]+)-(?P<seed>\d{1,2})\.webp")

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Ticket = Annotated[str, Meta(max_length=4_096)]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Watching(Struct, frozen=True, forbid_unknown_fields=True):
    """`personalised` is the viewer's consent to be chosen for by age and interests."""

    viewer: Name
    country: Name
    language: Name
    platform: Name
    personalised: bool


class Percent(Struct, frozen=True, forbid_unknown_fields=True):
    percent: Annotated[float, Meta(ge=0, le=100)]


class Planted(Struct, frozen=True, forbid_unknown_fields=True):
    harm: bool


class Viewed(Struct, frozen=True, forbid_unknown_fields=True):
    ticket: Ticket
    kind: Literal["view"]
    view_ms: Annotated[int, Meta(ge=0, le=3_600_000)]


class Unseen(Struct, frozen=True, forbid_unknown_fields=True):
    tickets: Annotated[list[Ticket], Meta(max_length=50)]


class Figures(Protocol):
    """Rows for the panels; both are read again a few times a second while somebody watches."""

    async def newest_events(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Newest first: event, kind, outcome, advertiser_name, campaign_name, billed_micros, currency, received_at."""
        ...

    async def campaign_money(self) -> Sequence[Mapping[str, Any]]:
        """By id: campaign, name, advertiser_name, spent_micros and daily_micros (today's), currency."""
        ...


class DemoPages:
    """`view` is what this process decides by, `group` the surface's rollout group."""

    def __init__(
        self,
        service: Service,
        figures: Figures,
        witness: Witness,
        view: Callable[[], View],
        group: str,
        harm: Harm,
    ) -> None:
        self._service = service
        self._figures = figures
        self._witness = witness
        self._view = view
        self._group = group
        self._ramp = Ramp(service, harm)
        self._assets = Assets()
        self._brands = {brand.slug: brand for brand in BRANDS}
        self._streams = 0
        self._closing = False
        self._watching = BodyDecoder(Watching)
        self._percent = BodyDecoder(Percent)
        self._planted = BodyDecoder(Planted)
        self._viewed = BodyDecoder(Viewed)
        self._unseen = BodyDecoder(Unseen)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/demo", self._page)
        app.router.add_get("/demo/visit/{brand}", self._visit)
        app.router.add_get("/demo/static/{name:.+}", self._assets.get)
        app.router.add_get("/demo/art/{name}", self._art)
        app.router.add_get("/demo/api/viewers", self._viewers)
        app.router.add_get("/demo/api/rollout", self._rollout)
        app.router.add_get("/demo/api/live", self._live)
        app.router.add_get("/demo/api/decisions/{decision:[0-9a-f-]{36}}", self._decision)
        app.router.add_post("/demo/api/feed", _from_our_page(self._feed))
        app.router.add_post("/demo/api/events", _from_our_page(self._event))
        app.router.add_post("/demo/api/release", _from_our_page(self._release))
        app.router.add_put("/demo/api/rollout", _from_our_page(self._set_percent))
        app.router.add_post("/demo/api/pause", _from_our_page(self._pause))
        app.router.add_post("/demo/api/resume", _from_our_page(self._resume))
        app.router.add_post("/demo/api/ramp", _from_our_page(self._start_ramp))
        app.router.add_post("/demo/api/ramp/end", _from_our_page(self._end_ramp))
        app.router.add_post("/demo/api/harm", _from_our_page(self._plant_harm))
        app.on_shutdown.append(self._close)

    async def _page(self, _request: web.Request) -> web.Response:
        return self._assets.page("demo.html")

    async def _visit(self, request: web.Request) -> web.Response:
        brand = self._brands.get(request.match_info["brand"])
        if brand is None:
            raise Problem(NOT_FOUND)
        return self._assets.page("visit.html", brand=brand)

    async def _art(self, request: web.Request) -> web.Response:
        named = _ART.fullmatch(request.match_info["name"])
        if named is None or named["scene"] not in SCENES:
            raise Problem(NOT_FOUND)
        picture = await asyncio.to_thread(_drawn, named["scene"], int(named["seed"]))
        headers = {hdrs.CACHE_CONTROL: "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=picture, content_type="image/webp", headers=headers)

    async def _viewers(self, _request: web.Request) -> web.Response:
        """Each sample viewer's true place: who is in at a percent follows from the bucket alone."""
        rollout = self._surface_rollout()
        sample = [
            {
                "id": viewer,
                "bucket": bucket_of(self._group, viewer),
                "holdout": in_holdout(rollout, self._group, viewer),
                **_profile(viewer),
            }
            for viewer in SAMPLE_VIEWERS
        ]
        return _json({"viewers": sample})

    async def _feed(self, request: web.Request) -> web.Response:
        """The spliced feed as the wrapper gives it, and why its ads are there."""
        asked = self._watching.decode(await read_body(request, BODY_MAX_BYTES))
        context = {
            "country": asked.country,
            "language": asked.language,
            "platform": asked.platform,
            **_profile(asked.viewer),
        }
        headers = {
            "X-Adserve-Key": self._service.feed_key,
            "X-Adserve-Viewer": asked.viewer,
            "X-Adserve-Context": orjson.dumps(context).decode(),
            "X-Adserve-Consent": orjson.dumps({"personalised": asked.personalised}).decode(),
            hdrs.AUTHORIZATION: f"Bearer {asked.viewer}",
        }
        url = f"{self._service.base_url}/v1/feed/status"
        async with self._service.session.get(url, headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200:
                return web.Response(status=answer.status, body=body, content_type=answer.content_type)
        return _json({"feed": orjson.Fragment(body), "why": self._witness.explanation(asked.viewer)})

    async def _decision(self, request: web.Request) -> web.Response:
        """A recorded decision, made again."""
        path = f"/v1/decisions/{request.match_info['decision']}"
        return await self._service.forward("GET", path, self._service.operator_key)

    async def _event(self, request: web.Request) -> web.Response:
        viewed = self._viewed.decode(await read_body(request, BODY_MAX_BYTES))
        return await self._service.forward("POST", "/v1/events", self._service.feed_key, {"events": [viewed]})

    async def _release(self, request: web.Request) -> web.Response:
        """Gives back what a feed that was left early would still have shown."""
        unseen = self._unseen.decode(await read_body(request, BODY_MAX_BYTES))
        return await self._service.forward("POST", "/v1/tickets/release", self._service.feed_key, unseen)

    async def _rollout(self, _request: web.Request) -> web.Response:
        return _json(self._rollout_shown())

    async def _set_percent(self, request: web.Request) -> web.Response:
        """Changes one surface's percent and answers when this process decides by it."""
        percent = self._percent.decode(await read_body(request, BODY_MAX_BYTES)).percent
        before = self._surface_rollout()
        changed = msgspec.structs.replace(before, percent_bp=round(percent * 100))
        rollouts = {**self._view().snapshot.rollouts, SURFACE: changed}
        body = {"surfaces": {name: _rollout_json(rollout) for name, rollout in rollouts.items()}}
        answer = await self._service.forward("PUT", "/v1/rollout", self._service.operator_key, body)
        if answer.status != 200:
            return answer
        await self._until(lambda: changed == before or self._surface_rollout() != before)
        return _json(self._rollout_shown())

    async def _pause(self, _request: web.Request) -> web.Response:
        return await self._switch("/v1/rollout/pause", paused=True)

    async def _resume(self, _request: web.Request) -> web.Response:
        return await self._switch("/v1/rollout/resume", paused=False)

    async def _switch(self, path: str, *, paused: bool) -> web.Response:
        answer = await self._service.forward("POST", path, self._service.operator_key, {})
        if answer.status == 200:
            await self._until(lambda: self._view().paused is paused)
        return answer

    async def _start_ramp(self, _request: web.Request) -> web.Response:
        return await self._ramp.start()

    async def _end_ramp(self, _request: web.Request) -> web.Response:
        return await self._ramp.end()

    async def _plant_harm(self, request: web.Request) -> web.Response:
        self._ramp.plant(self._planted.decode(await read_body(request, BODY_MAX_BYTES)).harm)
        return _json({})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the panels' whole state whenever it has changed."""
        if self._streams >= STREAMS_MAX:
            raise Problem(UNAVAILABLE, f"At most {STREAMS_MAX} pages follow the demo at once.")
        headers = {hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store"}
        response = web.StreamResponse(headers=headers)
        self._streams += 1
        try:
            await response.prepare(request)
            await self._stream(response)
        except ConnectionError:
            pass  # the page has gone
        finally:
            self._streams -= 1
        return response

    async def _stream(self, response: web.StreamResponse) -> None:
        sent, silent_s = b"", 0.0
        while not self._closing:
            state = orjson.dumps(await self._state())
            if state != sent or silent_s >= SILENCE_MAX_S:
                await response.write(b"data: " + state + b"\n\n")
                sent, silent_s = state, 0.0
            silent_s += LIVE_EVERY_S
            await asyncio.sleep(LIVE_EVERY_S)

    async def _state(self) -> dict[str, Any]:
        return {
            "events": [dict(row) for row in await self._figures.newest_events(EVENTS_SHOWN)],
            "campaigns": [dict(row) for row in await self._figures.campaign_money()],
            "rollout": self._rollout_shown(),
            "ramp": await self._ramp.newest(),
        }

    def _surface_rollout(self) -> SurfaceRollout:
        return self._view().snapshot.rollout_of(SURFACE)

    def _rollout_shown(self) -> dict[str, Any]:
        return {"percent": self._surface_rollout().percent_bp / 100, "paused": self._view().paused}

    async def _until(self, applied: Callable[[], bool]) -> None:
        for _ in range(APPLIED_POLLS_MAX):
            if applied():
                return
            await asyncio.sleep(APPLIED_POLL_S)
        raise Problem(UNAVAILABLE, "The change is stored, but this process has not applied it yet.")

    async def _close(self, _app: web.Application) -> None:
        self._closing = True


def _from_our_page(handler: Handler) -> Handler:
    """Refuses what another site's page makes a browser send: these calls carry no key of their own."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Problem(FORBIDDEN, "Only the demo's own page may ask this.")
        check_is_json(request)
        return await handler(request)

    return checked


def _profile(viewer: str) -> dict[str, Any]:
    """An age and two interests, always the same for the same viewer."""
    chance = hashlib.blake2b(viewer.encode(), digest_size=3).digest()
    first, step = chance[1] % len(INTERESTS), 1 + chance[2] % (len(INTERESTS) - 1)
    interests = [INTERESTS[first], INTERESTS[(first + step) % len(INTERESTS)]]
    return {"age": 18 + chance[0] % 40, "interests": interests}


def _rollout_json(rollout: SurfaceRollout) -> dict[str, Any]:
    return {
        "percent": rollout.percent_bp / 100,
        "countries": {country: limit / 100 for country, limit in rollout.countries.items()},
        "holdout_percent": rollout.holdout_bp / 100,
    }


@lru_cache(maxsize=len(SCENES) * _SCENE_SEED_MAX)
def _drawn(scene: str, seed: int) -> bytes:
    return draw_scene(scene, seed)


def _json(content: Any) -> web.Response:
    body = orjson.dumps(content)
    return web.Response(body=body, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})
