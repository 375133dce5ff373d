"""What one decision reads: a snapshot compiled for each surface, and the operator's switch."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from adserve.catalogue.snapshot import SNAPSHOT_MAX_AGE_MS, Snapshot
from adserve.domain.surfaces import Surface
from adserve.selection.compiled import CompiledSurface, Rates
from adserve.selection.shelves import Shelves


class View(NamedTuple):
    """Swapped whole at every change. `fresh_at_ms` is when the snapshot was last known to be the newest."""

    snapshot: Snapshot
    surfaces: Mapping[str, CompiledSurface]
    shelves: Mapping[str, Shelves]
    rates: Rates
    paused: bool
    fresh_at_ms: int

    def shows_ads(self, now_ms: int) -> bool:
        """Whether anybody may see any."""
        return not self.paused and self.is_fresh(now_ms)

    def is_fresh(self, now_ms: int) -> bool:
        return now_ms - self.fresh_at_ms <= SNAPSHOT_MAX_AGE_MS


class Switch(Protocol):
    @property
    def switch_version(self) -> int: ...

    @property
    def paused(self) -> bool: ...


class LiveView:
    """Holds the view that decisions read, and swaps it whole."""

    def __init__(self, surfaces: Mapping[str, Surface], rates: Rates) -> None:
        self._surfaces = surfaces
        self._rates = rates
        self._view: View | None = None
        self._switch: Switch | None = None
        self.paused_here = False
        """Whether `pause` was called, and the switch has not moved since."""

    def predict_by(self, rates: Rates) -> None:
        """From the next publication on."""
        self._rates = rates

    def current(self) -> View:
        if self._view is None:
            raise RuntimeError("no snapshot has been published yet")
        return self._view

    def pause(self) -> None:
        """Stops ads on this replica alone, PostgreSQL or not, until an operator moves the switch again."""
        self.paused_here = True
        if self._view is not None:
            self._view = self._view._replace(paused=True)

    def obey(self, switch: Switch) -> None:
        """Takes the switch as it was read, unless a later one is known."""
        known = self._switch
        if known is not None and switch.switch_version < known.switch_version:
            return
        if known is not None and switch.switch_version > known.switch_version:
            self.paused_here = False
        self._switch = switch
        if self._view is not None:
            self._view = self._view._replace(paused=self._is_paused())

    async def publish(self, snapshot: Snapshot, switch: Switch, confirmed_at_ms: int) -> None:
        """Compiles a new snapshot off the event loop, or a known one for new rates; else it is only confirmed."""
        self.obey(switch)
        view, rates = self._view, self._rates
        if view is not None and view.snapshot is snapshot and view.rates is rates:
            self._view = view._replace(fresh_at_ms=confirmed_at_ms)
            return
        if (
            view is not None
            and view.snapshot.ads is snapshot.ads
            and view.snapshot.qualities is snapshot.qualities
            and view.rates is rates
        ):
            surfaces, shelves = view.surfaces, view.shelves
        else:
            earlier = {} if view is None else view.surfaces
            surfaces = await asyncio.to_thread(self._compile, snapshot, rates, earlier)
            shelves = {name: Shelves(surface, rates) for name, surface in surfaces.items()}
        paused = self._is_paused()  # a switch may have been turned meanwhile
        self._view = View(snapshot, surfaces, shelves, rates, paused, confirmed_at_ms)

    def _is_paused(self) -> bool:
        return self.paused_here or (self._switch is not None and self._switch.paused)

    def _compile(
        self, snapshot: Snapshot, rates: Rates, earlier: Mapping[str, CompiledSurface]
    ) -> dict[str, CompiledSurface]:
        return {
            name: CompiledSurface(settings, snapshot.ads, rates, snapshot.qualities, earlier.get(name))
            for name, settings in self._surfaces.items()
        }
