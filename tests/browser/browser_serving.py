"""Serves a demo on a free port for as long as a test looks at it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import unused_port
from browser_twin import Twin, twin_app

DEMO_STARTS_WITHIN_S = 90


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


@asynccontextmanager
async def serve_demo(home: Path) -> AsyncIterator[str]:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"ADSERVE_PORT": str(port), "ADSERVE_DATA_HOME": str(home)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "adserve", "demo", env=environment)
    try:
        async with asyncio.timeout(DEMO_STARTS_WITHIN_S), aiohttp.ClientSession() as session:
            while not await _answers(session, f"{url}/demo"):
                assert process.returncode is None, "adserve demo ended before it served"
                await asyncio.sleep(0.2)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
