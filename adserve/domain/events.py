"""What happened to an ad that was placed, and what became of the report of it."""

from enum import StrEnum

from msgspec import Struct

from adserve.domain.ids import EventId
from adserve.domain.money import Money
from adserve.domain.tickets import Ticket
from adserve.domain.traffic import UNJUDGED, Verdict


class EventKind(StrEnum):
    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    HIDE = "hide"
    REPORT = "report"
    COMPLETE = "complete"


IMPRESSION, VIEW, CLICK, HIDE, REPORT, COMPLETE = EventKind
"""For what is done with each event: to read a member of its class takes as long as a dozen such names (Python 3.11)."""

CONFIRMING = frozenset({IMPRESSION, VIEW})
"""The kinds that confirm a reservation: the first of them decides whether a ticket counts against caps."""


class Outcome(StrEnum):
    """In the order of the contract: the first that holds decides. All but `refused` are stored."""

    REFUSED = "refused"
    DUPLICATE = "duplicate"
    LATE = "late"
    OVER_CAP = "over_cap"
    INVALID_TRAFFIC = "invalid_traffic"
    UNBILLED_KIND = "unbilled_kind"
    OVER_BUDGET = "over_budget"
    RECORDED = "recorded"
    ACCEPTED = "accepted"


REFUSED, DUPLICATE, LATE, OVER_CAP, INVALID_TRAFFIC, UNBILLED_KIND, OVER_BUDGET, RECORDED, ACCEPTED = Outcome


class Event(Struct, frozen=True, array_like=True, gc=False):
    """An event as the recorder takes it: opened, confirmed, not yet settled.

    `outcome` is what is known before the ledger speaks: `late`, `over_cap`, `invalid_traffic`, `unbilled_kind`, or
    `recorded` when it is to be billed. The ledger may turn it into `duplicate` or `over_budget`. It is `accepted` while the counters
    cannot say whether it counts. `counted_in` is the epoch of the counters that it counts in, if it does: the ledger
    stores it as counted while that is the newest, and has it judged again by those of a newer one.
    """

    event: EventId
    kind: EventKind
    ticket: Ticket
    outcome: Outcome
    received_at_ms: int
    occurred_at_ms: int | None
    view_ms: int | None
    verdict: Verdict = UNJUDGED
    counted_in: int | None = None


class Settled(Struct, frozen=True, gc=False):
    """What the ledger made of an event. `event` is the first one's id for a duplicate. Where that one `waits`, to be judged or
    in a spool, it is not said yet with which moment the ticket counts."""

    event: EventId
    outcome: Outcome
    billed: Money | None
    waits: bool = False
