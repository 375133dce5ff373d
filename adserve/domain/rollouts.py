"""How much of a surface's audience sees ads, as the operator set it."""

from msgspec import Struct


class SurfaceRollout(Struct, frozen=True):
    """The percents of one surface in basis points; `countries` overrules `percent_bp`."""

    percent_bp: int = 0
    holdout_bp: int = 0
    countries: dict[str, int] = {}

    def percent_bp_for(self, country: str | None) -> int:
        return self.countries.get(country, self.percent_bp) if country else self.percent_bp
