"""The page's own API, asked without a page."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
from browser_serving import serve_twin
from browser_twin import Twin

from adserve.pages.demo import handlers

WATCHING = {
    "viewer": "viewer-001",
    "country": "ID",
    "language": "id",
    "platform": "android",
    "personalised": True,
}


@pytest.fixture
def twin() -> Twin:
    return Twin()


@pytest.fixture
async def ask(twin: Twin) -> AsyncIterator[aiohttp.ClientSession]:
    async with serve_twin(twin) as url, aiohttp.ClientSession(url) as session:
        yield session


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_another_sites_page_cannot_move_the_switch(
    ask: aiohttp.ClientSession, twin: Twin, site: str
) -> None:
    async with ask.post("/demo/api/pause", json={}, headers={"Sec-Fetch-Site": site}) as answer:
        assert answer.status == 403
    async with ask.post("/demo/api/pause", data="{}", headers={"Content-Type": "text/plain"}) as answer:
        assert answer.status == 415
    assert not twin.paused
    async with ask.post("/demo/api/pause", json={}, headers={"Sec-Fetch-Site": "same-origin"}) as answer:
        assert answer.status == 200
    assert twin.paused


@pytest.mark.parametrize("field", ["viewer", "country", "language", "platform"])
async def test_a_wrong_field_is_named(ask: aiohttp.ClientSession, field: str) -> None:
    for wrong in ("a\r\nX-Adserve-Key: x", "", 7):
        async with ask.post("/demo/api/feed", json=WATCHING | {field: wrong}) as answer:
            assert answer.status == 400
            problem = await answer.json(content_type="application/problem+json")
            assert problem["errors"][0]["field"] == f"$.{field}"


async def test_the_percent_is_bounded_and_stands_when_it_is_answered(
    ask: aiohttp.ClientSession, twin: Twin
) -> None:
    for wrong in (-0.01, 100.01, "1", None):
        async with ask.put("/demo/api/rollout", json={"percent": wrong}) as answer:
            assert answer.status == 400
    async with ask.put("/demo/api/rollout", json={"percent": 0.01}) as answer:
        assert await answer.json() == {"percent": 0.01, "paused": False}
    assert twin.percent_bp == 1


async def test_only_files_that_are_ours_are_served(ask: aiohttp.ClientSession) -> None:
    for path in (
        "static/../handlers.py",
        "static/%2e%2e/%2e%2e/handlers.py",
        "static/x.js",
        "art/moon-1.webp",
        "visit/x",
    ):
        async with ask.get(f"/demo/{path}") as answer:
            assert answer.status == 404, path
    async with ask.get("/demo/static/demo/main.js") as answer:
        assert answer.headers["Content-Type"].startswith("text/javascript")
        etag = answer.headers["ETag"]
    async with ask.get("/demo/static/demo/main.js", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304


async def test_live_figures_come_when_they_change(ask: aiohttp.ClientSession, twin: Twin) -> None:
    async with ask.get("/demo/api/live") as stream:
        first = orjson.loads((await stream.content.readuntil(b"\n\n")).removeprefix(b"data: "))
        assert first["events"] == []
        twin.record("3-ticket", "impression")
        second = orjson.loads((await stream.content.readuntil(b"\n\n")).removeprefix(b"data: "))
        assert [row["kind"] for row in second["events"]] == ["impression"]


async def test_streams_are_bounded_and_counted_down(
    ask: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "STREAMS_MAX", 1)
    monkeypatch.setattr(handlers, "SILENCE_MAX_S", 0.1)
    async with ask.get("/demo/api/live") as first:
        await first.content.readuntil(b"\n\n")
        async with ask.get("/demo/api/live") as second:
            assert second.status == 503
        first.close()
    for _ in range(50):
        async with ask.get("/demo/api/live") as third:
            if third.status == 200:
                return
        await asyncio.sleep(0.1)
    pytest.fail("a closed stream is still counted")
