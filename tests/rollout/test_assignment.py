import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.rollouts import SurfaceRollout
from adserve.rollout.assignment import BUCKETS, admits, bucket_of, in_holdout

VECTORS = Path(os.environ.get("ADSERVE_SHARED_DATA", "../shared/data")) / "vectors"
FILES = (
    "unleash_03-gradual-rollout-user-id-strategy.json",
    "unleash_04-gradual-rollout-session-id-strategy.json",
    "unleash_10-flexible-rollout-strategy.json",
    "unleash_12-custom-stickiness.json",
)
CROWD = [f"viewer-{number}" for number in range(100_000)]

Bucket = Callable[[str, str], int]
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def admitted(bucket: Bucket, percent: int, group: str, viewer: str) -> bool:
    return bucket(group, viewer) < percent * 100


def sticky_value(stickiness: str, context: dict[str, Any]) -> str | None:
    """Whom a case is about: adserve has one id for a viewer where the public rule has several."""
    known = context | context.get("properties", {})
    if stickiness == "default":
        return known.get("userId") or known.get("sessionId")
    return known.get(stickiness)


def gradual_cases() -> list[Any]:
    """(percent, group, viewer, admitted) of every public case that is decided by a gradual rollout alone."""
    cases = []
    for name in FILES:
        if not (VECTORS / name).exists():
            continue
        spec = json.loads((VECTORS / name).read_text())
        strategies = {feature["name"]: feature["strategies"] for feature in spec["state"]["features"]}
        for test in spec["tests"]:
            only, *others = strategies[test["toggleName"]]
            asked = only["parameters"]
            stickiness = asked.get("stickiness") or {
                "gradualRolloutUserId": "userId",
                "gradualRolloutSessionId": "sessionId",
            }.get(only["name"], "default")
            viewer = sticky_value(stickiness, test["context"])
            if others or viewer is None:
                continue
            percent = int(asked.get("percentage") or asked["rollout"])
            case = (percent, asked["groupId"], viewer, test["expectedResult"])
            cases.append(pytest.param(*case, id=test["description"]))
    return cases


CASES = gradual_cases()
needs_vectors = pytest.mark.skipif(not CASES, reason=f"no public rollout vectors in {VECTORS}")


@needs_vectors
@pytest.mark.parametrize(("percent", "group", "viewer", "expected"), CASES)
def test_public_cases(percent: int, group: str, viewer: str, expected: bool) -> None:
    assert admits(SurfaceRollout(percent * 100), bucket_of(group, viewer), None) is expected


@needs_vectors
def test_public_cases_would_notice_another_hash() -> None:
    def crc(group: str, viewer: str) -> int:
        return zlib.crc32(f"{group}:{viewer}".encode()) % BUCKETS

    assert len(CASES) >= 15
    assert any(admitted(crc, *case.values[:3]) is not case.values[3] for case in CASES)


@given(group=words, viewer=words, percent=st.integers(0, 100))
@settings(derandomize=True, max_examples=300)
def test_whole_percents_follow_the_public_rule(group: str, viewer: str, percent: int) -> None:
    normalised = mmh3.hash(f"{group}:{viewer}", signed=False) % 100 + 1
    public = percent > 0 and normalised <= percent
    assert admits(SurfaceRollout(percent * 100), bucket_of(group, viewer), None) is public


def drops_someone(sees: Callable[[int, str], bool], crowd: list[str]) -> bool:
    """Whether raising the percent step by step ever takes ads away from a viewer who had them."""
    steps = (0, 1, 2, 10, 50, 99, 100, 101, 500, 2_500, 5_000, 9_999, 10_000)
    inside: set[str] = set()
    for step in steps:
        now = {viewer for viewer in crowd if sees(step, viewer)}
        if not inside <= now:
            return True
        inside = now
    return inside != set(crowd)


def test_a_ramp_only_adds_viewers() -> None:
    assert not drops_someone(
        lambda step, viewer: admits(SurfaceRollout(step), bucket_of("status", viewer), None), CROWD[:5_000]
    )


def test_a_ramp_that_draws_again_at_each_step_is_noticed() -> None:
    assert drops_someone(lambda step, viewer: bucket_of(f"status-{step}", viewer) < step, CROWD[:5_000])


@pytest.mark.parametrize("percent_bp", [1, 2, 10, 50, 100, 1_234, 5_000, 9_999])
def test_shares_are_what_was_asked_for(percent_bp: int) -> None:
    """Within five standard deviations of the binomial."""
    share = percent_bp / BUCKETS
    count = sum(bucket_of("status", viewer) < percent_bp for viewer in CROWD)
    expected = share * len(CROWD)
    assert abs(count - expected) <= 5 * (expected * (1 - share)) ** 0.5


def test_every_bucket_of_a_hundredth_of_a_percent_is_used() -> None:
    used = {bucket_of("status", viewer) for viewer in CROWD}
    assert min(used) >= 0
    assert max(used) < BUCKETS
    assert len(used) > BUCKETS - 20


def share_held(in_rollout_group: list[str], held: Callable[[str], bool]) -> float:
    return sum(map(held, in_rollout_group)) / len(in_rollout_group)


def test_the_holdout_is_drawn_apart_from_the_rollout() -> None:
    rollout = SurfaceRollout(percent_bp=1_000, holdout_bp=1_000)
    inside = [viewer for viewer in CROWD if admits(rollout, bucket_of("status", viewer), None)]
    assert share_held(inside, lambda viewer: in_holdout(rollout, "status", viewer)) == pytest.approx(
        0.1, abs=0.015
    )
    one_salt_for_both = share_held(inside, lambda viewer: bucket_of("status", viewer) < rollout.holdout_bp)
    assert one_salt_for_both == 1


def test_no_holdout_holds_nobody() -> None:
    assert not any(in_holdout(SurfaceRollout(10_000), "status", viewer) for viewer in CROWD[:20_000])


def test_what_is_no_text_is_refused_and_does_not_end_the_process() -> None:
    with pytest.raises(UnicodeEncodeError):
        bucket_of("status", "\udcff")


def test_groups_are_drawn_apart() -> None:
    both = sum(
        bucket_of("status", viewer) < 1_000 and bucket_of("stories", viewer) < 1_000 for viewer in CROWD
    )
    assert abs(both - 1_000) < 160


@given(percent_bp=st.integers(0, BUCKETS), country_bp=st.integers(0, BUCKETS), viewer=words)
@settings(derandomize=True, max_examples=100)
def test_a_country_overrules_the_surface(percent_bp: int, country_bp: int, viewer: str) -> None:
    rollout = SurfaceRollout(percent_bp, countries={"ID": country_bp})
    bucket = bucket_of("status", viewer)
    assert admits(rollout, bucket, "ID") is (bucket < country_bp)
    assert admits(rollout, bucket, "DE") is (bucket < percent_bp)
    assert admits(rollout, bucket, None) is (bucket < percent_bp)
