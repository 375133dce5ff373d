"""A campaign that is asked for, on one of its days: what the keeper remembers of it, and how much it needs."""

from datetime import timedelta

from adserve.domain.ads import Campaign
from adserve.domain.time import SECOND_MS, local_day
from adserve.limits.pacing import LEAD, day_begins_ms, paced
from adserve.limits.purses import Purse

SUPPLY_MS = 10 * SECOND_MS
"""A lease is to last for so long at the rate of drawing since the last one."""
RATE_OVER_MS_MIN = SECOND_MS
EVENTS_PER_LEASE_MIN = 20
LEASES_PER_DAY_MIN = 10
CLICKS_AHEAD = 10
CLICK_PARTS = 2
ASK_AGAIN_MS = 1_500
ASK_AGAIN_MAX_MS = 60 * SECOND_MS
"""How soon a campaign without budget or balance is asked for again, if there is no deposit and no change to it."""


def least_micros(campaign: Campaign) -> int:
    """Of a lease. Of a click a decision holds a fraction; of anything else the whole bid, for which a rest may not do."""
    return campaign.event_bid_micros // (CLICK_PARTS if campaign.billable == "click" else 1)


class Line:
    """`expected_micros` is what the ledger expected to be charged of the
    day when we last took a lease, of which `ours_micros` were ours."""

    __slots__ = (
        "again_at_ms",
        "asked_at_ms",
        "asked_drawn_micros",
        "campaign",
        "day",
        "ends_at_ms",
        "event_micros",
        "expected_micros",
        "funds",
        "least_micros",
        "ours_micros",
        "paced",
        "patience_ms",
        "purse",
        "touched_at_ms",
    )

    def __init__(self, campaign: Campaign, purse: Purse, now_ms: int) -> None:
        self.campaign = campaign
        self.purse = purse
        self.day = local_day(now_ms, campaign.zone)
        day_ends_ms = day_begins_ms(self.day + timedelta(days=1), campaign.zone)
        self.ends_at_ms = min(day_ends_ms, campaign.ends_at_ms or day_ends_ms)
        self.event_micros = campaign.event_bid_micros
        self.least_micros = least_micros(campaign)
        self.paced = paced(campaign)
        self.asked_at_ms = now_ms
        self.asked_drawn_micros = 0
        self.again_at_ms = 0
        self.patience_ms = ASK_AGAIN_MS
        self.funds = -1
        self.expected_micros = self.ours_micros = 0
        self.touched_at_ms = now_ms

    def first_micros(self) -> int:
        if self.paced:
            return max(self.event_micros, int(LEAD * (self.campaign.budget_daily_micros or 0)))
        return self.supply_micros(self.asked_at_ms)

    def ahead_micros(self, lead_micros: int) -> int:
        """How far leases are ahead of what the pace has room for. A lease of few clicks would often be too small for
        those that come."""
        if self.campaign.billable != "click":
            return lead_micros
        part = (self.campaign.budget_daily_micros or 0) // LEASES_PER_DAY_MIN
        return max(lead_micros, min(CLICKS_AHEAD * self.event_micros, part))

    def spending(self) -> tuple[int, int]:
        return self.purse.spending(self.day.toordinal(), self.event_micros)

    def supply_micros(self, now_ms: int) -> int:
        """For some seconds, at least some events' worth, at most a part of the day's budget, never below one event."""
        wanted = EVENTS_PER_LEASE_MIN * self.event_micros
        elapsed_ms = max(RATE_OVER_MS_MIN, now_ms - self.asked_at_ms)
        wanted = max(wanted, (self.purse.drawn_micros - self.asked_drawn_micros) * SUPPLY_MS // elapsed_ms)
        if self.campaign.budget_daily_micros is not None:
            wanted = min(wanted, self.campaign.budget_daily_micros // LEASES_PER_DAY_MIN)
        return max(wanted, self.event_micros)
