"""Seeded runs find no violation of I1 to I5, find planted ones, and go the same way each time."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from faulty import Network
from ledger_model import Books, Key
from scenario import HARD, USUAL, Parts, Scenario, Times
from seed_judge import violations
from sizes import record, sized, whole_run
from virtual_time import OrderedTask

from adserve.domain.events import Event, Outcome, Settled
from adserve.domain.tickets import Ticket
from adserve.limits.counters import MemoryCounters
from adserve.metering.recorder import Recorder

SEEDS = sized(20_000, 200)
HARD_SEEDS = sized(2_000, 15)
CONTROL_SEEDS = 60
PRINT_HASH = """
import gc, logging
from scenario import HARD, Scenario
logging.disable()
gc.%s
print(*(Scenario(seed, times=HARD).run().hash for seed in range(4)))
"""


@pytest.fixture(autouse=True)
def _patient() -> None:
    """Time is virtual: its bounds are those of adserve."""


@whole_run
@pytest.mark.parametrize(("times", "seeds"), [(USUAL, SEEDS), (HARD, HARD_SEEDS)], ids=["usual", "hard"])
def test_no_seed_violates_an_invariant(times: Times, seeds: int) -> None:
    found: dict[int, list[str]] = {}
    events = acknowledged = deaths = 0
    outcomes: set[Outcome] = set()
    for seed in range(seeds):
        scenario = Scenario(seed, times=times).run()
        if broken := violations(scenario):
            found[seed] = broken
        events += len(scenario.books.events)
        acknowledged += len(scenario.acknowledged)
        deaths += scenario.deaths
        outcomes |= {stored.outcome for stored in scenario.books.events.values()}
    record(
        "seeded simulation" if times is USUAL else "seeded simulation of hard times",
        rounds=seeds,
        events=events,
        acknowledged=acknowledged,
        deaths=deaths,
        violations=len(found),
    )
    assert found == {}
    assert outcomes == {
        Outcome.RECORDED,
        Outcome.UNBILLED_KIND,
        Outcome.LATE,
        Outcome.OVER_CAP,
        Outcome.OVER_BUDGET,
    }
    assert deaths > 0


def test_the_same_seed_goes_the_same_way() -> None:
    hashes = {seed: Scenario(seed).run().hash for seed in range(5)}
    assert {seed: Scenario(seed).run().hash for seed in range(5)} == hashes
    assert len(set(hashes.values())) == len(hashes)


def hard_hashes() -> list[str]:
    return [Scenario(seed, times=HARD).run().hash for seed in range(4)]


def test_the_same_seed_goes_the_same_way_in_any_process() -> None:
    """Whatever the order of its sets, and whenever it collects garbage."""
    ways = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_HASH % collecting],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed, collecting in (("1", "disable()"), ("2", "set_threshold(1)"))
    ]
    assert {way.communicate()[0].strip() for way in ways} == {" ".join(hard_hashes())}


def test_control_tasks_that_are_cancelled_in_another_order_go_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = hard_hashes()
    monkeypatch.setattr(OrderedTask, "__hash__", lambda task: -int(task.get_name().removeprefix("Task-")))
    assert hard_hashes() != expected


class KeylessBooks(Books):
    """Without the unique key: a second event of a ticket is stored over the first, and billed like it."""

    def _fresh(self, events: Sequence[Event]) -> set[int]:
        return set(range(len(events)))


class BottomlessBooks(Books):
    """Looks at no lease's room."""

    def _room(self, number: int) -> int:
        return 1 << 60


class LopsidedBooks(Books):
    """Posts one side of a charge."""

    def _store(self, key: Key, event: Event, outcome: Outcome) -> Settled:
        settled = super()._store(key, event, outcome)
        if settled.billed is not None:
            del self.transactions[-1][f"held {event.ticket.advertiser}"]
        return settled


class EarlyRecorder(Recorder):
    """Answers what it has in its queue."""

    async def record(self, events: Sequence[Event]) -> list[Settled]:
        self._later = asyncio.ensure_future(super().record(events))
        self._later.add_done_callback(lambda done: done.cancelled() or done.exception())
        return [Settled(event.event, event.outcome, None) for event in events]


class CertainCounters(MemoryCounters):
    """Never doubts: what it confirmed and was stored later, or not, it takes for stored when it confirmed it."""

    async def doubt(self, ticket: Ticket) -> None: ...


class DeafNetwork(Network):
    """Ends nothing of a process that died."""

    def end_others(self) -> None: ...


class ForgetfulCounters(MemoryCounters):
    """Takes a start for a beginning: what was shown before it is not put back."""

    def restore(self, *_: object) -> None: ...

    async def load(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("parts", "times", "invariant"),
    [
        (Parts(recorder=EarlyRecorder), USUAL, "I1"),
        (Parts(books=KeylessBooks), USUAL, "I2"),
        (Parts(books=LopsidedBooks), USUAL, "I3"),
        (Parts(counters=CertainCounters), Times(viewers=2, visits=120), "I4"),
        (Parts(counters=ForgetfulCounters), USUAL, "I4"),
        (Parts(network=DeafNetwork), HARD, "I4"),
        (Parts(books=BottomlessBooks), USUAL, "I5"),
    ],
)
def test_control_a_planted_bug_is_found(parts: Parts, times: Times, invariant: str) -> None:
    for seed in range(CONTROL_SEEDS):
        if any(what.startswith(invariant) for what in violations(Scenario(seed, parts, times).run())):
            twin = next(type_.__name__ for type_ in vars(parts).values() if type_.__module__ == __name__)
            record("seeded simulation", **{f"control_{twin}_found_at_seed": seed})
            return
    raise AssertionError(f"{CONTROL_SEEDS} seeds did not notice")
