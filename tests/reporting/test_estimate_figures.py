"""Figures of a day from a sample by hours."""

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from test_findings import CAMPAIGN, NOW_MS

from adserve.domain.time import DAY_MS, HOUR_MS
from adserve.reporting import estimate as estimating
from adserve.reporting.estimate import Estimate, Figure, Hour, Limit, Reason, estimate, wilson

FREE = replace(CAMPAIGN, budget_daily_micros=None, budget_total_micros=None)
MANY = {4: 8, 5: 1, 6: 1}


def hours(*, count: int = 24, **told: Any) -> list[Hour]:
    facts = {"requests": 1_000, "sampled": 10, "looked": 10, "matched": 5, "won": 4, "placed": 4} | told
    facts.setdefault("cost_micros", facts["placed"] * 2_000.0)
    facts.setdefault("rivals", MANY)
    facts.setdefault("contested", sum(facts["rivals"].values()))
    first_ms = NOW_MS - count * HOUR_MS
    return [Hour(first_ms + nth * HOUR_MS, **facts) for nth in range(count)]


def told(
    of: list[Hour], campaign: Any = FREE, left_micros: int | None = None, tells: bool = True
) -> Estimate:
    return estimate(of, campaign, left_micros, NOW_MS, tells=tells)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.84), (1, 0.18, 5.66), (10, 5.43, 18.4), (100, 82.2, 121.6)]
)
def test_wilsons_interval_of_a_count(count: int, low: float, high: float) -> None:
    """That of a share of 10^9, as Wilson's formula gives it."""
    assert wilson(count) == pytest.approx((low, high), abs=0.05)
    share, size = count / 10**9, 10**9
    for end in wilson(count):
        assert abs(end / size - share) == pytest.approx(
            estimating.Z * ((end / size) * (1 - end / size) / size) ** 0.5, rel=1e-6, abs=1e-12
        )


def test_counts_are_scaled_to_a_day() -> None:
    of = told(hours())
    assert (of.from_ms, of.decisions, of.reason) == (NOW_MS - DAY_MS, 240, None)
    estimates = [
        figure.estimate for figure in (of.requests, of.matching, of.winnable, of.impressions) if figure
    ]
    assert estimates == [24_000, 12_000, 9_600, 9_600]
    assert of.limited_by is Limit.REQUESTS
    assert of.price_micros == 2_000_000
    half_a_day = told(hours(count=12))
    assert half_a_day.requests is not None
    assert half_a_day.requests.estimate == 24_000


def test_a_full_hour_stands_for_its_own_requests_and_the_others_for_theirs_together() -> None:
    busy = hours(requests=9_000, full=True, sampled=30, looked=30, matched=30, won=0, placed=0)[:1]
    quiet = hours(requests=100, sampled=10, matched=0, won=0, placed=0)[1:]
    of = told([*busy, *quiet])
    assert of.requests is not None
    assert of.matching is not None
    assert of.requests.estimate == 9_000 + 23 * 100
    assert of.matching.estimate == 9_000


def test_quiet_hours_before_the_first_request_are_no_part_of_the_window() -> None:
    silent = [hour._replace(requests=0, sampled=0, looked=0, matched=0, won=0, placed=0) for hour in hours()]
    of = told([*silent[:12], *hours()[12:]])
    assert of.from_ms == NOW_MS - 12 * HOUR_MS
    assert of.requests is not None
    assert of.requests.estimate == 24_000


def truth_in_interval(seed: int) -> bool:
    """Of a day with rates that differ by the hour, sampled at one rate, with hours of which only the newest were looked at."""
    chance = Random(seed)
    sampled, wanted = [], 0
    for nth in range(24):
        requests, share = chance.choice((300, 3_000)), chance.choice((0.02, 0.1, 0.3))
        wants = [chance.random() < share for _ in range(requests)]
        wanted += sum(wants)
        found = [want for want in wants if chance.random() < 0.02]
        looked_at = found[:30]
        facts = {
            "full": len(found) >= 30,
            "sampled": len(looked_at),
            "looked": len(looked_at),
            "matched": sum(looked_at),
        }
        sampled.append(Hour(NOW_MS - DAY_MS + nth * HOUR_MS, requests, **facts))
    matching = told(sampled).matching
    assert matching is not None
    return matching.low <= wanted <= matching.high


def test_the_truth_is_within_the_interval_as_often_as_it_says() -> None:
    assert sum(truth_in_interval(seed) for seed in range(200)) >= 0.93 * 200


def test_control_an_interval_of_half_the_width_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "Z", estimating.Z / 2)
    assert sum(truth_in_interval(seed) for seed in range(200)) < 0.85 * 200


@pytest.mark.parametrize(
    ("budgets", "left", "most", "limit"),
    [
        ({"budget_daily_micros": 2_000_000}, None, 1_000, Limit.DAILY_BUDGET),
        ({"budget_daily_micros": 2_000_000_000}, None, 9_600, Limit.REQUESTS),
        ({"budget_total_micros": 4_000_000}, 3_000_000, 1_500, Limit.TOTAL_BUDGET),
        ({"budget_total_micros": 4_000_000}, -1, 0, Limit.TOTAL_BUDGET),
        ({"budget_daily_micros": 2_000_000, "budget_total_micros": 4_000_000}, 1_000_000, 500, Limit.TOTAL_BUDGET),
        ({"budget_daily_micros": 2_000_000, "budget_total_micros": 4_000_000}, 3_000_000, 1_000, Limit.DAILY_BUDGET),
        ({"budget_total_micros": 40_000_000, "ends_at_ms": NOW_MS + 20 * DAY_MS}, 40_000_000, 1_000, Limit.TOTAL_BUDGET),
        (
            {"budget_total_micros": 4_000_000, "ends_at_ms": NOW_MS + 20 * DAY_MS, "pacing": "asap"},
            4_000_000,
            2_000,
            Limit.TOTAL_BUDGET,
        ),
        (
            {
                "budget_total_micros": 20_000_000,
                "starts_at_ms": NOW_MS + 10 * DAY_MS,
                "ends_at_ms": NOW_MS + 20 * DAY_MS,
            },
            20_000_000,
            1_000,
            Limit.TOTAL_BUDGET,
        ),
    ],
)  # fmt: skip  # laid out as rows
def test_budgets_bound_impressions_at_the_expected_price(
    budgets: dict[str, Any], left: int | None, most: int, limit: Limit
) -> None:
    of = told(hours(), replace(FREE, **budgets), left)
    assert of.impressions is not None
    assert (of.impressions.estimate, of.limited_by) == (most, limit)
    assert of.impressions.high >= of.impressions.low
    assert of.winnable == told(hours()).winnable


def test_several_ads_of_an_answer_are_several_impressions() -> None:
    of = told(hours(placed=8))
    assert of.winnable is not None
    assert of.impressions is not None
    assert (of.winnable.estimate, of.impressions.estimate) == (9_600, 19_200)


def test_what_cannot_be_told_is_missing_for_a_reason() -> None:
    assert told([]) == Estimate(from_ms=NOW_MS, decisions=0, reason=Reason.TOO_FEW_DECISIONS)
    few = hours(count=9)
    assert told(few).reason is Reason.TOO_FEW_DECISIONS
    assert told(few).requests is None
    custom = told(hours(), tells=False)
    assert (custom.reason, custom.matching, custom.winnable) == (Reason.CUSTOM_TARGETING, None, None)
    assert custom.requests is not None
    for rivals in ({4: 10}, {4: 5, 5: 5}, {4: 100, 5: 100, 6: 9, 7: 8}):
        of = told(hours(rivals=rivals))
        assert (of.reason, of.winnable, of.impressions, of.price_micros) == (
            Reason.TOO_FEW_ADVERTISERS,
            None,
            None,
            None,
        )
        assert of.matching is not None
    assert told(hours(rivals={4: 100, 5: 90, 6: 10})).reason is None
    alone = told(hours(rivals={}))
    assert alone.reason is None, "where nobody else bids nothing is told of anybody"


def test_nobody_matches_is_a_figure() -> None:
    of = told(hours(matched=0, won=0, placed=0))
    assert of.matching is not None
    assert of.matching == Figure(0, 0, 385), "each decision stands for a hundred requests"
    assert (of.impressions, of.price_micros, of.limited_by) == (of.winnable, None, Limit.REQUESTS)


@pytest.mark.parametrize(
    ("each", "price"), [(2_000.0, 2_000_000), (2_010.0, 2_100_000), (0.000_4, 1), (0.0123, 13)]
)
def test_a_price_has_two_digits(each: float, price: int) -> None:
    assert told(hours(cost_micros=4 * each)).price_micros == price
