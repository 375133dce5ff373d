"""Invoices as PDF, drawn by a process of its own: fonts take seconds of CPU, which requests for ads do not wait for."""

import asyncio
import sys
from collections.abc import Sequence

import msgspec

from adserve.accounting.invoices import Invoice, Line
from adserve.web.problems import UNAVAILABLE, Problem

PDF = "application/pdf"
DRAWING = "adserve.api.invoice_pdf"
DRAWN_AT_ONCE_MAX = 1
WAITING_MAX = 8
DRAWN_WITHIN_S = 60.0
RETRY_AFTER_S = 10


class DrawingFailed(RuntimeError):
    """The message is what the drawing process said."""


class Drawing:
    """At most so many at once; further ones wait, and too many are refused."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(DRAWN_AT_ONCE_MAX)
        self._waiting = 0

    async def draw(self, invoice: Invoice, lines: Sequence[Line]) -> bytes:
        """The same bytes each time. Raises Problem when too much is to be drawn."""
        if self._waiting >= WAITING_MAX:
            raise Problem(UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_S)})
        self._waiting += 1
        try:
            async with self._turns, asyncio.timeout(DRAWN_WITHIN_S):
                return await _draw(msgspec.json.encode((invoice, lines)))
        except TimeoutError:
            raise Problem(UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_S)}) from None
        finally:
            self._waiting -= 1


async def _draw(given: bytes) -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", DRAWING, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        drawn, said = await process.communicate(given)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise DrawingFailed(said.decode(errors="replace"))
    return drawn
