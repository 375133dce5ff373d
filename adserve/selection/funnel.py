"""How far requests get with each campaign: counted as decisions are made, and written every second.

A request that looks for ads is counted once, under what its viewer shares with others; which campaigns it was for is
worked out when a second is over. Of the ads that a decision reached it is counted how far each one came.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adserve.domain.facts import ViewerFacts
from adserve.domain.time import HOUR_MS
from adserve.selection.compiled import CompiledSurface
from adserve.selection.index import Mask, Rows
from adserve.selection.made import Made

NOTES_MAX = 50_000
"""Decisions of one second. What is more is lost, and the second is a gap."""
PENDING_MAX = 300
"""Flushes that wait for the database. When there are more, they are lost, and their time is a gap."""
CELLS_MAX = 32_768

Counts = NDArray[np.int64]

_BYTE_MAX = 255


class Generation(NamedTuple):
    """The campaigns that were live on a surface, with their advertisers, by id: until the next `number`."""

    surface: str
    number: int
    campaigns: Counts
    advertisers: Counts


class Flush(NamedTuple):
    """A part of what was counted up to a moment, of one hour and generation: `looked` requests, and by campaign, for those that were reached at all,
    how many requests were for it and how many of its ads came how far. Most are never ranked: they come last, and the columns from
    `ranked` on end before them."""

    to_ms: int
    part: int
    hour_ms: int
    generation: Generation
    looked: int
    campaigns: Counts
    targeted: Counts
    ranked: Counts
    in_budget: Counts
    under_cap: Counts
    placed: Counts


class Store(Protocol):
    async def save(
        self,
        begun_ms: int,
        to_ms: int,
        generations: Sequence[Generation],
        flushes: Sequence[Flush],
        *,
        ended: bool,
    ) -> None:
        """Makes the span that began at `begun_ms` reach to `to_ms`, with all that it counted; nothing is counted twice."""
        ...


class _Tally:
    """The notes of one hour and audience."""

    def __init__(self, audience: "_Audience") -> None:
        self.audience = audience
        self.cells: list[int] = []
        self.ranked: list[int] = []
        self.in_budget: list[int] = []
        self.under_cap: list[int] = []
        self.placed: list[int] = []


class _Audience:
    """The campaigns of a surface as they were live together, and the viewers who looked, by what they share."""

    def __init__(self, surface: CompiledSurface, live_ms: int, earlier: Generation | None, name: str) -> None:
        self.surface = surface
        self.live_ms = live_ms
        rows = surface.index.live_rows(live_ms)
        ids, firsts = np.unique(surface.campaigns.take(rows), return_index=True)
        self.rows: Rows = rows.take(firsts)  # ads of a campaign are for the same viewers: one stands for all
        if earlier is None or not np.array_equal(ids, earlier.campaigns):
            number = 0 if earlier is None else earlier.number + 1
            earlier = Generation(name, number, ids, surface.advertisers.take(self.rows))
        self.generation = earlier
        self._viewers: dict[ViewerFacts, int] = {}
        self._numbers: dict[tuple[int, ...], int] = {}
        self._cells: list[tuple[Rows, list[Mask]]] = []

    def cell_of(self, viewer: ViewerFacts) -> int:
        """The same for all viewers who are wanted by the same campaigns as far as these tell them apart."""
        cell = self._viewers.get(viewer)
        if cell is None:
            index = self.surface.index
            rows, masks = index.rows_of(index.cell(viewer, self.live_ms)), index.masks(viewer)
            key = (id(rows), *map(id, masks))
            cell = self._numbers.get(key)
            if cell is None:
                cell = self._numbers[key] = len(self._cells)
                self._cells.append((rows, masks))
            self._viewers[viewer] = cell
        return cell

    @property
    def crowded(self) -> bool:
        return len(self._viewers) > CELLS_MAX

    def targeted(self, cells: Iterable[int]) -> Iterator[tuple[Rows, Counts]]:
        """How many of these requests were for which rows, in parts that add up."""
        groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for cell, count in Counter(cells).items():
            groups[id(self._cells[cell][0])].append((cell, count))
        for group in groups.values():
            rows = self._cells[group[0][0]][0]
            matches = np.ones((len(group), len(rows)), np.bool_)
            for masks in zip(*[self._cells[cell][1] for cell, _ in group], strict=True):
                distinct = {id(mask): mask for mask in masks}
                places = {mask: place for place, mask in enumerate(distinct)}
                table = np.array([mask.take(rows) for mask in distinct.values()])
                matches &= table.take([places[id(mask)] for mask in masks], axis=0)
            yield rows, _summed(matches, np.array([count for _, count in group]))

    def by_campaign(self, reached: Sequence[int]) -> Counts:
        places = np.searchsorted(self.generation.campaigns, np.array(reached, np.int64))
        return np.bincount(places, minlength=len(self.generation.campaigns))


_Key = tuple[str, int, int]


class Funnel:
    """Counts what it is noted, and saves it as spans of time without a gap."""

    def __init__(self, store: Store, now_ms: int) -> None:
        self._store = store
        self._begun_ms = now_ms
        self._noted = 0
        self._lost = False
        self._tallies: dict[tuple[_Key, int], _Tally] = {}
        self._audiences: dict[_Key, _Audience] = {}
        self._newest: dict[str, Generation] = {}
        self._generations: list[Generation] = []
        self._flushes: list[Flush] = []

    def note(self, made: Made) -> None:
        """At once: what a decision was made of would fill the processor's caches until the second is over."""
        planned, held, grant, name = made.planned, made.held, made.grant, made.ask.surface
        if planned.viewer is None:
            return
        if self._noted == NOTES_MAX:
            self._lost = True
            return
        self._noted += 1
        surface = made.view.surfaces[name]
        key = (name, id(surface), surface.index.live(made.now_ms)), made.now_ms // HOUR_MS
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally(self._audience(surface, key[0]))
        tally.cells.append(tally.audience.cell_of(planned.viewer))
        if not held.reached:
            return
        reached = [ad.campaign for ad in planned.ranked.ads[: held.reached]]
        tally.ranked += reached
        holding = reached if len(held.places) == len(reached) else [reached[place] for place in held.places]
        tally.in_budget += holding
        if grant is None:
            return
        capped = {place for place, _ in grant.capped}
        tally.under_cap += (
            [campaign for place, campaign in enumerate(holding) if place not in capped] if capped else holding
        )
        tally.placed += [holding[place] for place in grant.reserved]

    async def step(self, now_ms: int, *, ended: bool = False) -> None:
        """Counts what was noted and saves all that is not saved yet."""
        tallies, self._tallies, self._noted = self._tallies, {}, 0
        lost, self._lost = self._lost, False
        if tallies:  # what no one looked at is gone, and what is crowded begins anew
            told = {key: tally.audience for (key, _), tally in tallies.items()}
            self._audiences = {key: audience for key, audience in told.items() if not audience.crowded}
        try:
            flushes = await self._count(tallies, now_ms)
        except BaseException:
            self._lost = True
            raise
        if len(self._flushes) + len(flushes) > PENDING_MAX:
            self._flushes.clear()
            lost = True
        if lost:
            self._begun_ms = now_ms
        self._flushes += flushes
        generations, saved = tuple(self._generations), tuple(self._flushes)
        await self._store.save(self._begun_ms, now_ms, generations, saved, ended=ended)
        del self._generations[: len(generations)], self._flushes[: len(saved)]

    async def _count(self, tallies: Mapping[tuple[_Key, int], _Tally], now_ms: int) -> list[Flush]:
        flushes: list[Flush] = []
        for (_, hour), tally in tallies.items():
            audience = tally.audience
            targeted = np.zeros(len(audience.surface.ads), np.int64)
            for rows, counts in audience.targeted(tally.cells):
                targeted[rows] += counts
                await asyncio.sleep(0)
            flushes.append(_flush(audience, tally, targeted, (now_ms, len(flushes), hour * HOUR_MS)))
        return flushes

    def _audience(self, surface: CompiledSurface, key: _Key) -> _Audience:
        audience = self._audiences.get(key)
        if audience is None:
            name, _, live_ms = key
            earlier = self._newest.get(name)
            audience = self._audiences[key] = _Audience(surface, live_ms, earlier, name)
            if audience.generation is not earlier:
                self._newest[name] = audience.generation
                self._generations.append(audience.generation)
        return audience


def _summed(matches: Mask, counts: Counts) -> Counts:
    """What `counts @ matches` is, five times as fast as long as most counts are 1: bytes are added many at a time."""
    total = np.zeros(matches.shape[1], np.int64)
    once = matches[counts == 1].view(np.uint8)
    for start in range(0, len(once), _BYTE_MAX):
        total += np.add.reduce(once[start : start + _BYTE_MAX], axis=0, dtype=np.uint8)
    often = np.flatnonzero(counts > 1)
    for count, match in zip(counts.take(often), matches.take(often, axis=0), strict=True):
        total += count * match
    return total


def _flush(audience: _Audience, tally: _Tally, targeted: Counts, place: tuple[int, int, int]) -> Flush:
    """Of the campaigns that were targeted: no other one was ranked, nor came further."""
    of_targeted = targeted.take(audience.rows)
    ranked, *further = map(
        audience.by_campaign, (tally.ranked, tally.in_budget, tally.under_cap, tally.placed)
    )
    first = ranked.nonzero()[0]
    touched = np.concatenate((first, ((of_targeted > 0) & (ranked == 0)).nonzero()[0]))
    return Flush(
        *place,
        audience.generation,
        len(tally.cells),
        audience.generation.campaigns.take(touched),
        of_targeted.take(touched),
        *[column.take(first) for column in (ranked, *further)],
    )
