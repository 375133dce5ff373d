import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.targeting import parse_version

PARTS = st.tuples(st.integers(0, 999), *[st.integers(0, 99_999)] * 3)


@given(one=PARTS, other=PARTS)
@settings(derandomize=True, max_examples=200)
def test_versions_order_like_their_parts(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    first, second = (parse_version(".".join(map(str, parts))) for parts in (one, other))
    assert first is not None
    assert second is not None
    assert (first < second) is (one < other)
    assert (first == second) is (one == other)


@pytest.mark.parametrize(
    ("version", "same_as"),
    [("2", "2.0.0.0"), ("2.26-beta", "2.26"), ("2.26.1.5.7", "2.26.1.5"), ("2.26.", "2.26"), ("02.6", "2.6")],
)
def test_what_follows_the_numbers_is_passed_over(version: str, same_as: str) -> None:
    assert parse_version(version) == parse_version(same_as)


@pytest.mark.parametrize("version", ["", "beta", "v2.1", ".1", "1000.1", "2.123456", "\u0663.1", "-1"])
def test_what_cannot_be_ordered_is_unknown(version: str) -> None:
    assert parse_version(version) is None
