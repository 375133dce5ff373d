from dataclasses import dataclass, field

import pytest

from adserve.domain.ads import Cap
from adserve.simulation.caller import Billed, EventAnswer
from adserve.simulation.logs import Columns, LogMapping, Malformed
from adserve.simulation.report import MALFORMED_NAMED_MAX, Report, Tally, disagreements, report_of, text_of

MAPPING = LogMapping(Columns("at", "%s", "campaign", "click"), price_unit_micros=10_000, currency="CNY")
CAP = Cap("campaign", 1, 86_400)


@dataclass
class Stored:
    events: dict[tuple[str, str], int] = field(
        default_factory=lambda: {("impression", "recorded"): 2, ("click", "unbilled_kind"): 1}
    )
    billed_micros: dict[int, int] = field(default_factory=lambda: {7: 2_460})
    posted_micros: dict[int, int] = field(default_factory=lambda: {7: 2_460})
    billed_twice: int = 0


def seen() -> Tally:
    tally = Tally()
    for _ in range(2):
        tally.happened(7, "impression", EventAnswer("recorded", Billed(1_230, "CNY")))
    tally.happened(7, "click", EventAnswer("unbilled_kind"))
    tally.happened(7, "impression", EventAnswer("duplicate"))
    tally.happened(7, "impression", EventAnswer("refused"))
    return tally


def report(tally: Tally, stored: Stored | None = None, *, violations: int = 0) -> Report:
    return report_of(
        tally,
        stored or Stored(),
        campaigns={7: "294"},
        mapping=MAPPING,
        caps=[(CAP, violations)],
        differences=[],
        complete=True,
    )


def test_what_callers_were_told_and_what_is_stored_agree() -> None:
    assert disagreements(seen(), Stored()) == []
    assert report(seen()).adds_up


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (
            Stored(events={("impression", "recorded"): 1, ("click", "unbilled_kind"): 1}),
            "impression recorded",
        ),
        (Stored(events={**Stored().events, ("view", "late"): 1}), "view late"),
        (Stored(billed_micros={7: 2_461}), "campaign 7: callers were told 2460 micros, the events say 2461"),
        (Stored(posted_micros={}), "the postings say 0"),
        (Stored(billed_twice=1), "billed more than once"),
    ],
)
def test_every_kind_of_disagreement_is_found(stored: Stored, said: str) -> None:
    (only,) = disagreements(seen(), stored)
    assert said in only
    assert not report(seen(), stored).adds_up
    assert only in text_of(report(seen(), stored))


def test_a_broken_cap_does_not_add_up() -> None:
    assert not report(seen(), violations=1).adds_up


def test_money_is_told_in_micros_and_in_the_log_s_unit() -> None:
    figures = report(seen()).campaigns[0]
    assert (figures.impressions, figures.clicks, figures.billed_micros, figures.billed_units) == (
        2,
        1,
        2_460,
        246,
    )


def test_malformed_lines_are_all_counted_and_the_first_are_named() -> None:
    tally = seen()
    tally.malformed += [Malformed(line, "?") for line in range(100, 0, -1)]
    told = report(tally)
    assert told.malformed == 100
    assert [line.line for line in told.malformed_lines] == list(range(1, MALFORMED_NAMED_MAX + 1))
    assert "line 1: ?" in text_of(told)
