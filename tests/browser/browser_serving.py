"""Serves a demo on a free port for as long as a test looks at it."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
from aiohttp import web
from aiohttp.test_utils import unused_port
from browser_twin import Twin, twin_app

DEMO_STARTS_WITHIN_S = 200


@asynccontextmanager
async def serve_twin(twin: Twin) -> AsyncIterator[str]:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        runner = web.AppRunner(twin_app(twin, session, url), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield url
        await runner.cleanup()


@contextmanager
def serve_demo(home: Path) -> Iterator[str]:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"ADSERVE_PORT": str(port), "ADSERVE_DATA_HOME": str(home)}
    with subprocess.Popen((sys.executable, "-m", "adserve", "demo"), env=environment) as process:
        try:
            deadline_s = time.monotonic() + DEMO_STARTS_WITHIN_S
            while not _answers(f"{url}/demo"):
                assert process.poll() is None, "adserve demo ended before it served"
                assert time.monotonic() < deadline_s, "adserve demo did not serve in time"
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:  # noqa: S310 - an address of our own
            return bool(answer.status == 200)
    except OSError:
        return False


async def show_ads_to_everybody(url: str) -> None:
    """Returns when a viewer of none of the tests has been shown an ad."""
    probe = {
        "viewer": f"probe-{uuid4().hex}",  # one whom no cap keeps from ads
        "country": "US",
        "language": "en",
        "platform": "android",
        "personalised": True,
    }
    async with asyncio.timeout(DEMO_STARTS_WITHIN_S), aiohttp.ClientSession(url) as session:
        for call in (
            session.post("/demo/api/resume", json={}),
            session.put("/demo/api/rollout", json={"percent": 100}),
        ):
            async with call as answer:
                assert answer.status == 200
        while True:
            async with session.post("/demo/api/feed", json=probe) as answer:
                items = (await answer.json())["feed"]["items"]
            if any(item.get("type") == "ad" for item in items):
                return
            await asyncio.sleep(0.2)
