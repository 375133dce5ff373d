from market import make_ad, make_view

from adserve.domain.ads import Cap
from adserve.domain.time import DAY_MS
from adserve.limits.rules import Rule
from adserve.settings import Surface

CAPS = (Cap("ad", 1, 60), Cap("campaign", 2, 60), Cap("advertiser", 3, 60), Cap("all", 4, 3_600))
CAP_RULES = (Rule("a1", 1, 60_000), Rule("c2", 2, 60_000), Rule("v3", 3, 60_000), Rule("*", 4, 3_600_000))
AD = make_ad(1, campaign=2, advertiser=3, caps=CAPS, separation=("drinks",))


def test_a_placement_obeys_caps_separation_minimum_time_and_hides() -> None:
    surface = Surface(separation_s=600, min_time_s=30)
    (compiled,) = make_view([AD], surface=surface).surfaces["status"].ads
    others = (Rule("l:drinks", 1, 600_000), Rule("t", 1, 30_000), Rule("h3", 1, 200 * DAY_MS))
    assert compiled.candidate.rules == CAP_RULES + others


def test_what_a_surface_switches_off_is_no_rule() -> None:
    (compiled,) = make_view([AD]).surfaces["status"].ads
    assert compiled.candidate.rules == (*CAP_RULES, Rule("h3", 1, 200 * DAY_MS))


def test_a_ticket_is_held_to_its_caps_alone() -> None:
    (compiled,) = make_view([AD], surface=Surface(separation_s=600, min_time_s=30)).surfaces["status"].ads
    assert compiled.sealed_rules == tuple(map(tuple, CAP_RULES))
