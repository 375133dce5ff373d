"""The console's way in: who gets a session, what ends it, and what another page cannot do with it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from service import SURFACES, Service, desks, running

from adserve.access.keys import Scope, hash_of
from adserve.access.sessions import LASTS_MS, SESSIONS_PER_KEY_MAX, TOKEN_BYTES, new_session
from adserve.database.pools import Pools
from adserve.pages.console import guard, handlers
from adserve.pages.console.guard import COOKIE
from adserve.pages.console.handlers import ConsolePages
from adserve.store import sessions as store
from adserve.store.desk import ACQUIRE_TIMEOUT_S
from adserve.store.errors import Away
from adserve.store.sessions import Sessions
from adserve.web.app import build_app

OURS = {"Sec-Fetch-Site": "same-origin", "X-Adserve-Console": "1", "Content-Type": "application/json"}
PAUSE = "/console/api/rollout/pause"

Browser = TestClient[Any, Any]


def replica(service: Service) -> TestServer:
    """One of the processes that serve the console over the same database."""
    app = build_app(service.operations, service.auth, body_max_bytes=200_000, version="1")
    sessions = Sessions(desks(service.pools)[0])
    ConsolePages(service.operations, service.auth, sessions, SURFACES, service.clock).add_to(app)
    return TestServer(app)


@pytest.fixture
async def service(pools: Pools, clock: Callable[[], int], tmp_path: Path) -> AsyncIterator[Service]:
    async with running(pools, clock, tmp_path) as running_service:
        yield running_service


@pytest.fixture
async def browser(service: Service) -> AsyncIterator[Browser]:
    async with TestClient(replica(service), cookie_jar=CookieJar(unsafe=True)) as client:
        yield client


async def sign_in(browser: Browser, key: str, **headers: str) -> int:
    async with browser.post("/console/session", json={"key": key}, headers=OURS | headers) as answer:
        return answer.status


async def status_of(browser: Browser, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    async with browser.request(method, path, headers=headers) as answer:
        return answer.status


def cookie(browser: Browser) -> str:
    return next(morsel.value for morsel in browser.session.cookie_jar if morsel.key == COOKIE)


async def test_an_operator_key_is_exchanged_for_a_cookie_that_no_script_reads(
    service: Service, browser: Browser
) -> None:
    assert await status_of(browser, "GET", "/console/api/rollout") == 401
    sent = {"json": {"key": service.keys["operator"]}, "headers": OURS | {"Origin": "https://ads.example"}}
    async with browser.post("/console/session", **sent) as answer:
        assert answer.status == 204
        morsel = SimpleCookie(answer.headers["Set-Cookie"])[COOKIE]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/console")
    assert (morsel["secure"], morsel["max-age"]) == (True, str(LASTS_MS // 1_000))


async def test_a_session_holds_on_every_replica_and_only_its_hash_is_stored(
    service: Service, browser: Browser
) -> None:
    assert await sign_in(browser, service.keys["operator"]) == 204
    async with TestClient(replica(service)) as other:
        sent = {"Cookie": f"{COOKIE}={cookie(browser)}"}
        assert await status_of(other, "GET", "/console/api/rollout", sent) == 200
    rows = await service.pools.operator.fetch("SELECT sessions::text AS row, hash FROM sessions")
    assert [row["hash"] for row in rows] == [hash_of(cookie(browser))]
    secrets = (cookie(browser), cookie(browser).encode().hex(), service.keys["operator"])
    assert not any(secret in rows[0]["row"] for secret in secrets)


async def test_other_keys_open_nothing(service: Service, browser: Browser) -> None:
    for scope in ("feed", "analyst"):
        assert await sign_in(browser, service.keys[scope]) == 403
    assert await sign_in(browser, "ads_unknown") == 401
    assert not list(browser.session.cookie_jar)


async def test_a_reviewer_sees_reviews_and_nothing_of_the_ramps(service: Service, browser: Browser) -> None:
    assert await sign_in(browser, service.keys["reviewer"]) == 204
    for path in ("/console", "/console/rollout", "/console/reviews"):
        async with browser.get(path) as answer:
            assert (answer.status, answer.url.path) == (200, "/console/reviews")
            assert "/console/rollout" not in await answer.text()
    assert await status_of(browser, "GET", "/console/api/reviews") == 200
    reading = ("rollout", "rollout/switch", "ramps", "ramps/1", "ramps/1/looks", "ramps/1/history")
    for path in reading:
        assert await status_of(browser, "GET", f"/console/api/{path}") == 403
    for path in ("rollout/pause", "rollout/resume", "ramps", "ramps/1/abort"):
        assert await status_of(browser, "POST", f"/console/api/{path}", OURS) == 403
    assert (await service.call("GET", "/v1/rollout")).body["paused"] is False
    assert await sign_in(browser, service.keys["operator"]) == 204
    assert await status_of(browser, "GET", "/console/api/reviews") == 200
    async with browser.get("/console/reviews") as answer:
        assert "/console/rollout" in await answer.text()


async def test_control_without_the_scope_a_reviewer_stops_all_ads(
    service: Service, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(browser, service.keys["reviewer"])
    monkeypatch.setattr(handlers, "check_scope", lambda *_: None)
    assert await status_of(browser, "POST", PAUSE, OURS) == 200


async def test_a_session_ends_with_time_with_its_key_and_by_hand(
    service: Service, browser: Browser, clock: Any
) -> None:
    async def enter(key: str) -> None:
        assert await sign_in(browser, key) == 204
        assert await status_of(browser, "GET", "/console/api/rollout") == 200

    await enter(service.keys["operator"])
    clock.now_ms += LASTS_MS
    assert await status_of(browser, "GET", "/console/api/rollout") == 401

    key = await service.issue("operator", name="night shift")
    await enter(key)
    await service.revoke(service.auth.authorise(key, {Scope.OPERATOR}).id)
    assert await status_of(browser, "GET", "/console/api/rollout") == 401

    await enter(service.keys["operator"])
    stolen = {"Cookie": f"{COOKIE}={cookie(browser)}"}
    assert await status_of(browser, "DELETE", "/console/session", OURS) == 204
    async with TestClient(replica(service)) as other:
        assert await status_of(other, "GET", "/console/api/rollout", stolen) == 401


@pytest.mark.parametrize("use", [lambda sessions, hash_: sessions.caller(hash_, 0), Sessions.close])
async def test_cookies_that_anybody_sends_leave_connections_to_the_operator(
    service: Service, use: Callable[[Sessions, bytes], Coroutine[Any, Any, Any]]
) -> None:
    sessions = Sessions(desks(service.pools)[0])
    async with service.pools.owner.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE sessions")
        asked = [asyncio.create_task(use(sessions, hash_of(str(guess)))) for guess in range(20)]
        await asyncio.sleep(0.1)
        async with service.pools.operator.acquire(timeout=ACQUIRE_TIMEOUT_S):
            pass
    await asyncio.gather(*asked, return_exceptions=True)


async def test_who_has_a_session_does_not_wait_for_strangers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ACQUIRE_TIMEOUT_S", 0.1)
    sessions = Sessions(desks(service.pools)[0])
    key = service.auth.authorise(service.keys["operator"], {Scope.OPERATOR})
    opened = new_session(b"m" * TOKEN_BYTES, 0)
    await sessions.open(opened, key.id, 0)
    assert await sessions.caller(opened.hash, 1) == key
    monkeypatch.setattr(sessions, "_turns", asyncio.Semaphore(0))
    assert await sessions.caller(opened.hash, 1) == key
    await sessions.close(opened.hash)
    assert await sessions.caller(opened.hash, 1) is None
    with pytest.raises(Away):
        await sessions.caller(opened.hash, 1)


async def test_a_key_has_a_bounded_number_of_sessions(service: Service) -> None:
    sessions = Sessions(desks(service.pools)[0])
    key = service.auth.authorise(service.keys["operator"], {Scope.OPERATOR})
    opened = [
        new_session(bytes([number]) * TOKEN_BYTES, service.clock())
        for number in range(SESSIONS_PER_KEY_MAX + 2)
    ]
    for number, session in enumerate(opened):
        await sessions.open(session, key.id, service.clock() + number)
    alive = [await sessions.caller(session.hash, service.clock()) for session in opened]
    assert [each is None for each in alive] == [True] * 2 + [False] * SESSIONS_PER_KEY_MAX


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "X-Adserve-Console": "1"},
    {"Sec-Fetch-Site": "same-site", "X-Adserve-Console": "1"},
    {"Sec-Fetch-Site": "none", "X-Adserve-Console": "1"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://evil.example", "X-Adserve-Console": "1"},
    {"Origin": "null", "X-Adserve-Console": "1"},
    {"X-Adserve-Console": "1"},
    {},
]


async def test_another_page_changes_nothing_with_our_cookie(service: Service, browser: Browser) -> None:
    await sign_in(browser, service.keys["operator"])
    for headers in FOREIGN:
        assert await status_of(browser, "POST", PAUSE, headers) == 403
        assert await status_of(browser, "DELETE", "/console/session", headers) == 403
    assert (await service.call("GET", "/v1/rollout")).body["paused"] is False
    assert await status_of(browser, "GET", "/console/api/rollout") == 200
    assert await sign_in(browser, service.keys["operator"], **{"Sec-Fetch-Site": "cross-site"}) == 403


async def test_control_without_the_check_each_of_them_pauses(
    service: Service, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_in(browser, service.keys["operator"])
    monkeypatch.setattr(guard, "check_origin", lambda _: None)
    for headers in FOREIGN:
        assert await status_of(browser, "POST", PAUSE, headers) == 200
        assert (await service.call("GET", "/v1/rollout")).body["paused"] is True
        await service.call("POST", "/v1/rollout/resume")


async def test_our_own_page_may(service: Service, browser: Browser) -> None:
    await sign_in(browser, service.keys["operator"])
    assert await status_of(browser, "POST", PAUSE, OURS) == 200
    by_plain_http = {
        "Origin": f"http://{browser.server.host}:{browser.server.port}",
        "X-Adserve-Console": "1",
    }
    assert await status_of(browser, "POST", "/console/api/rollout/resume", by_plain_http) == 200


async def test_pages_and_their_files_keep_to_a_strict_policy(service: Service, browser: Browser) -> None:
    for signed_in in (False, True):
        if signed_in:
            await sign_in(browser, service.keys["operator"])
        async with browser.get("/console") as answer:
            text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "style=" not in text
        assert "<style" not in text
        assert text.count("<script") == text.count("<script src=") + text.count('<script type="module" src=')
        assert service.keys["operator"] not in text


async def test_the_chart_library_comes_zipped_once(service: Service, browser: Browser) -> None:
    async with browser.get("/console/static/chart.js") as answer:
        assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
        assert b"Chart.js v4" in await answer.read()
        etag = answer.headers["ETag"]
    assert await status_of(browser, "GET", "/console/static/chart.js", {"If-None-Match": etag}) == 304


async def test_the_database_away_is_said_and_not_a_fault(service: Service, browser: Browser) -> None:
    await sign_in(browser, service.keys["operator"])
    service.pools.operator.terminate()
    assert await status_of(browser, "GET", "/console/api/rollout") == 503
