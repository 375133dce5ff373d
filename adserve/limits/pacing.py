"""How much of its day's budget an `even` campaign may have spent by now: as much of it as of its traffic has passed.

Traffic is slot requests, counted by country and quarter of an hour, a stand-in for the requests that match a campaign:
its countries, weekdays and hours are looked at, nothing else. What is still to come is forecast from the days before at
the same time by the clock of the campaign's zone, and scaled by how today has compared with its forecast so far, of
late above all. So the plan follows the day as it turns out. Nothing here awaits or reads a clock.
"""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from adserve.domain.ads import Campaign
from adserve.domain.time import DAY_MS, DAY_QUARTERS, QUARTER_MS, from_ms, to_ms

EVERYWHERE = "*"
NOWHERE = ""
"""The country of a request that names none."""

DAYS_BACK = 14
QUARTERS_KEPT = DAY_QUARTERS * (DAYS_BACK + 2)
DAY_WEIGHT = 0.75
"""How much less each day counts than the one after it."""
FADING = 0.5 ** (1 / 8)
"""By a quarter: how today compares with its forecast is looked at over some two hours."""
SCALE_PRIOR = 0.01
"""So much of a day's forecast traffic, and REQUESTS_PRIOR requests, speak for today being as large as the days before."""
REQUESTS_PRIOR = 200.0
LEAD = 0.01
"""How far a campaign is ahead of its plan, of its day's budget, at least by one event: what comes back of the last tickets
shall still find viewers."""
CLICK_LEAD = 0.5
"""The same where clicks are paid, in clicks: which of the tickets that are out are clicked is chance, so few are to be out."""

_NEVER = 1 << 62
_SLOTS = QUARTERS_KEPT + DAY_QUARTERS

Series = NDArray[np.float64]


class Asked(NamedTuple):
    """A request for a lease. `allowed_micros` bounds what is expected to be charged of the day, where it is paced;
    `unspent_micros` is what we expect to be left of our leases on it."""

    campaign: int
    budget_day: date
    wanted_micros: int
    least_micros: int
    allowed_micros: int | None
    unspent_micros: int | None


class Granted(NamedTuple):
    """`lease` is None where nothing was granted; `paced`: the pace alone was why. `expected_micros` is what all processes
    together expected to be charged of the day before this grant, where it is paced."""

    campaign: int
    lease: int | None
    micros: int
    expected_micros: int | None
    paced: bool


class Unspent(NamedTuple):
    """What we expect to be left of our leases on a campaign's day."""

    campaign: int
    budget_day: date
    micros: int


class Used(NamedTuple):
    """What all processes together expect to be charged of a campaign's day, and what is leased of it in all."""

    campaign: int
    day_micros: int
    total_micros: int


class Audience(NamedTuple):
    """The part of the traffic that a campaign can reach."""

    countries: tuple[str, ...]
    excluded: tuple[str, ...]
    hours: frozenset[int]
    weekdays: frozenset[int]


def audience_of(campaign: Campaign) -> Audience:
    wanted, unwanted = campaign.targeting, campaign.targeting.exclude
    return Audience(
        tuple(sorted(set(wanted.countries) - set(unwanted.countries))),
        () if wanted.countries else tuple(sorted(set(unwanted.countries))),
        frozenset(wanted.hours or range(24)) - frozenset(unwanted.hours),
        frozenset(wanted.weekdays or range(1, 8)) - frozenset(unwanted.weekdays),
    )


class Traffic:
    """The requests of the last DAYS_BACK days: those that all processes have written down, and our newest."""

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.first_quarter = _NEVER
        self.read_quarter = 0
        self._counts: dict[str, Series] = {}

    def note(self, country: str | None) -> None:
        """One slot request."""
        place = country or NOWHERE
        self.newest[place] = self.newest.get(place, 0) + 1

    def take_newest(self, now_ms: int) -> dict[tuple[int, str], int]:
        """What was noted since the last time, to be written down."""
        newest, self.newest = self.newest, {}
        quarter = now_ms // QUARTER_MS
        counts = {(quarter, country): count for country, count in newest.items()}
        if counts:
            counts[quarter, EVERYWHERE] = sum(newest.values())
        return counts

    def learn(self, rows: Iterable[tuple[int, str, int]], now_ms: int) -> None:
        """What has been written down of some quarters, in place of what was known of them."""
        self._advance(now_ms // QUARTER_MS)
        for quarter, country, count in rows:
            if self.read_quarter - _SLOTS < quarter <= self.read_quarter:
                series = self._counts.get(country)
                if series is None:
                    series = self._counts[country] = np.zeros(_SLOTS)
                series[quarter % _SLOTS] = count
                self.first_quarter = min(quarter, self.first_quarter)

    def counts(self, audience: Audience, quarters: NDArray[np.int64]) -> Series:
        slots = quarters % _SLOTS
        none = np.zeros(quarters.shape)
        if audience.countries:
            return sum((self._of(country)[slots] for country in audience.countries), none)
        return self._of(EVERYWHERE)[slots] - sum((self._of(c)[slots] for c in audience.excluded), none)

    def unwritten(self, audience: Audience) -> int:
        if audience.countries:
            return sum(self.newest.get(country, 0) for country in audience.countries)
        return sum(self.newest.values()) - sum(self.newest.get(country, 0) for country in audience.excluded)

    def _of(self, country: str) -> Series:
        return self._counts.get(country, _NOTHING)

    def _advance(self, quarter: int) -> None:
        """The slots of the quarters that begin were those of quarters long ago."""
        if quarter > self.read_quarter:
            stale = np.arange(max(self.read_quarter + 1, quarter - _SLOTS + 1), quarter + 1) % _SLOTS
            for series in self._counts.values():
                series[stale] = 0
            self.read_quarter = quarter


_NOTHING = np.zeros(_SLOTS)


class Outlook:
    """One local day of an audience: what has come, and what is to be expected of the rest."""

    def __init__(self, audience: Audience, calendar: "Calendar", traffic: Traffic) -> None:
        self._audience = audience
        self._traffic = traffic
        self._quarters = calendar.quarters
        self._first_ms = int(calendar.quarters[0]) * QUARTER_MS
        self._reached = np.array(
            [hour in audience.hours and day in audience.weekdays for day, hour in calendar.clock], np.float64
        )
        self._known = bool(traffic.first_quarter < calendar.quarters[0])
        self._forecast = self._reached * (
            _forecast(traffic, audience, calendar.past) if self._known else np.ones(len(self._quarters))
        )
        self._sums = np.concatenate(([0.0], np.cumsum(self._forecast))).tolist()
        self._written = 0.0
        self._scale_parts = (0.0, 0.0)
        self._index = 0

    def refresh(self, now_ms: int) -> None:
        """Takes up what the traffic has learnt."""
        index = min(max(now_ms - self._first_ms, 0) // QUARTER_MS, len(self._quarters) - 1)
        came = self._reached[: index + 1] * self._traffic.counts(self._audience, self._quarters[: index + 1])
        fading = FADING ** np.arange(index, -1, -1)
        self._written = float(came.sum())
        self._scale_parts = (float(came @ fading), float(self._forecast[:index] @ fading[:index]))
        self._index = index

    def seen(self) -> float:
        return self._written + self._unwritten()

    def ahead(self, now_ms: int, until_ms: int) -> float:
        """The traffic still to come until a moment of this day."""
        return self._scale(now_ms) * (self._until(until_ms) - self._until(now_ms))

    def _unwritten(self) -> float:
        return self._traffic.unwritten(self._audience) * float(self._reached[self._index])

    def _scale(self, now_ms: int) -> float:
        came, expected = self._scale_parts
        came += self._unwritten()
        expected += max(0.0, self._until(now_ms) - self._sums[self._index])
        prior = max(SCALE_PRIOR * self._sums[-1], REQUESTS_PRIOR) if self._known else 0.0
        return (came + prior) / (expected + prior) if expected + prior > 0 else 0.0

    def _until(self, moment_ms: int) -> float:
        """The forecast from the day's first moment to this one."""
        index, rest_ms = divmod(max(0, moment_ms - self._first_ms), QUARTER_MS)
        if index >= len(self._forecast):
            return float(self._sums[-1])
        return float(self._sums[index] + self._forecast[index] * (rest_ms / QUARTER_MS))


def _forecast(traffic: Traffic, audience: Audience, past: NDArray[np.int64]) -> Series:
    """The days before, the last first, in one: a weighted mean of those on which requests were counted at all."""
    came = traffic.counts(audience, past)
    known = (past >= traffic.first_quarter) & (came.sum(axis=1, keepdims=True) > 0)
    weights = known * DAY_WEIGHT ** np.arange(len(past), dtype=np.float64)[:, None]
    total = weights.sum(axis=0)
    mean = (came * weights).sum(axis=0) / np.where(total > 0, total, 1.0)
    usual = float(mean[total > 0].mean()) if (total > 0).any() else 1.0
    return np.where(total > 0, mean, usual) + 0.001 * usual


class Calendar:
    """A day in a zone: its quarters, their weekdays and hours, and the same times by the clock on the days before."""

    def __init__(self, day: date, zone: ZoneInfo) -> None:
        begins_ms, ends_ms = day_begins_ms(day, zone), day_begins_ms(day + timedelta(days=1), zone)
        self.quarters = np.arange(begins_ms // QUARTER_MS, -(-ends_ms // QUARTER_MS), dtype=np.int64)
        locals_ = [from_ms(int(q) * QUARTER_MS).astimezone(zone) for q in self.quarters]
        self.clock = [(local.isoweekday(), local.hour) for local in locals_]
        walls = [local.replace(tzinfo=None) for local in locals_]
        self.past = np.array(
            [
                [_quarter(wall - timedelta(days=back), zone) for wall in walls]
                for back in range(1, DAYS_BACK + 1)
            ],
            dtype=np.int64,
        )


def _quarter(wall: datetime, zone: ZoneInfo) -> int:
    return to_ms(wall.replace(tzinfo=zone)) // QUARTER_MS


def day_begins_ms(day: date, zone: ZoneInfo) -> int:
    return to_ms(datetime.combine(day, time.min, zone))


class _Plan(NamedTuple):
    """Spends `part_micros` on top of `used_micros` by the end, along the traffic after `seen` had come."""

    day: date
    budgets: tuple[object, ...]
    outlook: Outlook
    begins_ms: int
    ends_ms: int
    used_micros: int
    part_micros: int
    seen: float


def paced(campaign: Campaign) -> bool:
    """A total budget without an end cannot be spread."""
    return campaign.pacing == "even" and (
        campaign.budget_daily_micros is not None
        or (campaign.budget_total_micros is not None and campaign.ends_at_ms is not None)
    )


class Pacer:
    """The plans of the campaigns that are drawn on."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self._plans: dict[int, _Plan] = {}
        self._outlooks: dict[tuple[Audience, str, date], Outlook] = {}
        self._calendars: dict[tuple[str, date], Calendar] = {}

    def knows(self, campaign: Campaign, day: date) -> bool:
        plan = self._plans.get(campaign.id)
        return plan is not None and plan.day == day and plan.budgets == _budgets(campaign)

    def begin(self, campaign: Campaign, day: date, day_ends_ms: int, used: Used, now_ms: int) -> None:
        """Plans the rest of the day from what is used: at its start, ours, or when the budget has changed."""
        ends_ms = min(day_ends_ms, campaign.ends_at_ms or day_ends_ms)
        part_micros = campaign.budget_daily_micros
        if campaign.budget_total_micros is not None:
            rest_micros = max(0, campaign.budget_total_micros - used.total_micros)
            if part_micros is None:
                left_ms = max(1, (campaign.ends_at_ms or ends_ms) - now_ms)
                part_micros = used.day_micros + rest_micros * max(0, ends_ms - now_ms) // left_ms
            part_micros = min(part_micros, used.day_micros + rest_micros)
        outlook = self._outlook(campaign, day, now_ms)
        self._plans[campaign.id] = _Plan(
            day=day,
            budgets=_budgets(campaign),
            outlook=outlook,
            begins_ms=now_ms,
            ends_ms=ends_ms,
            used_micros=used.day_micros,
            part_micros=max(0, (part_micros or 0) - used.day_micros),
            seen=outlook.seen(),
        )

    def allowance(self, campaign: Campaign, now_ms: int) -> tuple[int, int]:
        """What may be spent of the day by now in micros, and by how much a process may be ahead of that."""
        plan = self._plans[campaign.id]
        came = plan.outlook.seen() - plan.seen
        coming = plan.outlook.ahead(now_ms, plan.ends_ms)
        if came + coming > 0:
            share = min(1.0, max(0.0, came / (came + coming)))
        else:
            share = min(1.0, (now_ms - plan.begins_ms) / max(1, plan.ends_ms - plan.begins_ms))
        if campaign.billable == "click":
            lead = int(CLICK_LEAD * campaign.event_bid_micros)
        else:
            lead = max(campaign.event_bid_micros, int(LEAD * (plan.used_micros + plan.part_micros)))
        return plan.used_micros + int(plan.part_micros * share), lead

    def refresh(self, now_ms: int) -> None:
        """The traffic has learnt: plans look at it again, and those of days that are over are forgotten."""
        over = from_ms(now_ms - 2 * DAY_MS).date()  # in every time zone
        self._plans = {campaign: plan for campaign, plan in self._plans.items() if plan.day > over}
        self._outlooks = {key: outlook for key, outlook in self._outlooks.items() if key[2] > over}
        self._calendars = {key: calendar for key, calendar in self._calendars.items() if key[1] > over}
        for outlook in self._outlooks.values():
            outlook.refresh(now_ms)

    def _outlook(self, campaign: Campaign, day: date, now_ms: int) -> Outlook:
        key = (audience_of(campaign), campaign.time_zone, day)
        outlook = self._outlooks.get(key)
        if outlook is None:
            calendar = self._calendars.get(key[1:])
            if calendar is None:
                calendar = self._calendars[key[1:]] = Calendar(day, campaign.zone)
            outlook = self._outlooks[key] = Outlook(key[0], calendar, self.traffic)
            outlook.refresh(now_ms)
        return outlook


def _budgets(campaign: Campaign) -> tuple[object, ...]:
    return (
        campaign.budget_daily_micros,
        campaign.budget_total_micros,
        campaign.starts_at_ms,
        campaign.ends_at_ms,
        campaign.time_zone,
    )
