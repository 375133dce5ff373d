from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from leased import remaining_micros

from adserve.domain.time import DAY_MS, MINUTE_MS, SECOND_MS
from adserve.limits.leases import Hold, LeaseBook
from adserve.limits.purses import Lease
from adserve.limits.rules import GRACE_MS

END_MS = 1_000_000
CAMPAIGN = 7


def lease(number: int = 1, granted: int = 1_000, ends_at_ms: int = END_MS) -> Lease:
    return Lease(number, CAMPAIGN, 739_617, granted, ends_at_ms)


def held(book: LeaseBook, micros: int, now_ms: int = 0) -> Hold:
    hold = book.hold(CAMPAIGN, micros, now_ms)
    assert hold is not None
    return hold


def test_holds_never_exceed_the_lease_and_come_back() -> None:
    book = LeaseBook()
    book.add(lease())
    first = held(book, 600)
    assert book.hold(CAMPAIGN, 401, 0) is None
    second = held(book, 400)
    book.give_back(first)
    assert remaining_micros(book, CAMPAIGN, 0) == 600
    book.keep(second, UUID(int=1), 150, 100)
    assert remaining_micros(book, CAMPAIGN, 0) == 850
    assert book.purses[CAMPAIGN].drawn_micros == 150


def test_a_kept_price_comes_back_after_the_grace_and_not_before() -> None:
    book = LeaseBook()
    book.add(lease())
    for number, expires_at_ms in enumerate((1_000, 2_000)):
        book.keep(held(book, 500), UUID(int=number), 500, expires_at_ms)
    book.expire(0)
    book.expire(1_000 + GRACE_MS - 1)
    assert remaining_micros(book, CAMPAIGN, 0) == 0
    book.expire(1_000 + GRACE_MS)
    assert remaining_micros(book, CAMPAIGN, 0) == 500
    book.expire(2_000 + GRACE_MS)
    assert remaining_micros(book, CAMPAIGN, 0) == 1_000


def test_a_release_gives_back_once_and_a_capture_spends() -> None:
    book = LeaseBook()
    book.add(lease())
    book.keep(held(book, 300), UUID(int=1), 300, 100)
    book.release(UUID(int=1))
    book.release(UUID(int=1))
    assert remaining_micros(book, CAMPAIGN, 0) == 1_000
    book.captured(UUID(int=1), 1, 300)
    assert remaining_micros(book, CAMPAIGN, 0) == 700
    book.captured(UUID(int=2), 99, 300)
    assert remaining_micros(book, CAMPAIGN, 0) == 700


def test_yesterdays_lease_does_not_serve_today() -> None:
    book = LeaseBook()
    book.add(lease())
    assert book.hold(CAMPAIGN, 1, END_MS - 1) is not None
    assert book.hold(CAMPAIGN, 1, END_MS) is None
    book.add(lease(2, ends_at_ms=2 * END_MS))
    assert held(book, 1, END_MS).lease == 2


def test_running_short_is_told_once_until_there_is_a_new_lease() -> None:
    told = []
    book = LeaseBook(lambda: told.append(1))
    for _ in range(5):
        book.hold(CAMPAIGN, 1, 0)
    assert len(told) == 1
    book.add(lease(granted=1))
    held(book, 1)
    book.hold(CAMPAIGN, 1, 0)
    assert len(told) == 2


def test_what_others_captured_is_spent_here_and_a_lease_taken_away_is_forgotten() -> None:
    book = LeaseBook()
    book.add(lease())
    book.add(lease(2))
    book.captured(UUID(int=1), 1, 100)
    assert book.sync({1: 250, 3: 0}, [1, 2]) == {3}
    assert remaining_micros(book, CAMPAIGN, 0) == 750
    book.sync({1: 250}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 750


def test_a_capture_that_the_ledger_tells_of_first_is_spent_once() -> None:
    """The ledger may be read between the commit of a batch and the word of it here."""
    book = LeaseBook()
    book.add(lease())
    book.keep(held(book, 100), UUID(int=1), 100, 500)
    book.sync({1: 100}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 900
    book.captured(UUID(int=1), 1, 100)
    book.sync({1: 100}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 900
    book.sync({1: 350}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 650


def test_a_ticket_that_another_process_charged_is_not_held_here_as_well() -> None:
    book = LeaseBook()
    book.add(lease())
    for number in range(4):
        book.keep(held(book, 100), UUID(int=number), 100, 1_000)
    book.sync({1: 200}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 600
    for now_ms in (0, GRACE_MS, 1_000 + GRACE_MS):
        book.expire(now_ms)
    assert remaining_micros(book, CAMPAIGN, 0) == 800


def test_a_click_costs_more_than_its_ticket_holds_and_an_old_ticket_holds_little() -> None:
    book = LeaseBook()
    book.add(lease()._replace(by_click=True))
    for number in range(2):
        book.keep(held(book, 100), UUID(int=number), 100, 3_600_000)
    book.sync({1: 500}, [1])
    assert remaining_micros(book, CAMPAIGN, 0) == 300
    for now_ms in (0, GRACE_MS):
        book.expire(now_ms)
    assert remaining_micros(book, CAMPAIGN, 0) == 480


def test_a_retired_lease_leaves_when_no_decision_holds_it_and_is_forgotten_when_it_closes() -> None:
    book = LeaseBook()
    book.add(lease(1, 100))
    book.add(lease(2, 100))
    book.keep(held(book, 60), UUID(int=1), 60, 500)
    purse = book.purse(CAMPAIGN)
    book.retire([purse.open[0]])
    assert book.leaving(10) == {1: 500 + GRACE_MS}
    assert book.hold(CAMPAIGN, 40, 10) == Hold(2, 739_617, 40)
    book.left({1: 500 + GRACE_MS}, 10)
    book.captured(UUID(int=1), 1, 60)
    book.retire(list(purse.open))
    assert book.leaving(10) == {1: 10}  # its ticket was charged; a decision still holds the other
    book.left({1: 10}, 10)
    assert book.hold(CAMPAIGN, 1, 10) is None
    book.give_back(Hold(2, 739_617, 40))
    assert book.leaving(10) == {2: 10}
    book.forget_closed(10)
    assert [account.lease.id for account in purse.retired] == [2]
    assert purse.spending(739_617, 1) == (60, 100)


def test_a_lease_closes_after_its_last_ticket_which_need_not_be_its_newest() -> None:
    book = LeaseBook()
    book.add(lease())
    for number, expires_at_ms in enumerate((DAY_MS, MINUTE_MS)):
        book.keep(held(book, 100), UUID(int=number), 100, expires_at_ms)
    book.retire(list(book.purse(CAMPAIGN).open))
    assert book.leaving(10) == {1: DAY_MS + GRACE_MS}


def retired(book: LeaseBook, *tickets: int) -> None:
    """A lease of 1,000 with tickets of 100 that expire one after the other, which has left."""
    book.add(lease())
    for ticket in tickets:
        book.keep(held(book, 100), UUID(int=ticket), 100, 1_000 * ticket)
    book.retire(list(book.purse(CAMPAIGN).open))
    book.left(book.leaving(10), 10)


def test_a_lease_closes_as_soon_as_all_its_tickets_are_charged() -> None:
    book = LeaseBook()
    retired(book, 1, 2)
    book.captured(UUID(int=1), 1, 100)
    assert book.leaving(20) == {}
    book.captured(UUID(int=2), 1, 100)
    assert book.leaving(20) == {1: 20}
    assert book.leaving(30) == {1: 30}  # the ledger has not heard it yet
    book.left({1: 30}, 30)
    assert book.leaving(30) == {}


def test_a_ticket_that_is_charged_while_the_ledger_hears_of_its_lease_closes_it_sooner() -> None:
    book = LeaseBook()
    book.add(lease())
    book.keep(held(book, 100), UUID(int=1), 100, 1_000)
    book.retire(list(book.purse(CAMPAIGN).open))
    told = book.leaving(10)
    book.captured(UUID(int=1), 1, 100)
    book.left(told, 10)
    assert (told, book.leaving(20)) == ({1: 1_000 + GRACE_MS}, {1: 20})


def test_a_ticket_that_others_charged_is_settled_as_well() -> None:
    book = LeaseBook()
    retired(book, 1, 2)
    book.sync({1: 100}, [1])
    book.captured(UUID(int=1), 1, 100)  # the very one that the ledger had told of
    assert book.leaving(20) == {}
    book.sync({1: 200}, [1])
    assert book.leaving(20) == {1: 20}


def test_a_ticket_that_was_released_may_be_charged_until_it_is_over() -> None:
    book = LeaseBook()
    retired(book, 1, 2, 3)
    book.release(UUID(int=2))
    book.captured(UUID(int=1), 1, 100)
    book.sync({1: 300}, [1])  # of which one may be the released one's
    assert book.leaving(20) == {}
    book.captured(UUID(int=3), 1, 100)
    assert book.leaving(20) == {1: 2_000 + GRACE_MS}


def test_pace_and_budget_are_told_apart() -> None:
    book = LeaseBook()
    assert book.hold(CAMPAIGN, 1, 0) is None
    assert not book.paced_out(CAMPAIGN)
    book.add(lease())
    book.purse(CAMPAIGN).paced_micros = 150
    hold = held(book, 100)
    assert book.hold(CAMPAIGN, 100, 0) is None
    assert book.paced_out(CAMPAIGN)
    book.keep(hold, UUID(int=1), 40, 500)  # the auction took less: the rest is room again
    assert held(book, 100)


def test_the_campaigns_asked_for_are_told_once() -> None:
    book = LeaseBook()
    book.add(lease())
    held(book, 1)
    held(book, 1)
    book.hold(CAMPAIGN + 1, 1, 0)
    assert [purse.campaign for purse in book.touched()] == [CAMPAIGN, CAMPAIGN + 1]
    assert book.touched() == []


def test_what_will_be_charged_is_learnt_from_what_was() -> None:
    book = LeaseBook()
    book.add(lease(granted=1_000_000))
    purse = book.purse(CAMPAIGN)
    for number in range(1_000):
        book.keep(held(book, 100), UUID(int=number), 100, 10 * GRACE_MS)
        if number % 2:
            book.captured(UUID(int=number), 1, 100)
    book.expire(0)
    book.expire(GRACE_MS)
    young, old = purse.rates(100)
    assert 0.45 < young < 0.6
    assert old < 0.15
    book.expire(11 * GRACE_MS)
    assert purse.rates(100)[1] < 0.01
    assert purse.spending(739_617, 100) == (50_000, 950_000)


class Drawing(RuleBasedStateMachine):
    """Whatever decisions and events do, what is held, kept and spent stays within the lease."""

    holds = Bundle("holds")
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.book = LeaseBook()
        self.book.add(lease())
        self.number = 0
        self.now_ms = 0
        self.promised: dict[UUID, tuple[int, int]] = {}
        self.held = 0
        self.spent = 0

    @rule(target=holds, micros=st.integers(1, 400))
    def hold(self, micros: int) -> object:
        hold = self.book.hold(CAMPAIGN, micros, self.now_ms)
        if hold is None:
            return multiple()
        self.held += micros
        return hold

    @rule(hold=consumes(holds))
    def give_back(self, hold: Hold) -> None:
        self.book.give_back(hold)
        self.held -= hold.micros

    @rule(target=tickets, hold=consumes(holds), part=st.floats(0.1, 1), lives_ms=st.integers(0, 5_000))
    def keep(self, hold: Hold, part: float, lives_ms: int) -> UUID:
        self.number += 1
        ticket, micros = UUID(int=self.now_ms << 80 | self.number), max(1, int(hold.micros * part))
        self.book.keep(hold, ticket, micros, self.now_ms + lives_ms)
        self.held -= hold.micros
        self.promised[ticket] = (micros, self.now_ms + lives_ms)
        return ticket

    @rule(ticket=consumes(tickets))
    def capture(self, ticket: UUID) -> None:
        if ticket in self.promised:
            micros, _ = self.promised.pop(ticket)
            self.book.captured(ticket, 1, micros)
            self.spent += micros

    @rule(ticket=tickets)
    def release(self, ticket: UUID) -> None:
        self.book.release(ticket)
        self.promised.pop(ticket, None)

    @rule(passes_ms=st.integers(0, 2 * GRACE_MS))
    def expire(self, passes_ms: int) -> None:
        self.book.expire(self.now_ms)  # as it does each second
        self.now_ms += passes_ms
        self.book.expire(self.now_ms)
        self.promised = {t: p for t, p in self.promised.items() if not self.is_over(p[1])}

    def is_over(self, expires_at_ms: int) -> bool:
        return -(-(expires_at_ms + GRACE_MS) // SECOND_MS) * SECOND_MS <= self.now_ms

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        promised = sum(micros for micros, _ in self.promised.values())
        if self.now_ms < END_MS:
            assert remaining_micros(self.book, CAMPAIGN, 0) == 1_000 - self.held - promised - self.spent
        assert self.held + promised + self.spent <= 1_000


TestDrawing = Drawing.TestCase
TestDrawing.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 500), max_size=50))
def test_the_sum_of_all_holds_is_within_all_leases(amounts: list[int]) -> None:
    book = LeaseBook()
    book.add(lease(1, 700))
    book.add(lease(2, 300))
    granted = [hold.micros for micros in amounts if (hold := book.hold(CAMPAIGN, micros, 0))]
    assert sum(granted) <= 1_000
    assert remaining_micros(book, CAMPAIGN, 0) == 1_000 - sum(granted)
