from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.ids import derived_uuid7, derived_uuid7s, uuid7

MOMENTS = st.integers(0, 2**48 - 1)
SEEDS = st.integers(0, 2**128 - 1)


@given(at_ms=MOMENTS, chance=SEEDS)
@settings(derandomize=True, max_examples=200)
def test_a_uuid7_has_its_version_variant_and_time(at_ms: int, chance: int) -> None:
    value = uuid7(at_ms, chance)
    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert value.int >> 80 == at_ms


@given(at_ms=MOMENTS, seed=SEEDS, index=st.integers(0, 2**32 - 2))
@settings(derandomize=True, max_examples=200)
def test_derived_ids_repeat_and_differ(at_ms: int, seed: int, index: int) -> None:
    value = derived_uuid7(at_ms, seed, index)
    assert (value.version, value.variant, value.int >> 80) == (7, "specified in RFC 4122", at_ms)
    assert value == derived_uuid7(at_ms, seed, index)
    assert value != derived_uuid7(at_ms, seed, index + 1)
    assert value != derived_uuid7(at_ms, seed ^ 1, index)


@given(at_ms=MOMENTS, seed=SEEDS, count=st.integers(0, 20))
@settings(derandomize=True, max_examples=50)
def test_many_ids_are_each_ones_own(at_ms: int, seed: int, count: int) -> None:
    assert derived_uuid7s(at_ms, seed, count) == [derived_uuid7(at_ms, seed, index) for index in range(count)]


def test_all_74_bits_of_chance_are_used() -> None:
    assert len({uuid7(0, 1 << bit) for bit in range(74)}) == 74
