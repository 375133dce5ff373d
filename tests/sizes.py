"""How large the checks of faults are, and where `make chaos` writes down what they saw."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARE = float(os.environ.get("ADSERVE_CHAOS", "0"))
"""The share of the full sizes that `make chaos` runs; 0 is `make test`, which has small ones of its own."""
WITHIN_S = 60 * float(os.environ.get("ADSERVE_CHAOS_MINUTES") or "inf")
"""How long a flood may take before it ends with the share that is done."""
RESULTS = Path(__file__).parents[1] / "loadtest" / "results" / "chaos.json"

whole_run = pytest.mark.timeout(7_200 if SHARE else 300)


def sized(full: int, small: int) -> int:
    return max(small, round(full * SHARE)) if SHARE else small


def record(fault: str, **figures: Any) -> None:
    """Rounds, acknowledged, lost, twice and control_lost of one fault, and whatever else was seen of it."""
    if not SHARE:
        return
    seen = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    seen[fault] = seen.get(fault, {}) | figures
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(seen, indent=2, sort_keys=True) + "\n")
