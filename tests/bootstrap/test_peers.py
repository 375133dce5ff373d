"""Workers that tell each other their figures through the one that started them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from adserve.bootstrap import peers
from adserve.bootstrap.peers import Peers, Switchboard
from adserve.web import metrics

SAYS = "calls_total"


class Worker:
    """What a process is in truth: figures of its own, and its end of a pair of sockets."""

    def __init__(self, name: str, switchboard: Switchboard) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["status"], registry=self.registry)
        self.limit = Gauge("limit", "How many.", registry=self.registry)
        self.took = Histogram("took", "Seconds.", buckets=(1.0,), registry=self.registry)
        self.lost = asyncio.Event()
        ours, theirs = socket.socketpair()
        self.peers = Peers(name, theirs, self.lost.set, self.registry)
        self.serving = asyncio.create_task(switchboard.serve(name, ours))

    async def read(self) -> dict[str, float]:
        """/metrics of this worker, as Prometheus reads it."""
        text = (await self.peers.metrics()).decode()
        return {
            f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def die(self) -> None:
        self.peers.close()
        await self.serving


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Worker, Worker]]:
    switchboard = Switchboard(2)
    workers = Worker("0", switchboard), Worker("1", switchboard)
    try:
        for worker in workers:
            await worker.peers.step(0)
        yield workers
    finally:
        for worker in workers:
            await worker.die()


async def test_a_worker_that_starts_is_to_be_paused_until_those_who_were_say_that_they_no_longer_are() -> (
    None
):
    switchboard = Switchboard(1)
    worker = Worker("0", switchboard)
    switchboard.pause()
    for says, paused in ((False, True), (True, True), (False, False)):  # the first was said before it obeyed
        worker.peers.paused = says.__bool__
        await worker.peers.step(0)
        assert switchboard.paused is paused
    await worker.die()


OK = "calls_total[('status', '200')]"


async def test_counts_add_up_whichever_worker_answers() -> None:
    async with two() as (one, other):
        one.calls.labels("200").inc(3)
        other.calls.labels("200").inc(4)
        other.took.observe(0.5)
        for worker in (one, other, one):
            await worker.peers.step(0)
        for worker in (one, other):
            seen = await worker.read()
            assert seen[OK] == 7
            assert seen["took_count"] == 1


async def test_a_gauge_says_whose_it_is() -> None:
    async with two() as (one, other):
        one.limit.set(64)
        other.limit.set(5)
        await other.peers.step(0)
        seen = await one.read()
        assert (seen["limit[('worker', '0')]"], seen["limit[('worker', '1')]"]) == (64, 5)


async def test_what_a_dead_worker_counted_stays_and_its_gauges_go() -> None:
    async with two() as (one, other):
        other.calls.labels("200").inc(4)
        await other.peers.step(0)
        await other.die()
        one.calls.labels("200").inc()
        seen = await one.read()
        assert seen[OK] == 5
        assert "limit[('worker', '1')]" not in seen
        assert (one.peers.others.alive, one.peers.others.wanted) == (1, 2)


@pytest.mark.parametrize("said", [b'{"families":[', b"?\n", b"?" * 1_000])
async def test_a_worker_that_dies_in_the_middle_of_a_line_or_says_no_report_harms_nobody(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor, and with it all workers, would end with the one that failed to be heard."""
    monkeypatch.setattr(peers, "LINE_BYTES_MAX", 100)
    switchboard, (ours, theirs) = Switchboard(1), socket.socketpair()
    with theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        await switchboard.serve("0", ours)
        theirs.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""


async def test_control_without_the_others_a_worker_knows_its_own_counts_only() -> None:
    async with two() as (one, other):
        one.calls.labels("200").inc(3)
        other.calls.labels("200").inc(4)
        assert (
            sum(
                sample.value
                for f in metrics.own("0", one.registry)
                for sample in f.samples
                if sample.name == SAYS
            )
            == 3
        )


async def test_a_worker_whose_supervisor_is_gone_is_told_and_still_answers() -> None:
    ours, theirs = socket.socketpair()
    registry, lost = CollectorRegistry(), asyncio.Event()
    Counter("calls", "Calls.", registry=registry).inc()
    peers = Peers("0", theirs, lost.set, registry)
    ours.close()
    with pytest.raises(OSError):  # noqa: PT011 - the kernel has several words for it
        await peers.step(0)
    assert lost.is_set()
    assert b"calls_total 1.0" in await peers.metrics()
    peers.close()


async def test_answers_that_came_too_late_are_not_taken_for_those_of_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switchboard, (ours, theirs) = Switchboard(2), socket.socketpair()
    late = Peers("0", theirs, lambda: None, CollectorRegistry())
    with monkeypatch.context() as impatient:
        impatient.setattr(peers, "ANSWER_S", 0.01)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await late.step(0)
    serving = asyncio.create_task(switchboard.serve("0", ours))
    await until(lambda: switchboard.ever)
    other = Worker("1", switchboard)
    await other.peers.step(0)
    await late.step(0)
    assert late.others.alive == 2
    late.close()
    await serving
    await other.die()
