"""Waiting for what comes when it comes: a stall of the machine makes a test slower, and never another result."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


async def until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> float:
    """How long it took until the condition, awaited where it is to be, was true."""
    began = time.monotonic()
    while True:
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, "waited in vain"
        await asyncio.sleep(0.01)
