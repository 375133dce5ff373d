"""How much of a surface's audience sees ads, as the operator set it, and where a ramp is under way."""

from collections.abc import Mapping

from msgspec import Struct


class SurfaceRollout(Struct, frozen=True):
    """The percents of one surface in basis points; `countries` overrules `percent_bp`."""

    percent_bp: int = 0
    holdout_bp: int = 0
    countries: dict[str, int] = {}

    def percent_bp_for(self, country: str | None) -> int:
        return self.countries.get(country, self.percent_bp) if country else self.percent_bp


class Stage(Struct, frozen=True):
    """The step that a ramp is at since `since_ms`. Two of the same step are different once it was entered anew."""

    ramp: int
    step: int
    since_ms: int


Stages = Mapping[tuple[str, str | None], Stage]
"""By surface and country; without a country it is of all viewers who fall under the surface's own percent."""
