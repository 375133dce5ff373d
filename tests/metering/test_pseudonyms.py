import pytest
from world import NOW_MS

from adserve.domain.time import DAY_MS
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets

JANUARY_MS = NOW_MS - NOW_MS % DAY_MS
FEBRUARY_MS = JANUARY_MS + 31 * DAY_MS
SECRETS = ViewerSecrets(b"c" * 32, ((JANUARY_MS, b"j" * 32), (FEBRUARY_MS, b"f" * 32)))


def test_a_viewer_has_one_pseudonym_for_caps_and_one_a_month_for_the_log() -> None:
    pseudonyms = Pseudonyms(SECRETS)
    cap, log = pseudonyms.of("u-1", JANUARY_MS)
    assert (len(cap), len(log)) == (16, 16)
    assert pseudonyms.of("u-1", FEBRUARY_MS - 1) == (cap, log)
    later_cap, later_log = pseudonyms.of("u-1", FEBRUARY_MS)
    assert later_cap == cap
    assert later_log != log
    assert pseudonyms.of("u-1", JANUARY_MS) == (cap, log)
    assert pseudonyms.of("u-2", JANUARY_MS)[0] != cap


def test_without_the_secrets_a_pseudonym_cannot_be_made() -> None:
    other = Pseudonyms(ViewerSecrets(b"x" * 32, SECRETS.months))
    assert other.of("u-1", JANUARY_MS)[0] != Pseudonyms(SECRETS).of("u-1", JANUARY_MS)[0]


@pytest.mark.parametrize("raw", ["", "\0", "\ud800", "é" * 10_000])
def test_any_text_is_a_viewer(raw: str) -> None:
    assert len(Pseudonyms(SECRETS).of(raw, JANUARY_MS)[0]) == 16


def test_a_month_without_a_secret_goes_on_with_the_last() -> None:
    pseudonyms = Pseudonyms(SECRETS)
    assert pseudonyms.of("u", FEBRUARY_MS + 99 * DAY_MS) == pseudonyms.of("u", FEBRUARY_MS)
    assert pseudonyms.of("u", 0) == pseudonyms.of("u", JANUARY_MS)
