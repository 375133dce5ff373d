"""A ramp that is under way, as it lies in the database, for tests of what happens meanwhile."""

from collections.abc import Sequence

from adserve.database.pools import Pools
from adserve.domain.ramps import Arm
from adserve.domain.time import from_ms
from adserve.rollout.arms import arm_of

RAMP = """
INSERT INTO ramps (surface, countries, plan, made_by, made_at, status, step, step_entered_at, good_bp, reason)
VALUES ('status', $1, '{}', 'a test', $2, 'running', 0, $2, 0, 'begun') RETURNING id"""
ROLLOUT = """
INSERT INTO rollouts (surface, percent_bp, holdout_bp, countries) VALUES ('status', $1, $2, $3)
ON CONFLICT (surface) DO UPDATE SET percent_bp = excluded.percent_bp, holdout_bp = excluded.holdout_bp, countries = excluded.countries"""


async def begin_ramp(
    pools: Pools, entered_ms: int, percent_bp: int, holdout_bp: int = 0, countries: Sequence[str] = ()
) -> int:
    """Of the surface's own percent where no country is named; answers the ramp's id."""
    own_bp = 0 if countries else percent_bp
    await pools.operator.execute(ROLLOUT, own_bp, holdout_bp, dict.fromkeys(countries, percent_bp))
    ramp: int = await pools.operator.fetchval(RAMP, list(countries), from_ms(entered_ms))
    return ramp


async def enter_step(pools: Pools, ramp: int, step: int, entered_ms: int, percent_bp: int) -> None:
    await pools.operator.execute(
        "UPDATE ramps SET step = $2, step_entered_at = $3 WHERE id = $1", ramp, step, from_ms(entered_ms)
    )
    await pools.operator.execute("UPDATE rollouts SET percent_bp = $1", percent_bp)


def viewers_of(arm: Arm, ramp: int, percent_bp: int, holdout_bp: int = 0, count: int = 3) -> list[str]:
    """Raw ids, the first of many."""
    found = (
        name
        for name in (f"u-raw-{number}" for number in range(100_000))
        if arm_of(name, "status", ramp, percent_bp, holdout_bp) is arm
    )
    return [next(found) for _ in range(count)]
