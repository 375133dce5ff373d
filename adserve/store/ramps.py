"""Plans of staged ramps: where each stands, every move, every look; a plan's state changes together with the percents it sets."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from adserve.domain.ramps import Act, Mismatch, Ramp, Status, Verdict


class Look(NamedTuple):
    """What was seen of a step at one moment since it was entered."""

    at_ms: int
    step: int
    exposed: int
    control: int
    verdicts: Sequence[Verdict]
    mismatch: Mismatch | None


class Made(NamedTuple):
    """A plan, where it stands, and who made it when."""

    ramp: Ramp
    made_by: str
    made_at: datetime


class Moved(NamedTuple):
    """A row of the history. `by` is the key's name; None where the plan moved by itself."""

    id: int
    at: datetime
    act: Act
    by: str | None
    status: Status
    step: int
    percent_bp: int
    reason: str
    seen: Look | None
