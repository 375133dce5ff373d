import pytest

from adserve.simulation.clock import SkippingClock, VirtualClock


def test_a_virtual_clock_moves_only_when_told_and_never_back() -> None:
    clock = VirtualClock(1_000)
    clock.advance_to(1_000)
    clock.advance_to(1_500)
    assert clock() == 1_500
    with pytest.raises(ValueError, match="back by 1 ms"):
        clock.advance_to(1_499)


def test_a_skipping_clock_goes_on_from_where_it_skipped_to() -> None:
    real = VirtualClock(1_000)
    clock = SkippingClock(real)
    clock.skip(60_000)
    real.advance_to(1_250)
    assert clock() == 61_250
