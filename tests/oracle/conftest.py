"""What the oracle saw is told at the end, whichever process of the test run saw it."""

from collections.abc import Callable

import pytest

Tell = Callable[[str], None]
SEEN = "seen by the oracle"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])
    ]
    for report in reports:
        for name, seen in report.user_properties:
            if name == SEEN:
                terminalreporter.write_line(str(seen))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    return lambda seen: record_property(SEEN, seen)
