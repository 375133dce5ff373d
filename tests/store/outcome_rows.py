"""Steps of ramps, viewers and what is told of them, for tests of how it is kept."""

from typing import Any
from uuid import UUID

from world import NOW_MS

from adserve.database.pools import Pools
from adserve.domain.ramps import Arm
from adserve.domain.rollouts import Stage
from adserve.rollout.arms import Standing
from adserve.rollout.assignments import Assignment
from adserve.store.outcomes import Outcomes, Told

STAGE = Stage(7, 0, NOW_MS)
FIRST, SECOND = UUID(int=1), UUID(int=2)

SCAN = """
SELECT v.arm, m.metric, count(*)::int, sum(m.x), sum(m.y), sum(m.x * m.x), sum(m.x * m.y), sum(m.y * m.y)
FROM arm_viewers v CROSS JOIN LATERAL arm_metrics(v) m WHERE v.ramp_id = $1 AND v.entered_at = $2 GROUP BY 1, 2"""
SUMS = """
SELECT arm, metric, sum(viewers)::int, sum(x), sum(y), sum(xx), sum(xy), sum(yy)
FROM arm_sums WHERE ramp_id = $1 AND entered_at = $2 GROUP BY 1, 2 HAVING sum(viewers) <> 0 OR sum(x) <> 0"""


def outcomes(pools: Pools, replica: UUID = FIRST) -> Outcomes:
    return Outcomes(pools.recorder, replica)


def viewer(number: int) -> bytes:
    return number.to_bytes(16, "big")


def standing(number: int, stage: Stage = STAGE) -> Standing:
    return Standing(stage, Arm.EXPOSED if number % 2 else Arm.CONTROL)


def assigned(number: int, stage: Stage = STAGE) -> Assignment:
    return Assignment(standing(number, stage), viewer(number), NOW_MS)


def told(key: int, number: int, *sums: Any, stage: Stage = STAGE) -> Told:
    """`sums` are statuses, seconds, whether they returned, posts; what is left out was not told."""
    values: list[Any] = [*sums, None, None, None, None][:4]
    return Told(key.to_bytes(16, "big"), standing(number, stage), viewer(number), NOW_MS, *values)
