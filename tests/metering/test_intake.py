import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from journals import MemoryJournal
from leased import remaining_micros
from msgspec import structs
from msgspec.structs import replace
from test_tickets import KEY, make_ticket
from waiting import PATIENCE_S
from world import NOW_MS

from adserve.domain.events import Event, EventKind, Outcome, Settled
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.time import HOUR_MS
from adserve.domain.traffic import UNJUDGED, Rules, Source
from adserve.limits.counters import CountersAway
from adserve.limits.hides import Hides
from adserve.limits.leases import LeaseBook
from adserve.limits.purses import Lease
from adserve.metering.errors import JournalAway, RecorderUnavailable
from adserve.metering.intake import ASKED_AT_ONCE, Answer, Intake, Problem, Report, rated
from adserve.metering.networks import NO_NETWORKS
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.recorder import Recorder
from adserve.metering.tickets import Sealer
from adserve.metering.traffic import Traffic

BILLED = Money(2_500, "USD")
SEALER = Sealer([KEY])


class Counters:
    """Lets through what fits; remembers what it was asked."""

    def __init__(self, epoch: int = 7) -> None:
        self.epoch = epoch
        self.away: Exception | None = None
        self.fits = True
        self.confirmed: list[tuple[Ticket, int]] = []
        self.hidden: list[Ticket] = []
        self.doubted: list[Ticket] = []

    async def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> bool:
        if self.away is not None:
            raise self.away
        self.confirmed.append((ticket, at_ms))
        return self.fits

    async def doubt(self, ticket: Ticket) -> None:
        self.doubted.append(ticket)

    async def hide(self, ticket: Ticket, at_ms: int) -> None:
        self.hidden.append(ticket)


class Setting:
    def __init__(self, counters: Counters) -> None:
        self.journal, self.counters, self.book = MemoryJournal(), counters, LeaseBook()
        self.hides = Hides()
        self.recorder = Recorder(self.journal)
        self.alone = True
        self.traffic = Traffic(Origins(Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),)))))
        self.intake = Intake(
            SEALER,
            self.counters,
            self.book,
            self.recorder,
            lambda: 42,
            hides=self.hides,
            may_serve=lambda: self.alone,
            traffic=self.traffic,
        )

    async def take(self, *reports: Report, at_ms: int = NOW_MS + 1_000) -> list[Answer]:
        return await self.intake.take(reports, at_ms)


@asynccontextmanager
async def setting_with(counters: Counters) -> AsyncIterator[Setting]:
    made = Setting(counters)
    running = asyncio.create_task(made.recorder.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    async with setting_with(Counters()) as made:
        yield made


def report(kind: str = "impression", **facts: object) -> Report:
    return Report(SEALER.seal(make_ticket(**facts)), kind)


async def test_the_first_outcome_that_holds_decides(setting: Setting) -> None:
    late_ms = NOW_MS + HOUR_MS + 1
    assert [one.outcome for one in await setting.take(report(), report(), report("view"))] == [
        Outcome.RECORDED,
        Outcome.DUPLICATE,
        Outcome.UNBILLED_KIND,
    ]
    setting.counters.fits = False
    (late,) = await setting.take(report(chance=100), at_ms=late_ms)
    assert late.outcome is Outcome.LATE
    (late_again,) = await setting.take(report(), at_ms=late_ms)
    assert late_again.outcome is Outcome.DUPLICATE
    over, unbilled = await setting.take(report("view", chance=200), report("click", chance=200))
    assert over.outcome is Outcome.OVER_CAP
    assert unbilled.outcome is Outcome.UNBILLED_KIND


async def test_invalid_traffic_has_its_place_among_the_outcomes(setting: Setting) -> None:
    """Behind `over_cap`, before `unbilled_kind`; it is confirmed and hides like any other, and draws on no lease."""
    setting.traffic.use(1, Rules(), NO_NETWORKS)
    late_ms, bot = NOW_MS + HOUR_MS + 1, Source("Googlebot/2.1")
    outcomes = [
        one.outcome
        for one in await setting.take(
            *(
                replace(report(kind), source=bot)
                for kind in ("impression", "impression", "view", "click", "hide")
            )
        )
    ]
    assert outcomes == [Outcome.INVALID_TRAFFIC, Outcome.DUPLICATE, *[Outcome.INVALID_TRAFFIC] * 3]
    assert (len(setting.counters.confirmed), len(setting.counters.hidden)) == (3, 1)
    setting.counters.fits = False
    (over,) = await setting.take(replace(report(chance=100), source=bot))
    (late,) = await setting.take(replace(report(chance=200), source=bot), at_ms=late_ms)
    assert (over.outcome, late.outcome) == (Outcome.OVER_CAP, Outcome.LATE)
    verdicts = [event.verdict for event in setting.journal.stored.values()]
    assert [verdict.rules for verdict in verdicts] == [1] * 5 + [None]


async def test_the_verdict_waits_with_an_event_that_the_counters_cannot_judge(setting: Setting) -> None:
    setting.traffic.use(1, Rules(), NO_NETWORKS)
    setting.counters.away = CountersAway("down")
    (answer,) = await setting.take(replace(report(), source=Source("Googlebot/2.1")))
    assert answer.outcome is Outcome.ACCEPTED
    (waiting,) = setting.journal.stored.values()
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(waiting), type=Event)
    assert kept == waiting
    assert rated(kept, counts=True, epoch=1).outcome is Outcome.INVALID_TRAFFIC
    assert rated(kept, counts=False, epoch=1).outcome is Outcome.OVER_CAP
    fields = msgspec.structs.astuple(waiting)[:7]  # as a release before kept it
    before = msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=Event)
    assert before == replace(waiting, verdict=UNJUDGED)


@pytest.mark.parametrize(
    ("view_ms", "least_ms", "billable", "outcome"),
    [
        (None, 1_000, "impression", Outcome.UNBILLED_KIND),
        (999, 1_000, "impression", Outcome.REFUSED),
        (None, 1_000, "view", Outcome.REFUSED),
        (999, 1_000, "view", Outcome.REFUSED),
        (1_000, 1_000, "view", Outcome.RECORDED),
        (1_999, 2_000, "view", Outcome.REFUSED),
        (2_000, 2_000, "view", Outcome.RECORDED),
    ],
)
async def test_a_view_has_lasted_long_enough(
    setting: Setting, view_ms: int | None, least_ms: int, billable: str, outcome: Outcome
) -> None:
    ticket = structs.replace(make_ticket(), billable=billable, view_least_ms=least_ms)
    token = SEALER.seal(ticket)
    (answer,) = await setting.take(Report(token, "view", view_ms=view_ms))
    assert answer.outcome is outcome
    if outcome is Outcome.REFUSED:
        assert answer.errors[0].field == "$.view_ms"
        (later,) = await setting.take(Report(token, "view", view_ms=least_ms))  # it comes again when it has
        assert later.outcome is not Outcome.DUPLICATE


async def test_an_event_at_the_very_expiry_is_in_time(setting: Setting) -> None:
    assert (await setting.take(report(), at_ms=NOW_MS + HOUR_MS))[0].billed == BILLED


async def test_refusals_stand_in_their_place_and_spoil_nothing(setting: Setting) -> None:
    problems = (Problem("$.occurred_at", "must be a time"),)
    answers = await setting.take(
        Report("", "impression", problems=problems), report(), Report("forged", "impression"), report("wink")
    )
    assert answers[0] == Answer(None, Outcome.REFUSED, None, problems)
    assert answers[1].billed == BILLED
    assert [answers[2].errors[0].field, answers[3].errors[0].field] == ["$.ticket", "$.kind"]
    assert "impression, view, click, hide, report, complete" in answers[3].errors[0].reason
    assert len(setting.journal.stored) == 1


async def test_only_impressions_and_views_in_time_are_confirmed(setting: Setting) -> None:
    await setting.take(*(report(kind) for kind in EventKind))
    assert [at_ms for _, at_ms in setting.counters.confirmed] == [NOW_MS + 1_000] * 2
    await setting.take(report(chance=100), at_ms=NOW_MS + HOUR_MS + 1)
    assert len(setting.counters.confirmed) == 2


class AnswerTogether(Counters):
    """Every other ticket fits; nothing is answered before as many are asked of as may be at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[asyncio.Future[bool]] = []

    def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> Coroutine[Any, Any, bool]:
        reply: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.asked.append(reply)
        if len(self.asked) == ASKED_AT_ONCE:
            for nth, each in enumerate(self.asked):
                each.set_result(nth % 2 == 0)
            self.asked.clear()
        return answer_of(reply)


async def answer_of(reply: asyncio.Future[bool]) -> bool:
    return await reply


async def test_the_counters_are_asked_of_several_events_before_they_answer() -> None:
    reports = [report(chance=100 * nth) for nth in range(2 * ASKED_AT_ONCE)]
    async with setting_with(AnswerTogether()) as setting, asyncio.timeout(PATIENCE_S):
        outcomes = [one.outcome for one in await setting.take(*reports)]
    assert outcomes == [Outcome.RECORDED, Outcome.OVER_CAP] * ASKED_AT_ONCE


async def test_whoever_is_cut_off_between_two_answers_awaits_no_more() -> None:
    async with setting_with(AnswerTogether()) as setting:
        cut_off = asyncio.create_task(setting.take(report(), report(chance=100)))
        await asyncio.sleep(0)
        cut_off.cancel()
        await asyncio.wait([cut_off])
    assert cut_off.cancelled()
    assert len(setting.counters.doubted) == 2  # they may have been confirmed, and come again
    gc.collect()  # which would tell of a coroutine that was never awaited


async def test_whoever_is_cut_off_before_the_ledger_answers_leaves_a_doubt() -> None:
    """The event may not be stored, and come again."""
    async with setting_with(Counters()) as setting:
        cut_off = asyncio.create_task(setting.take(report(), report("click")))
        await asyncio.sleep(0)
        assert len(setting.counters.confirmed) == 1
        cut_off.cancel()
        await asyncio.wait([cut_off])
    assert cut_off.cancelled()
    assert setting.counters.doubted == [make_ticket()]


async def test_an_impression_that_a_later_report_of_it_overtook_is_doubted(setting: Setting) -> None:
    """Both were confirmed with the moment of the first, and the second is stored."""
    await setting.take(report(), at_ms=NOW_MS + 2)
    await setting.take(report(), at_ms=NOW_MS + 3)
    assert setting.counters.doubted == []
    await setting.take(report(), at_ms=NOW_MS + 1)
    assert len(setting.counters.doubted) == 1


async def test_an_impression_that_comes_again_while_the_first_waits_in_the_spool_is_doubted_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its confirmation says that no later one is stored. That is not so: a third may come before the first is settled."""

    async def keep(events: Sequence[Event]) -> list[Settled]:
        settled = [setting.journal._store(event) for event in events]
        return [
            replace(
                one, outcome=one.outcome if one.billed is None else Outcome.ACCEPTED, billed=None, waits=True
            )
            for one in settled
        ]

    monkeypatch.setattr(setting.journal, "settle", keep)
    for again in range(1, 3):
        (answer,) = await setting.take(report(), at_ms=NOW_MS + again)
        assert answer.outcome is (Outcome.ACCEPTED if again == 1 else Outcome.DUPLICATE)
        assert len(setting.counters.doubted) == again


async def test_a_hide_or_report_is_told_to_the_counters_even_when_late(setting: Setting) -> None:
    late_ms = NOW_MS + HOUR_MS + 1
    await setting.take(report("hide"), report("report"), report("click"))
    await setting.take(report("hide", chance=100), at_ms=late_ms)
    assert len(setting.counters.hidden) == 3
    assert setting.hides.of(setting.counters.hidden[0].viewer_cap) == (setting.counters.hidden[0].advertiser,)


async def test_a_charge_is_taken_from_the_lease_in_memory_once(setting: Setting) -> None:
    ticket = make_ticket()
    setting.book.add(Lease(ticket.lease, ticket.campaign, ticket.budget_day, 10_000, NOW_MS + HOUR_MS))
    hold = setting.book.hold(ticket.campaign, 4_000, NOW_MS)
    assert hold is not None
    setting.book.keep(hold, ticket.ticket, 2_500, ticket.expires_at_ms)
    await setting.take(report(), report())
    setting.book.expire(ticket.expires_at_ms + HOUR_MS)
    assert remaining_micros(setting.book, ticket.campaign, NOW_MS) == 7_500


async def test_where_another_process_may_serve_its_counters_are_to_judge(setting: Setting) -> None:
    setting.alone = False
    answers = await setting.take(report(), report("click"))
    assert [one.outcome for one in answers] == [Outcome.ACCEPTED, Outcome.UNBILLED_KIND]
    assert setting.counters.confirmed == []


async def test_nothing_is_answered_when_it_could_not_be_made_durable(setting: Setting) -> None:
    def away(events: object) -> None:
        raise JournalAway("gone")

    setting.journal.trouble = away
    with pytest.raises(RecorderUnavailable):
        await setting.take(report("hide"))
    assert setting.counters.hidden == []


class NotReady(Counters):
    """There is no Redis to be asked."""

    def confirm(self, ticket: Ticket, at_ms: int, now_ms: int) -> Coroutine[Any, Any, bool]:
        raise CountersAway("not ready")


@pytest.mark.parametrize(("make", "doubts"), [(Counters, 1), (NotReady, 0)])
async def test_only_what_was_confirmed_is_doubted_when_it_could_not_be_stored(
    make: type[Counters], doubts: int
) -> None:
    """What there is room to remember of doubts is for those that matter."""

    def away(events: object) -> None:
        raise JournalAway("gone")

    async with setting_with(make()) as setting:
        setting.journal.trouble = away
        with pytest.raises(RecorderUnavailable):
            await setting.take(report(), report("click"))
        assert len(setting.counters.doubted) == doubts


async def test_event_ids_are_distinct_and_repeatable(setting: Setting) -> None:
    answers = await setting.take(*(report(chance=chance * 10) for chance in range(50)))
    ids = [answer.event for answer in answers]
    assert len(set(ids)) == 50
    async with setting_with(Counters()) as again:
        repeated = await again.take(*(report(chance=chance * 10) for chance in range(50)))
    assert [answer.event for answer in repeated] == ids


@pytest.mark.parametrize("away", [CountersAway("gone"), TimeoutError()])
async def test_what_the_counters_cannot_judge_now_is_accepted_and_its_price_kept(
    setting: Setting, away: Exception
) -> None:
    ticket = make_ticket()
    setting.book.add(Lease(ticket.lease, ticket.campaign, ticket.budget_day, 10_000, NOW_MS + HOUR_MS))
    setting.counters.away = away
    answers = await setting.take(report("impression"), report("view"), report("click"))
    assert [one.outcome for one in answers] == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.UNBILLED_KIND]
    assert [one.billed for one in answers] == [None, None, None]
    assert all(one.event is not None for one in answers)
    assert remaining_micros(setting.book, ticket.campaign, NOW_MS) == 10_000 - ticket.price_micros
    setting.counters.away = None
    (late,) = await setting.take(report(chance=100), at_ms=NOW_MS + HOUR_MS + 1)
    assert late.outcome is Outcome.LATE


@pytest.mark.parametrize("lost", [CountersAway("connection lost"), TimeoutError()])
async def test_what_was_asked_and_not_answered_is_doubted(setting: Setting, lost: Exception) -> None:
    """It may have been confirmed with a moment that is not the one it is stored with, where it comes again before it settles."""
    setting.counters.away = lost
    await setting.take(report(), report("click"))
    assert setting.counters.doubted == [make_ticket()]


async def test_an_event_does_not_come_before_its_ticket(setting: Setting) -> None:
    """The clock of the process that issued it may be ahead of ours, and have looked at windows that ours has not reached."""
    ticket = make_ticket()
    await setting.take(report(), at_ms=ticket.issued_at_ms - 250)
    assert setting.counters.confirmed == [(ticket, ticket.issued_at_ms)]
    (event,) = setting.journal.stored.values()
    assert event.received_at_ms == ticket.issued_at_ms


async def test_an_event_that_counts_names_the_epoch_that_it_counts_in(setting: Setting) -> None:
    await setting.take(report(), report("click"))
    assert [event.counted_in for event in setting.journal.stored.values()] == [7, None]
