"""Places viewers in buckets of a hundredth of a percent.

Whole percents admit exactly the viewers that the public Unleash gradual-rollout rule admits
(normalised murmur3, https://docs.getunleash.io/reference/activation-strategies), and a ramp can start at 0.01 %.
"""

import mmh3

from adserve.domain.rollouts import SurfaceRollout

BUCKETS = 10_000
HOLDOUT_SALT = "holdout"


def bucket_of(group: str, viewer: str) -> int:
    """The viewer's bucket in [0, 10,000): in when it is below the percent in basis points.

    Raises UnicodeEncodeError for a lone surrogate, at which mmh3 itself would end the process.
    """
    hashed = mmh3.hash(f"{group}:{viewer}".encode(), signed=False)
    return (hashed % 100) * 100 + hashed // 100 % 100


def holdout_bucket_of(group: str, viewer: str) -> int:
    return bucket_of(f"{group}:{HOLDOUT_SALT}", viewer)


def admits(rollout: SurfaceRollout, bucket: int, country: str | None) -> bool:
    return bucket < rollout.percent_bp_for(country)


def in_holdout(rollout: SurfaceRollout, group: str, viewer: str) -> bool:
    return rollout.holdout_bp > 0 and holdout_bucket_of(group, viewer) < rollout.holdout_bp
