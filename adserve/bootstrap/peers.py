"""What the workers of one port know of each other, through the process that started them.

A worker says once a second, and whenever it is asked for /metrics, what its own figures are, and hears those of all
others, of the dead ones as well. Both go as lines of JSON over a pair of sockets that the two processes inherit; when it
closes, the other side is gone.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct
from prometheus_client import REGISTRY, CollectorRegistry

from adserve.web import metrics
from adserve.web.metrics import Family

log = logging.getLogger(__name__)

PERIOD_S = 1.0
ANSWER_S = 1.0
LINE_BYTES_MAX = 4_000_000


class Report(Struct, frozen=True):
    """`paused`: by SIGUSR1."""

    families: list[Family]
    paused: bool = False


class Others(Struct, frozen=True):
    """`alive` counts the worker itself, too."""

    alive: int
    wanted: int
    families: list[Family]


_report = msgspec.json.Decoder(Report)
_others = msgspec.json.Decoder(Others)


class Peers:
    """A worker's side. `away` is called when the supervisor is gone."""

    def __init__(
        self,
        worker: str,
        link: socket.socket,
        away: Callable[[], None],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.worker = worker
        self.others = Others(1, 1, [])
        self.paused: Callable[[], bool] = lambda: False
        self._link = link
        self._away = away
        self._registry = registry
        self._one = asyncio.Lock()
        self._owed = 0
        """Answers still to come: one that was not waited for comes before the next one."""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def step(self, _now_ms: int) -> None:
        """Tells our figures and hears those of the others."""
        async with asyncio.timeout(ANSWER_S), self._one:
            try:
                line = await self._exchange()
            except ConnectionError:
                self._away()
                raise
            self.others = _others.decode(line)

    async def metrics(self) -> bytes:
        """The sum of all; the others' of a moment ago where the supervisor does not answer."""
        with suppress(TimeoutError, OSError):
            await self.step(0)
        return metrics.exposition(metrics.added([self._own(), self.others.families]))

    def close(self) -> None:
        if self._streams is None:
            self._link.close()
        else:
            self._streams[1].close()

    async def _exchange(self) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._link, limit=LINE_BYTES_MAX)
        reader, writer = self._streams
        writer.write(msgspec.json.encode(Report(self._own(), self.paused())) + b"\n")
        self._owed += 1
        while self._owed:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("the supervisor is gone")
            self._owed -= 1
        return line

    def _own(self) -> list[Family]:
        return metrics.own(self.worker, self._registry)


class Switchboard:
    """The supervisor's side: what each worker said last, and what the dead ones had counted."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.ever = False
        """Whether any worker has ever served."""
        self.paused = False
        """Whether SIGUSR1 holds, as far as the workers have said: one that starts is to be told."""
        self._obeyed = False
        self._alive: dict[str, Report] = {}
        self._gone: list[Family] = []

    async def serve(self, worker: str, link: socket.socket) -> None:
        """Answers a worker until it is gone, or says what is no report: then it hears that we are gone, and ends."""
        reader, writer = await asyncio.open_connection(sock=link, limit=LINE_BYTES_MAX)
        try:
            # What was being said as it died is no line.
            while (line := await reader.readline()).endswith(b"\n"):
                self.ever = True
                self._alive[worker] = _report.decode(line)
                self._hear()
                writer.write(msgspec.json.encode(self._others(worker)) + b"\n")
        except ConnectionError:
            pass  # it was killed
        except (ValueError, msgspec.DecodeError) as error:  # too long, or no report
            log.warning("a worker is not understood", extra={"worker": worker, "reason": repr(error)})
        finally:
            writer.close()
            last = self._alive.pop(worker, Report([]))
            self._gone = metrics.added([self._gone, _counted(last.families)])

    def pause(self) -> None:
        """SIGUSR1 is on its way to the workers: what they say holds once one of them has obeyed."""
        self.paused, self._obeyed = True, False

    def _hear(self) -> None:
        paused = any(report.paused for report in self._alive.values())
        self._obeyed = self._obeyed or paused
        self.paused = paused or (self.paused and not self._obeyed)

    def _others(self, worker: str) -> Others:
        reports = [report.families for other, report in self._alive.items() if other != worker]
        return Others(len(self._alive), self._wanted, metrics.added([self._gone, *reports]))


def _counted(families: Sequence[Family]) -> list[Family]:
    return [family for family in families if family.summed]
