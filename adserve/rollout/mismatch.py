"""Whether the arms' sizes contradict how they were drawn.

The Dirichlet-multinomial test of Lindon and Malek ("Anytime-valid inference for multinomial count data", NeurIPS 2022) for two arms:
a Bayes factor against the expected share is a martingale where the share is right, so by Ville's inequality one over it is a p-value
however often it is looked at. It is stated of viewers in the order in which they were first seen in a step; as only their numbers enter,
nothing but those has to be kept.
"""

import math

from adserve.domain.ramps import Mismatch

ERROR = 0.001
"""Of one step: a mismatch means that nothing else can be believed, so it is not called lightly."""
CONCENTRATION = 1_000
"""How close to the expected share the alternatives lie: about 1.6 points around a half."""


def mismatch_of(exposed: int, control: int, exposed_share: float) -> Mismatch:
    """Of `exposed` and `control` viewers seen in this step; without a share between 0 and 1 there is nothing to compare."""
    total = exposed + control
    if not (0 < exposed_share < 1) or total == 0:
        return Mismatch(
            False, 1.0, f"{exposed:,} exposed viewers, {control:,} in control: nothing to compare"
        )
    p_value = min(1.0, math.exp(min(0.0, -_log_factor(exposed, control, exposed_share))))
    found = p_value < ERROR
    judged = "which chance does not explain" if found else "as drawn"
    words = (
        f"{exposed:,} exposed viewers, {control:,} in control: {exposed / total * 100:.2f} % exposed, {exposed_share * 100:.2f} % expected, "
        f"{judged} (p = {p_value:.2g})"
    )
    return Mismatch(found, p_value, words)


def _log_factor(exposed: int, control: int, share: float) -> float:
    one, other = CONCENTRATION * share, CONCENTRATION * (1 - share)
    drawn = _log_beta(one + exposed, other + control) - _log_beta(one, other)
    return drawn - exposed * math.log(share) - control * math.log1p(-share)


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)
