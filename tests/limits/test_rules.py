import msgspec
import pytest

from adserve.domain.ads import CAP_WINDOW_MAX_S, Cap
from adserve.domain.time import DAY_MS
from adserve.limits.rules import RETENTION_MS, keys_counted


@pytest.mark.parametrize(
    "cap",
    [
        {"count": 0},
        {"count": 1_001},
        {"window_s": 59},
        {"window_s": CAP_WINDOW_MAX_S + 1},
        {"scope": "planet"},
    ],
    ids=str,
)
def test_caps_have_bounds(cap: dict[str, object]) -> None:
    good = {"scope": "ad", "count": 1, "window_s": 60}
    assert msgspec.convert(good, Cap)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(good | cap, Cap)


def test_entries_outlive_every_cap() -> None:
    assert RETENTION_MS == 200 * DAY_MS > CAP_WINDOW_MAX_S * 1_000


def test_an_impression_counts_on_its_ad_campaign_advertiser_and_labels() -> None:
    assert keys_counted(1, 2, 3, ("drinks", "hot")) == ("a1", "c2", "v3", "l:drinks", "l:hot")


def test_keys_of_different_kinds_never_meet() -> None:
    labels = ("a1", "*", "t", "c1", "h1", "l:x")
    keys = keys_counted(1, 1, 1, labels)
    assert len(set(keys)) == len(keys)
    assert {"*", "t", "h1"}.isdisjoint(keys)
