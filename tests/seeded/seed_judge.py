"""What a seeded run has violated of I1 to I5, by what was acknowledged and what has committed."""

from collections import defaultdict
from uuid import UUID

from scenario import CAP, WINDOW_MS, Scenario

from adserve.domain.events import EventKind, Outcome


def violations(scenario: Scenario) -> list[str]:
    return [
        f"{name}: {what}"
        for name, check in (("I1", _lost), ("I2", _twice), ("I3", _unbalanced), ("I4", _over_cap), ("I5", _overspent))
        for what in check(scenario)
    ]  # fmt: skip  # laid out as rows


def _lost(scenario: Scenario) -> list[str]:
    there = scenario.books.events.keys() | scenario.journal.quarantined.keys()
    lost = [
        f"{ticket.ticket} {answer.outcome}"
        for ticket, kind, answer in scenario.acknowledged
        if (ticket.ticket, kind) not in there
    ]
    spooled = 0 if scenario.spool is None else scenario.spool.count
    return (
        lost
        + [f"{key} still waits" for key in scenario.books.pending]
        + ["some are still in the spool"] * (spooled > 0)
    )


def _twice(scenario: Scenario) -> list[str]:
    billed: dict[UUID, int] = defaultdict(int)
    for ticket, _, answer in scenario.acknowledged:
        billed[ticket.ticket] += answer.outcome is Outcome.RECORDED
    found = [f"{ticket} recorded {times} times" for ticket, times in billed.items() if times > 1]
    stored_micros = sum(stored.billed_micros for stored in scenario.books.events.values())
    revenue_micros = _balance(scenario, "revenue")
    return found + (
        [f"{revenue_micros} posted of {stored_micros}"] if revenue_micros != stored_micros else []
    )


def _unbalanced(scenario: Scenario) -> list[str]:
    books = scenario.books
    found = [f"{postings}" for postings in books.transactions if sum(postings.values())]
    held = sum(
        lease.granted_micros - lease.captured_micros for lease in books.leases.values() if not lease.closed
    )
    derived = {"held 1": held, "available 1": books.available_micros[1]}
    return found + [
        f"{account} is {_balance(scenario, account)}, not {micros}"
        for account, micros in derived.items()
        if _balance(scenario, account) != micros
    ]


def _balance(scenario: Scenario, account: str) -> int:
    return sum(postings.get(account, 0) for postings in scenario.books.transactions)


def _over_cap(scenario: Scenario) -> list[str]:
    counted: dict[tuple[bytes, int], list[int]] = defaultdict(list)
    for event, outcome, _ in scenario.books.events.values():
        if event.kind is EventKind.IMPRESSION and outcome not in (Outcome.LATE, Outcome.OVER_CAP):
            counted[event.ticket.viewer_cap, event.ticket.campaign].append(event.received_at_ms)
    found = []
    for subject, unsorted in counted.items():
        moments = sorted(unsorted)
        for first, last in zip(moments, moments[CAP:], strict=False):
            if last - first < WINDOW_MS:
                found.append(f"{subject}: {CAP + 1} from {first} to {last}")
    return found


def _overspent(scenario: Scenario) -> list[str]:
    books = scenario.books
    captured: dict[int, int] = defaultdict(int)
    for event, _, billed_micros in books.events.values():
        captured[event.ticket.lease] += billed_micros
    found = [
        f"lease {number}: {captured[number]} of {lease.granted_micros}, told {lease.captured_micros}"
        for number, lease in books.leases.items()
        if not captured[number] == lease.captured_micros <= lease.granted_micros
    ]
    days = {lease.day for lease in books.leases.values()}
    found += [
        f"campaign {number} leased over its budget"
        for number, budget in books.budgets.items()
        for day in days
        if books.leased_micros(number, day) > (budget.daily_micros or 0)
    ]
    return found + (["more leased than was paid"] if books.available_micros[1] < 0 else [])
