"""Each kind of user at a service in a process of its own, from their first key to the last figure."""

import asyncio
import io
import json
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from commands_run import Adserve, environment, run, words
from PIL import Image

from adserve.simulation.caller import OUR_CLIENT

STARTS_WITHIN_S = 120
STOPS_WITHIN_S = 60
KNOWN_WITHIN_S = 60
LANDING_URL = "https://kopi.example/pagi"
MICROS_PER_IMPRESSION = 2_500


class World(NamedTuple):
    """A service that runs, and the command line beside it."""

    url: str
    session: aiohttp.ClientSession
    adserve: Adserve
    process: asyncio.subprocess.Process

    def key(self, name: str, *more: object) -> str:
        ended = self.adserve("keys", "issue", "--name", name, *more)
        assert ended.code == 0, ended.said
        return ended.out.strip()


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Any


async def call(
    world: World, key: str | None, method: str, path: str, body: Any = None, **headers: str
) -> Answer:
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    how = "data" if isinstance(body, aiohttp.FormData) else "json"
    async with world.session.request(
        method, world.url + path, **{how: body}, headers=headers, allow_redirects=False
    ) as answer:
        decoded = await (
            answer.json(content_type=None) if "json" in answer.content_type else answer.text(errors="replace")
        )
        return Answer(answer.status, decoded, answer.headers)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    home, port = tmp_path / "home", unused_port()
    surroundings, url = environment(database_url, home, port=port), f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(*words("serve"), env=surroundings)
    async with aiohttp.ClientSession(headers=OUR_CLIENT) as session:
        it = World(url, session, partial(run, surroundings), process)
        await until(lambda: is_ready(it), STARTS_WITHIN_S)
        yield it
    if process.returncode is None:
        process.terminate()
        await process.wait()


async def until(condition: Callable[[], Any], seconds: float = KNOWN_WITHIN_S) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.05)


async def is_ready(world: World) -> bool:
    try:
        return (await call(world, None, "GET", "/readyz")).status == 200
    except aiohttp.ClientConnectionError:
        return False


async def is_known(world: World, key: str) -> bool:
    """A key is good on a running service within seconds."""
    return (await call(world, key, "GET", "/v1/campaigns")).status != 401


def campaign() -> dict[str, Any]:
    price = {"micros": MICROS_PER_IMPRESSION * 1_000, "currency": "USD"}
    return {
        "name": "Pagi",
        "starts_at": "2026-01-01T00:00:00Z",
        "bid": {"model": "cpm", "price": price},
        "billable": "impression",
        "priority": "guaranteed",
        "caps": [{"scope": "campaign", "count": 1, "window_s": 3_600}],
    }


def creative() -> aiohttp.FormData:
    texts = {"headline": "Pelan-pelan.", "call_to_action": "shop_now", "landing_url": LANDING_URL}
    poster = io.BytesIO()
    Image.new("RGB", (2160, 3840), "#7a4a2b").save(poster, "PNG")
    form = aiohttp.FormData()
    form.add_field("media", poster.getvalue(), filename="poster.png")
    form.add_field("creative", json.dumps({"kind": "image"} | texts), content_type="application/json")
    return form


async def test_from_the_first_key_to_the_last_figure(world: World) -> None:
    operator, feed = world.key("ops", "--scope", "operator"), world.key("feed", "--scope", "feed")
    analyst, reviewer = (world.key(name, "--scope", name) for name in ("analyst", "reviewer"))
    await until(lambda: is_known(world, reviewer))
    kopi = await the_operator_opens_the_rollout_for_an_advertiser(world, operator)
    owner = world.key("kopi", "--scope", "advertiser", "--advertiser", kopi)
    await until(lambda: is_known(world, owner))
    campaign_id = await the_advertiser_sets_a_campaign_up(world, owner)
    await another_advertiser_sees_nothing_of_it(world, operator, campaign_id)
    await the_reviewer_lets_it_be_shown(world, reviewer, owner, feed)
    await the_feed_service_shows_it_once(world, feed)
    await the_analyst_finds_what_happened(world, analyst)
    await the_advertiser_sees_what_it_cost(world, owner, kopi)
    await the_operator_stops_all_ads_at_once(world, operator, feed)
    assert world.adserve("reconcile").code == 0
    world.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOPS_WITHIN_S):
        assert await world.process.wait() == 0


async def the_operator_opens_the_rollout_for_an_advertiser(world: World, operator: str) -> int:
    opened = {"surfaces": {"status": {"percent": 100}}}
    assert (await call(world, operator, "PUT", "/v1/rollout", opened)).status == 200
    advertiser: int = (await call(world, operator, "POST", "/v1/advertisers", {"name": "Kopi Rana"})).body[
        "id"
    ]
    amount = {"amount": {"micros": 5_000_000, "currency": "USD"}}
    deposit = await call(world, operator, "POST", f"/v1/advertisers/{advertiser}/deposits", amount)
    assert deposit.status in (200, 201), deposit
    return advertiser


async def the_advertiser_sets_a_campaign_up(world: World, owner: str) -> int:
    campaign_id: int = (await call(world, owner, "POST", "/v1/campaigns", campaign())).body["id"]
    path = f"/v1/campaigns/{campaign_id}"
    told = (await call(world, owner, "GET", f"{path}/diagnosis")).body
    assert "no_ads" in [finding["code"] for finding in told["findings"]]
    uploaded = await call(world, owner, "POST", "/v1/creatives", creative())
    assert uploaded.status == 201, uploaded
    creative_id = uploaded.body["id"]
    ad = await call(world, owner, "POST", "/v1/ads", {"campaign": campaign_id, "creative": creative_id})
    assert ad.status == 201, ad
    told = (await call(world, owner, "GET", f"{path}/diagnosis")).body
    assert [finding["code"] for finding in told["findings"]] == ["creatives_not_approved"]
    assert (await call(world, owner, "GET", f"{path}/estimate")).body["reason"] == "too_few_decisions"
    return campaign_id


async def another_advertiser_sees_nothing_of_it(world: World, operator: str, campaign_id: int) -> None:
    rival = (await call(world, operator, "POST", "/v1/advertisers", {"name": "Rival"})).body["id"]
    key = world.key("rival", "--scope", "advertiser", "--advertiser", rival)
    await until(lambda: is_known(world, key))
    assert (await call(world, key, "GET", f"/v1/campaigns/{campaign_id}")).status == 404
    assert (await call(world, key, "GET", "/v1/campaigns")).body["items"] == []


async def the_reviewer_lets_it_be_shown(world: World, reviewer: str, owner: str, feed: str) -> None:
    unseen = await call(world, feed, "POST", "/v1/slots", {"viewer": "u-0", "feed_length": 12})
    assert unseen.body["no_fill"] == "no_eligible_ad"
    (waiting,) = (await call(world, reviewer, "GET", "/v1/reviews")).body["items"]
    assert (await call(world, None, "GET", waiting["media_url"].removeprefix(world.url))).status == 200
    path, seen = f"/v1/reviews/{waiting['id']}", {"revision": waiting["revision"]}
    rejected = await call(world, reviewer, "POST", f"{path}/reject", seen | {"reason": "In which language?"})
    assert rejected.status == 200, rejected
    mine = (await call(world, owner, "GET", f"/v1/creatives/{waiting['id']}")).body["review"]
    assert (mine["state"], mine["reason"]) == ("rejected", "In which language?")
    assert (await call(world, owner, "POST", f"{path}/approve", seen)).status == 403
    assert (await call(world, reviewer, "POST", f"{path}/approve", seen)).status == 200


async def the_feed_service_shows_it_once(world: World, feed: str) -> None:
    ask = {"viewer": "u-1", "feed_length": 12, "deadline_ms": 1_000}

    async def answer() -> dict[str, Any]:
        body: dict[str, Any] = (await call(world, feed, "POST", "/v1/slots", ask)).body
        return body

    async def is_placed() -> bool:
        ask["request"] = "the one that is shown"
        return bool((await answer())["placements"])

    await until(is_placed)
    (placed,) = (await answer())["placements"]
    shown = placed["ad"]["creative"]
    assert (shown["width"], shown["height"]) == (1080, 1920)
    poster = await call(world, None, "GET", shown["media_url"].removeprefix(world.url))
    assert (poster.status, poster.headers["Content-Type"]) == (200, "image/png")
    events = {"events": [{"ticket": placed["ticket"], "kind": "impression"}]}
    for outcome in ("recorded", "duplicate"):
        (result,) = (await call(world, feed, "POST", "/v1/events", events)).body["results"]
        assert result["outcome"] == outcome
    click = await call(world, None, "GET", placed["urls"]["click"].removeprefix(world.url))
    assert (click.status, click.headers["Location"]) == (302, LANDING_URL)
    ask.pop("request")
    assert (await answer())["no_fill"] == "frequency_capped"


async def the_analyst_finds_what_happened(world: World, analyst: str) -> None:
    items = (await call(world, analyst, "GET", "/v1/impressions")).body["items"]
    assert [item["outcome"] for item in items] == ["recorded"]
    table = (await call(world, analyst, "GET", "/v1/impressions", Accept="text/csv")).body
    assert len(table.strip().splitlines()) == 2


async def the_advertiser_sees_what_it_cost(world: World, owner: str, advertiser: int) -> None:
    balance = (await call(world, owner, "GET", f"/v1/advertisers/{advertiser}/balance")).body
    assert f"'micros': {MICROS_PER_IMPRESSION}" in str(balance)


async def the_operator_stops_all_ads_at_once(world: World, operator: str, feed: str) -> None:
    paused = await call(world, operator, "POST", "/v1/rollout/pause", {})
    assert paused.body == {"applied": 1, "replicas": 1}
    answer = await call(world, feed, "POST", "/v1/slots", {"viewer": "u-2", "feed_length": 12})
    assert answer.body["no_fill"] == "rollout_paused"
