from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from adserve.domain.ramps import (
    Direction,
    Evidence,
    Finding,
    Guardrail,
    Metric,
    Moments,
    Plan,
    Ramp,
    Status,
    Step,
    Verdict,
)
from adserve.rollout.guardrails import EVENTS_BEHIND_MAX_MS, judge, limit_of, look_at

FALLS, RISES = Direction.FALLS, Direction.RISES
SESSIONS = Guardrail(Metric.SESSION_SECONDS, FALLS, 0.05)
STEPS = tuple(Step(percent_bp, 3_600) for percent_bp in (100, 1_000, 10_000))


@dataclass
class Seen:
    """Viewers of one kind each: what they did is drawn alike in both arms, times `change` for the exposed."""

    viewers: int = 10_000
    change: float = 1.0
    clicks: int = 0
    operational: dict[Metric, float] = field(default_factory=dict)

    def evidence(self) -> Evidence:
        seconds = np.random.default_rng(1).lognormal(4, 0.5, self.viewers)
        shown = 10.0 * self.viewers
        clicks = Moments(self.viewers, self.clicks, shown, self.clicks, 10.0 * self.clicks, 10 * shown)
        arms = moments(seconds * self.change), moments(seconds[::-1])
        compared, of_exposed = {Metric.SESSION_SECONDS: arms}, {Metric.CLICK_RATE: clicks}
        return Evidence(self.viewers, self.viewers, 0.5, compared, of_exposed, self.operational)


def moments(x: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Moments:
    return Moments(len(x), x.sum(), len(x), (x * x).sum(), x.sum(), len(x))


def verdict(guardrail: Guardrail, seen: Seen, step: int = 1, others: int = 0) -> Verdict:
    plan = Plan("status", STEPS, (guardrail, *[SESSIONS] * others))
    return judge(plan, step, seen.evidence())[0]


@pytest.mark.parametrize(
    ("change", "finding"), [(0.88, Finding.BREACHED), (0.95, Finding.OPEN), (1.0, Finding.FINE)]
)
def test_a_drop_is_judged_once_the_whole_band_is_on_one_side(change: float, finding: Finding) -> None:
    found = verdict(SESSIONS, Seen(change=change))
    assert found.finding is finding
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.estimate < found.high


def test_a_rise_is_harm_where_that_was_said() -> None:
    rising = replace(SESSIONS, direction=RISES)
    assert verdict(rising, Seen(change=1.12)).finding is Finding.BREACHED
    assert verdict(rising, Seen(change=0.88)).finding is Finding.FINE


def test_clicks_are_held_against_the_bound_itself() -> None:
    least, most = Guardrail(Metric.CLICK_RATE, FALLS, 0.01), Guardrail(Metric.CLICK_RATE, RISES, 0.05)
    for clicks, below, above in (
        (300, Finding.BREACHED, Finding.FINE),
        (2_000, Finding.FINE, Finding.FINE),
        (7_000, Finding.FINE, Finding.BREACHED),
    ):
        assert verdict(least, Seen(clicks=clicks)).finding is below
        assert verdict(most, Seen(clicks=clicks)).finding is above


def test_rates_of_the_past_are_good_enough_for_a_breach_and_not_for_a_step_up() -> None:
    most = Guardrail(Metric.CLICK_RATE, RISES, 0.02)
    for clicks, behind_ms, finding in (
        (1_000, EVENTS_BEHIND_MAX_MS, Finding.FINE),
        (1_000, EVENTS_BEHIND_MAX_MS + 1, Finding.NO_DATA),
        (3_000, EVENTS_BEHIND_MAX_MS + 1, Finding.BREACHED),
    ):
        seen = Seen(clicks=clicks).evidence()._replace(events_behind_ms=behind_ms)
        (found,) = judge(Plan("status", STEPS, (most,)), 1, seen)
        assert found.finding is finding
        assert ("events of the last 10 min" in found.words) is (finding is Finding.NO_DATA)


def test_operational_figures_are_compared_as_they_are() -> None:
    slow = Guardrail(Metric.DECISION_P99_MS, RISES, 20)
    assert verdict(slow, Seen(operational={Metric.DECISION_P99_MS: 20.5})).finding is Finding.BREACHED
    assert verdict(slow, Seen(operational={Metric.DECISION_P99_MS: 19.5})).finding is Finding.FINE
    assert verdict(slow, Seen()).finding is Finding.NO_DATA


def test_nothing_is_said_before_enough_of_each_arm_were_seen() -> None:
    assert verdict(SESSIONS, Seen(viewers=99)).finding is Finding.NO_DATA
    assert verdict(SESSIONS, Seen(viewers=100)).finding is Finding.OPEN
    plan = Plan("status", STEPS, (SESSIONS, Guardrail(Metric.AD_LOAD, RISES, 3)))
    nothing = Evidence(0, 0, 0.5, {}, {}, {})
    assert [each.finding for each in judge(plan, 0, nothing)] == [Finding.NO_DATA] * 2


def test_a_step_that_has_no_such_control_does_not_wait_for_one() -> None:
    exposed, control = np.full(450, 10.0), np.full(50, 10.0)
    arms = {Metric.SESSION_SECONDS: (moments(exposed), moments(control))}
    plan = Plan("status", STEPS, (SESSIONS,))
    for share, left, finding in (
        (0.9, 50, Finding.OPEN),
        (0.9, 500, Finding.NO_DATA),
        (0.5, 50, Finding.NO_DATA),
    ):
        (found,) = judge(plan, 1, Evidence(450, left, share, arms, {}, {}))
        assert found.finding is finding
    assert "100 needed" in found.words


def test_the_more_a_plan_looks_at_the_wider_are_its_bands() -> None:
    alone, beside_others = verdict(SESSIONS, Seen()), verdict(SESSIONS, Seen(), others=20)
    assert beside_others.low < alone.low
    shorter = judge(Plan("status", STEPS[:1], (SESSIONS,)), 0, Seen().evidence())[0]
    assert alone.low < shorter.low


def test_operational_guardrails_widen_no_band() -> None:
    plan = Plan("status", STEPS, (SESSIONS, Guardrail(Metric.ERRORS, RISES, 0.01)))
    assert judge(plan, 1, Seen().evidence())[0] == verdict(SESSIONS, Seen())


def test_limits_have_the_sign_of_the_estimate() -> None:
    assert limit_of(SESSIONS) == -0.05
    assert limit_of(replace(SESSIONS, direction=RISES)) == 0.05
    assert limit_of(Guardrail(Metric.CLICK_RATE, FALLS, 0.01)) == 0.01


def test_words_say_what_was_seen_of_how_many_and_what_is_allowed() -> None:
    hurt = verdict(SESSIONS, Seen(change=0.8))
    assert hurt.words == (
        f"session seconds -20.00 % ({hurt.low:+.2%} to {hurt.high:+.2%}), 10,000 viewers against 10,000 in control: worse than "
        "the -5.00 % allowed"
    ).replace("%", " %").replace("  %", " %")
    assert "in the holdout: no worse than the -5.00 % allowed" in verdict(SESSIONS, Seen(), step=2).words
    assert verdict(SESSIONS, Seen(viewers=7)).words == (
        "session seconds: 7 viewers against 7 in control, 100 needed"
    )
    slow = verdict(
        Guardrail(Metric.DECISION_P99_MS, RISES, 20), Seen(operational={Metric.DECISION_P99_MS: 31.25})
    )
    assert slow.words == "decisions' p99 31.25 ms: worse than the 20 ms allowed"
    few = verdict(Guardrail(Metric.CLICK_RATE, FALLS, 0.01), Seen(clicks=990)).words
    assert few.startswith("clicks 0.99 % of impressions (")
    assert few.endswith("), 10,000 viewers: open whether it is worse than the 1 % allowed")


def test_a_look_has_the_sizes_of_the_arms_judged_as_well() -> None:
    ramp = Ramp(1, Plan("status", STEPS, (SESSIONS,)), Status.RUNNING, 1, 0, 100, "")
    evidence = Seen().evidence()._replace(exposed=60_000, control=40_000)
    look = look_at(ramp, evidence, 5)
    assert (look.at_ms, look.step, look.exposed, look.control) == (5, 1, 60_000, 40_000)
    assert look.verdicts[0].finding is Finding.FINE
    assert look.mismatch is not None
    assert look.mismatch.found
