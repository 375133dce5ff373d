"""Everything that decisions read, as it stood at one moment."""

from collections.abc import Mapping

from msgspec import Struct

from adserve.domain.ads import Ad
from adserve.domain.rollouts import SurfaceRollout

SNAPSHOT_MAX_AGE_MS = 300_000


class Snapshot(Struct, frozen=True):
    """`version` counts catalogue changes; `ads` are those of active campaigns, creatives and advertisers."""

    version: int
    ads: tuple[Ad, ...]
    rollouts: Mapping[str, SurfaceRollout]
