"""The order of findings, and that each code has its cause."""

from typing import Any

import pytest
from msgspec.structs import replace

from adserve.domain.ads import Campaign, Tier
from adserve.domain.ids import AdvertiserId, CampaignId
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import Exclusion, Targeting
from adserve.domain.time import DAY_MS
from adserve.reporting import diagnosis
from adserve.reporting.diagnosis import AdFacts, Code, Facts, Passed, Uses, diagnose

NOW_MS = 1_767_225_600_000
CAMPAIGN = Campaign(
    id=CampaignId(7),
    advertiser=AdvertiserId(3),
    name="c",
    starts_at_ms=NOW_MS - 2 * DAY_MS,
    ends_at_ms=None,
    time_zone="UTC",
    bid_model="cpm",
    bid_micros=2_000_000,
    currency="USD",
    billable="impression",
    budget_daily_micros=10_000,
    budget_total_micros=10_000,
    pacing="even",
    tier=Tier.AUCTION,
    targeting=Targeting(),
    caps=(),
    separation=(),
)
WELL = Facts(
    now_ms=NOW_MS,
    advertiser_status="active",
    campaign_status="active",
    created_at_ms=NOW_MS,
    campaign=CAMPAIGN,
    ads=[AdFacts(1, "active", 11, "active", "approved")],
    surfaces={"status": Surface()},
    rollouts={"status": diagnosis.SurfaceRollout(10_000)},
    paused=False,
    funds_micros=1_000_000,
    uses=Uses(),
    keeps_back=False,
    worth_micros=2_000_000.0,
    passed=None,
    counted_from_ms=NOW_MS - DAY_MS,
    counted_whole=True,
)


def ill(**more: Any) -> Facts:
    """Everything at once that can be."""
    facts = {
        "advertiser_status": "paused",
        "campaign_status": "archived",
        "campaign": replace(CAMPAIGN, starts_at_ms=NOW_MS + 1, ends_at_ms=NOW_MS),
        "ads": [AdFacts(1, "paused", 11, "paused", "waiting")],
        "surfaces": {"status": Surface(floor_micros=3_000_000)},
        "rollouts": {},
        "paused": True,
        "funds_micros": 0,
        "uses": Uses(10_000, 0, 10_000, 0),
        "keeps_back": True,
        "passed": Passed(100, 0, 0, 0, 0, 0, 0),
    }
    return replace(WELL, **facts | more)


def codes(facts: Facts) -> list[Code]:
    return [finding.code for finding in diagnose(facts)]


VARIANTS = (
    ill(),
    ill(ads=[]),
    ill(surfaces={"status": Surface(currency="EUR")}),
    ill(passed=None, created_at_ms=0, campaign=CAMPAIGN),
    *(
        ill(passed=Passed(*counts, 0))
        for counts in (
            (100, 1, 1, 1, 1, 1),
            (100, 90, 1, 1, 1, 1),
            (100, 90, 90, 1, 1, 1),
            (100, 90, 90, 90, 1, 1),
            (100, 90, 90, 90, 90, 1),
            (100, 90, 90, 90, 90, 90),
        )
    ),
)


def in_order() -> bool:
    places = list(Code)
    found = [[places.index(code) for code in codes(facts)] for facts in VARIANTS]
    return all(of == sorted(of) for of in found)


def test_findings_come_in_the_order_of_their_codes_and_each_code_can() -> None:
    assert in_order()
    assert {code for facts in VARIANTS for code in codes(facts)} == set(Code)
    assert codes(WELL) == []


def test_control_another_order_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "CHECKS", diagnosis.CHECKS[::-1])
    assert not in_order()


def test_what_is_named_is_bounded() -> None:
    ads = [AdFacts(number, "paused", 1, "active", "approved") for number in range(1, 151)]
    (finding,) = diagnose(replace(WELL, ads=ads))
    assert "19, 20 and 130 more are paused" in finding.detail


@pytest.mark.parametrize(
    ("billable", "left", "held", "effect"),
    [
        ("impression", 2_000, 0, None),
        ("impression", 1_999, 0, "blocks"),
        ("impression", 1_999, 1_999, "blocks"),
        ("impression", 1_999, 2_000, "limits"),
        ("click", 1_000, 0, None),
        ("click", 999, 0, "blocks"),
        ("click", 999, 1, "limits"),
    ],
)
def test_nothing_blocks_what_a_lease_could_still_be_drawn_for(
    billable: Any, left: int, held: int, effect: str | None
) -> None:
    """A lease for clicks is of half a click at the least, and a decision holds a fraction of that."""
    model = {"bid_model": "cpc", "bid_micros": 2_000} if billable == "click" else {}
    campaign = replace(CAMPAIGN, billable=billable, **model)
    uses = Uses(day_spent_micros=10_000 - left - held, day_held_micros=held)
    found = [(of.code, of.effect) for of in diagnose(replace(WELL, campaign=campaign, uses=uses))]
    assert found == ([] if effect is None else [(Code.DAILY_BUDGET_SPENT, effect)])


def test_excluded_countries_are_not_asked_about() -> None:
    rollouts = {"status": diagnosis.SurfaceRollout(10_000, 0, {"DE": 0})}
    assert codes(replace(WELL, rollouts=rollouts)) == [Code.NOT_ROLLED_OUT]
    without = replace(CAMPAIGN, targeting=Targeting(exclude=Exclusion(countries=("DE",))))
    assert codes(replace(WELL, rollouts=rollouts, campaign=without)) == []


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (2_500_000, "2.50"),
        (1_234_567_890_000, "1,234,567.89"),
        (-1_500_000, "-1.50"),
    ],
)
def test_money_is_written_exactly(micros: int, text: str) -> None:
    assert diagnosis._money(WELL, micros) == f"{text} USD"
