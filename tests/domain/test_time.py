from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from adserve.domain.time import day_of, from_ms, local_day, rfc3339, to_ms

MOMENTS = st.integers(to_ms(datetime(1970, 1, 1, tzinfo=UTC)), to_ms(datetime(2200, 1, 1, tzinfo=UTC)))


@given(moment_ms=MOMENTS)
@settings(derandomize=True, max_examples=200)
def test_milliseconds_come_back_exactly(moment_ms: int) -> None:
    assert to_ms(from_ms(moment_ms)) == moment_ms
    assert to_ms(datetime.fromisoformat(rfc3339(moment_ms))) == moment_ms
    assert from_ms(moment_ms).utcoffset() == timedelta(0)


def test_a_campaigns_day_is_that_of_its_zone() -> None:
    late_ms = to_ms(datetime(2026, 1, 1, 18, 0, tzinfo=UTC))
    assert day_of(late_ms) == date(2026, 1, 1)
    assert local_day(late_ms, ZoneInfo("Asia/Jakarta")) == date(2026, 1, 2)
    assert rfc3339(late_ms + 7) == "2026-01-01T18:00:00.007Z"
