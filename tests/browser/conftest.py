"""A real Chromium, and two services for it to look at: the twin of a few lines, and `adserve demo` itself."""

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from browser_serving import serve_demo, serve_twin, show_ads_to_everybody
from browser_twin import Twin
from console_serving import Console, serve_console
from folders import new_home
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect
from reviews_serving import Room, serve_reviews
from waiting import PATIENCE_MS, PATIENCE_S

from adserve.database.pools import Pools
from adserve.store import rollouts

PERSONS_BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
"""Its own says that nobody sits before it."""
ARGUMENTS = ("--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: install the Debian package chromium")
    sandbox = () if os.geteuid() else ("--no-sandbox",)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *sandbox])
        yield chromium
        await chromium.close()


TIME_HARDLY_PASSES = """
const animate = Element.prototype.animate;
Element.prototype.animate = function (frames, options) {
  return animate.call(this, frames, { ...options, duration: 100 * options.duration });
};"""
"""A status stays on the screen for as long as an animation of the page runs, which a slow machine may not keep up with."""

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Fails the test when the page throws or its policy blocks something."""
    faults: list[str] = []
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900}, reduced_motion="reduce", user_agent=PERSONS_BROWSER
    )
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(TIME_HARDLY_PASSES)
    opened = await context.new_page()
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if _is_fault(message) else None)
    yield opened
    await context.close()
    assert faults == []


def _is_fault(message: ConsoleMessage) -> bool:
    """A server that has stopped at the end of a test is none, nor a refusal that the console then tells in words."""
    refused = "/console/session" in message.location["url"] or "/console/api/" in message.location["url"]
    return message.type == "error" and "net::ERR_" not in message.text and not refused


@pytest.fixture
async def console(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Console]:
    monkeypatch.setattr(rollouts, "APPLIED_WITHIN_S", PATIENCE_S)
    async with serve_console(pools) as served:
        yield served


@pytest.fixture
async def room(pools: Pools, tmp_path: Path) -> AsyncIterator[Room]:
    async with serve_reviews(pools, tmp_path) as served:
        yield served


@pytest.fixture(scope="session")
def service_url() -> Iterator[str]:
    """One `adserve demo` for the whole run. Its home is not below pytest's own, which PostgreSQL's user may not enter."""
    with new_home("demo") as home, serve_demo(home) as url:
        yield url


@pytest.fixture(params=["twin", "service"])
async def demo(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a demo whose rollout stands at 100 %, with ads to show."""
    if request.param == "service":
        url = request.getfixturevalue("service_url")
        await show_ads_to_everybody(url)
        yield url
    else:
        async with serve_twin(Twin()) as url:
            yield url


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def viewer(_numbers: Iterator[int]) -> int:
    """A sample viewer whom no other test looks over the shoulder of."""
    return next(_numbers)
