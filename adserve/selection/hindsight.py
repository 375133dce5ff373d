"""What would have become of a campaign's ads in decisions that were recorded.

Targeting, prediction, rank and price are those of decisions. The campaign's own budget is taken to be there; of rules it is known what a
decision met while it was made, and what it would have met within itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from adserve.domain.ads import Ad, Campaign
from adserve.domain.facts import ViewerFacts
from adserve.domain.ids import AdId
from adserve.domain.surfaces import Surface
from adserve.limits.rules import ALL, Rule
from adserve.selection.compiled import CompiledAd, CompiledSurface, Rates
from adserve.selection.decide import floor_of, viewer_of
from adserve.selection.pricing import Contender, clearing_micros, rival_of
from adserve.selection.ranking import chance, predicted, rank, value_of, values_of
from adserve.selection.recording import Candidate, Record, RecordRefused

GUARANTEED_BELOW_FLOOR_MAX = 8
"""Guaranteed ads below the floor stand before those that were ranked: so many of them are looked past."""


class Outcome(NamedTuple):
    """`matched` says whether the campaign wants the viewer, `placed` how many of its ads would have been, and `cost_micros` what these
    impressions are expected to cost. `rivals` are the other advertisers on whose bids this hangs: whose ad was to be beaten for a place, and
    whose set a price."""

    matched: bool = False
    placed: int = 0
    cost_micros: float = 0.0
    rivals: frozenset[int] = frozenset()


_NOTHING = Outcome()


def looked(record: Record) -> bool:
    """Whether the decision looked for ads: nothing of the rollout, of consent or of the feed stood in its way."""
    return bool(record.outcome.positions)


def tells(campaign: Campaign) -> bool:
    """Whether records tell whom the campaign wants: custom values are kept only where an ad of then named them."""
    targeting = campaign.targeting
    return not (targeting.custom or targeting.exclude.custom)


def versions_of(record: Record) -> Sequence[Candidate]:
    """Those of which `judge` needs the facts."""
    return record.candidates[: record.reached + GUARANTEED_BELOW_FLOOR_MAX] if record.grant else ()


def worth_micros(ads: Sequence[Ad], rates: Rates, qualities: Mapping[AdId, float]) -> float:
    """What 1,000 impressions of the best of a campaign's ads are worth, for a viewer of whom nothing is known."""
    surface = CompiledSurface(Surface(currency=ads[0].campaign.currency), ads, rates, qualities)
    rows = np.arange(len(ads), dtype=np.int32)
    return float(values_of(surface, rows, predicted(surface, rates, rows, ViewerFacts(), None)).max())


class Hindsight:
    """`ads` are those of one campaign, at least one. When it starts and ends does not matter."""

    def __init__(self, ads: Sequence[Ad], rates: Rates, qualities: Mapping[AdId, float]) -> None:
        self.campaign = ads[0].campaign
        always = replace(self.campaign, starts_at_ms=0, ends_at_ms=None)
        self._ads = [replace(ad, campaign=always) for ad in ads]
        self._rates = rates
        self._qualities = qualities
        self._surfaces: dict[tuple[str, int, int], CompiledSurface] = {}

    def judge(self, record: Record, versions: Mapping[bytes, CompiledAd]) -> Outcome:
        """Of a decision that looked for ads. Raises RecordRefused where the facts of an ad are not among the `versions`."""
        ask, now_ms = record.ask, record.now_ms
        surface = self._surface(record.surface)
        viewer = viewer_of(ask, record.exposures, now_ms)
        rows = surface.index.match(viewer, now_ms)
        if not len(rows):
            return _NOTHING
        seen = record.exposures if ask.personalised else None
        click_rates = predicted(surface, self._rates, rows, viewer, seen)
        floor_micros, seed = floor_of(ask, record.surface), int.from_bytes(record.seed, "big")
        ranked = rank(surface, rows, click_rates, floor_micros, len(rows), seed)
        others = [
            other for other in _admitted(record, versions) if other.compiled.campaign != self.campaign.id
        ]
        placed_then = {placed.ad for placed in record.outcome.placed}
        met = _met(record, [other.compiled for other in others if other.ad.id in placed_then])
        own = [
            ranked.contender(place)
            for place, ad in enumerate(ranked.ads)
            if ad.ad.id in placed_then
            or (met.isdisjoint(ad.candidate.rules) if record.counted else ad.unruled)
        ]
        everybody = sorted([*own, *others], key=lambda contender: _place(contender, seed))
        positions = len(record.outcome.positions)
        in_order = [one for one in everybody if one.compiled.campaign != self.campaign.id]
        rivals = {one.ad.advertiser for one in in_order[positions - 1 : positions]}
        cost_micros, placed = 0.0, 0
        for place in _filled(everybody, positions):
            winner, behind = everybody[place], everybody[place + 1 :]
            if winner.compiled.campaign != self.campaign.id:
                continue
            rate = winner.compiled.event_rate
            price_micros = clearing_micros(winner, behind, floor_micros)
            cost_micros += price_micros * (winner.click_rate if rate is None else rate)
            placed += 1
            rival = None if winner.compiled.guaranteed else rival_of(winner, behind)
            if rival is not None:
                rivals.add(rival.ad.advertiser)
        return Outcome(True, placed, cost_micros, frozenset(rivals - {self.campaign.advertiser}))

    def _surface(self, settings: Surface) -> CompiledSurface:
        """As far as one surface's ads differ from those of another."""
        key = settings.currency, settings.separation_s, settings.min_time_s
        surface = self._surfaces.get(key)
        if surface is None:
            surface = CompiledSurface(settings, self._ads, self._rates, self._qualities)
            self._surfaces[key] = surface
        return surface


def _place(contender: Contender, seed: int) -> tuple[bool, float, int]:
    """As `rank` orders."""
    return not contender.compiled.guaranteed, -contender.value_micros, chance(contender.ad.id, seed)


def _met(record: Record, placed: Sequence[CompiledAd]) -> frozenset[Rule]:
    """The rules that an ad met in this decision: they forbid all that share them. But not where the other ads that were `placed` may have
    used them up: the campaign might have come before those."""
    if record.grant is None:
        return frozenset()
    used = {key for ad in placed for key in (ALL, *ad.candidate.keys)}
    return frozenset(rule for _, rule in record.grant.capped if rule.key not in used)


def _admitted(record: Record, versions: Mapping[bytes, CompiledAd]) -> Iterator[Contender]:
    """The ads that were placed, and the next one that could have been."""
    grant = record.grant
    if grant is None:
        return
    wanted = {record.outcome.ranked[record.places[place]] for place in grant.places}
    for candidate in versions_of(record):
        compiled = versions.get(candidate.digest)
        if compiled is None:
            continue
        if compiled.ad.id in wanted:
            wanted.discard(compiled.ad.id)
            value = value_of(compiled, candidate.click_rate, candidate.quality)
            yield Contender(compiled, value, candidate.click_rate)
    if wanted:
        raise RecordRefused("the facts of an ad are gone")


def _filled(ranked: Sequence[Contender], positions: int) -> list[int]:
    """The places of those who get the positions, where nothing was shown before."""
    filled: list[int] = []
    used: Counter[str] = Counter()
    for place, contender in enumerate(ranked):
        if len(filled) == positions:
            break
        candidate = contender.compiled.candidate
        if all(used[rule.key] < rule.most for rule in candidate.rules):
            filled.append(place)
            used.update((ALL, *candidate.keys))
    return filled
