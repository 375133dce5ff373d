"""A decision as it is recorded, and how it is made again.

What is recorded is what `plan` and `award` were given: so they answer alike. The ads stand beside the decision, under
the digest of their facts at that moment; their click rates are those that were predicted, so no model is needed. The
viewer's own id is not recorded: its buckets are all that the gates ask. Authors are told apart by number, and of what
the caller says of a viewer only what a decision may use and an ad asks for.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from adserve.catalogue.snapshot import Snapshot
from adserve.domain.ads import Ad
from adserve.domain.facts import ViewerFacts
from adserve.domain.ids import derived_uuid7s
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Ask, Context, NoFill, Viewer
from adserve.domain.surfaces import Surface
from adserve.domain.time import day_of
from adserve.limits.erased import Erased
from adserve.limits.leases import Hold
from adserve.limits.reservations import Grant, Past
from adserve.limits.rules import ALL, Rule, campaign_key
from adserve.selection.compiled import CompiledSurface, Numbers
from adserve.selection.decide import Held, award, offer_of, plan
from adserve.selection.explain import EXPLAINED_ADS_MAX, explain
from adserve.selection.gates import holdout_bucket, rollout_bucket
from adserve.selection.index import Rows
from adserve.selection.made import Made, considered
from adserve.selection.shelves import Shelves
from adserve.selection.state import View

QUEUED_MAX = 2_000
"""How many decisions may wait to be recorded; more are shed."""
RECORDS_A_BATCH = 50
DIGESTS_REMEMBERED_MAX = 200_000

_FORMAT = b"\x01"
_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


class RecordRefused(ValueError):
    """A record has a form that is not known here, or names an ad whose facts are gone."""


class Candidate(Struct, frozen=True, array_like=True, gc=False):
    """An ad that matched: its version, the click rate that was predicted, and what its value was lowered by."""

    digest: bytes
    click_rate: float
    quality: float


class Placed(Struct, frozen=True, array_like=True, gc=False):
    ad: int
    position: int
    price_micros: int
    ticket: UUID


class Outcome(Struct, frozen=True, array_like=True, gc=False):
    """What must come out again. `ranked` holds ad ids from best to worst, as many as were asked for."""

    no_fill: NoFill | None
    positions: tuple[int, ...]
    ranked: tuple[int, ...]
    placed: tuple[Placed, ...]


class Record(Struct, frozen=True, array_like=True):
    """Grows at its end, with defaults. `matched` counts more ads than `candidates` where only the best are here;
    `below_floor` and `eligible` are counts of all of them too."""

    decision: UUID
    now_ms: int
    seed: bytes
    ask: Ask
    surface: Surface
    rollout: SurfaceRollout
    paused: bool
    fresh_at_ms: int
    catalogue_version: int
    model: str
    most: int
    counted: bool
    exposures: dict[str, int]
    eligible: int
    matched: int
    below_floor: int
    candidates: tuple[Candidate, ...]
    places: tuple[int, ...]
    holds: tuple[Hold, ...]
    reached: int
    paced: tuple[int, ...]
    epoch: int
    grant: Grant | None
    used: tuple[tuple[Rule, int], ...]
    outcome: Outcome


class Version(NamedTuple):
    """An ad's facts as they stood, encoded, under their digest."""

    digest: bytes
    facts: bytes


_encode, _encode_ad = msgpack.Encoder().encode, msgpack.Encoder().encode
_decode, _decode_ad = msgpack.Decoder(Record).decode, msgpack.Decoder(Ad).decode


def encode(record: Record) -> bytes:
    return _FORMAT + _encode(record)


def decode(data: bytes) -> Record:
    if data[:1] != _FORMAT:
        raise RecordRefused(f"a record of format {data[:1]!r} cannot be read")
    return _decode(data[1:])


def version_of(ad: Ad) -> Version:
    facts = _FORMAT + _encode_ad(ad)
    return Version(hashlib.blake2b(facts, digest_size=16).digest(), facts)


def ad_of(facts: bytes) -> Ad:
    if facts[:1] != _FORMAT:
        raise RecordRefused(f"facts of format {facts[:1]!r} cannot be read")
    return _decode_ad(facts[1:])


def is_sampled(seed: int, rate: float) -> bool:
    """Whether the decision with this seed is one of those at this rate: the same at every rate above it."""
    return (seed * _GOLDEN & _64_BITS) < rate * (1 << 64)


def record_of(made: Made, digest_of: Callable[[Ad], bytes]) -> Record:
    planned, view, ask = made.planned, made.view, made.ask
    surface = view.surfaces[ask.surface]
    most = max(made.most, len(planned.ranked.ads))  # a shelf may have more at hand
    best, matched, below_floor = considered(made, EXPLAINED_ADS_MAX if ask.explain else most)
    ads = [compiled.ad for compiled in best.ads]
    qualities = view.snapshot.qualities
    return Record(
        decision=made.decision,
        now_ms=made.now_ms,
        seed=made.seed.to_bytes(16, "big"),
        ask=_recorded_ask(made, ads),
        surface=surface.settings,
        rollout=view.snapshot.rollout_of(ask.surface),
        paused=view.paused,
        fresh_at_ms=view.fresh_at_ms,
        catalogue_version=view.snapshot.version,
        model=view.rates.name,
        most=most,
        counted=made.counted,
        exposures=_recorded_exposures(made.past, ads),
        eligible=len(surface.ads),
        matched=matched,
        below_floor=below_floor,
        candidates=tuple(
            Candidate(digest_of(ad), rate, qualities.get(ad.id, 1.0))
            for ad, rate in zip(ads, best.click_rates, strict=True)
        ),
        places=tuple(made.held.places),
        holds=tuple(made.held.holds),
        reached=made.held.reached,
        paced=tuple(made.held.paced),
        epoch=made.offer.epoch if made.offer else 0,
        grant=made.grant,
        used=tuple(made.used.items()),
        outcome=_outcome(made),
    )


def _outcome(made: Made) -> Outcome:
    placed = tuple(
        Placed(given.ticket.ad, given.position, given.ticket.price_micros, given.ticket.ticket)
        for given in made.awards
    )
    ranked = tuple(compiled.ad.id for compiled in made.planned.ranked.ads)
    return Outcome(made.no_fill, made.planned.positions, ranked, placed)


def _recorded_ask(made: Made, ads: Iterable[Ad]) -> Ask:
    ask = made.ask
    buckets = rollout_bucket(ask, made.view), holdout_bucket(ask, made.view)
    numbers: dict[str, str] = {}
    authors = ask.authors and tuple(
        None if author is None else numbers.setdefault(author, str(len(numbers))) for author in ask.authors
    )
    return replace(
        ask,
        viewer=Viewer("", ask.viewer.cap, ask.viewer.log, buckets),
        authors=authors,
        context=_recorded_context(ask, ads),
        request=None,
        digest=b"",
    )


def _recorded_context(ask: Ask, ads: Iterable[Ad]) -> Context:
    if not ask.personalised:
        return replace(ask.context, age=None, interests=(), custom={})
    if not ask.context.custom:
        return ask.context
    parts = [part for ad in ads for part in (ad.campaign.targeting, ad.campaign.targeting.exclude)]
    asked = {(name, value) for part in parts for name, values in part.custom.items() for value in values}
    custom = {name: value for name, value in ask.context.custom.items() if (name, value) in asked}
    return replace(ask.context, custom=custom)


def _recorded_exposures(past: Past, ads: Iterable[Ad]) -> dict[str, int]:
    keys = {ALL, *[campaign_key(ad.campaign.id) for ad in ads]}
    return {key: count for key, count in past.exposures.items() if key in keys}


class Replayed(NamedTuple):
    """A decision made again; no `differences` where everything came out as it was recorded."""

    record: Record
    made: Made
    differences: list[str]


class _RecordedRates:
    """The click rates that were predicted then."""

    wears_out = True

    def __init__(self, name: str, rates: Mapping[int, float]) -> None:
        self.name = name
        self._rates = rates

    def prepare(self, ads: Sequence[Ad]) -> tuple[Numbers]:
        return (np.array([self._rates[ad.id] for ad in ads], np.float64),)

    def click(self, prepared: tuple[Numbers], rows: Rows, viewer: ViewerFacts, exposures: Any) -> Numbers:
        return prepared[0].take(rows)

    def bound(self, prepared: tuple[Numbers], rows: Rows) -> tuple[Numbers, Callable[[ViewerFacts], float]]:
        return prepared[0].take(rows), lambda _viewer: 1.0


def replay(record: Record, facts: Mapping[bytes, bytes]) -> Replayed:
    """Makes a decision again with what it was made with; `facts` has those of each version that it names."""
    view = _view(record, facts)
    past, seed = Past(record.exposures, None), int.from_bytes(record.seed, "big")
    ask, now_ms = record.ask, record.now_ms
    planned = plan(ask, view, past, record.most, now_ms, seed)
    held = Held(record.places, record.holds, record.reached, record.paced)
    ranked = len(planned.ranked.ads)
    fits = held.reached <= ranked and all(place < ranked for place in held.places)
    made = Made(
        *(record.decision, ask, view, past, record.most, now_ms, seed, record.counted, planned),
        no_fill=planned.no_fill or record.outcome.no_fill,
        held=held if fits else Held(),
        used=dict(record.used),
    )
    if fits and record.grant is not None:
        ids = derived_uuid7s(now_ms, seed, 1 + ask.max_ads)
        offer = offer_of(ask, view, planned, held, ids, epoch=record.epoch, now_ms=now_ms)
        made = replace(made, offer=offer, grant=record.grant, awards=award(offer, record.grant))
    differences = _differences(record.outcome, _outcome(made))
    if not fits:
        differences.append(f"only {ranked} ads are ranked, and one further down held its price")
    return Replayed(record, made, differences)


def _view(record: Record, facts: Mapping[bytes, bytes]) -> View:
    try:
        ads = [ad_of(facts[candidate.digest]) for candidate in record.candidates]
    except KeyError as missing:
        raise RecordRefused(f"the facts of an ad are gone: {missing.args[0].hex()}") from missing
    told = list(zip(ads, record.candidates, strict=True))
    rates = _RecordedRates(record.model, {ad.id: candidate.click_rate for ad, candidate in told})
    qualities = {ad.id: candidate.quality for ad, candidate in told}
    surface = CompiledSurface(record.surface, ads, rates, qualities)
    name = record.ask.surface
    return View(
        Snapshot(record.catalogue_version, tuple(ads), {name: record.rollout}),
        {name: surface},
        {name: Shelves(surface, rates)},
        rates,
        record.paused,
        record.fresh_at_ms,
    )


def _differences(recorded: Outcome, now: Outcome) -> list[str]:
    """`now` may have ranked more ads than were asked for then."""
    shortened = replace(now, ranked=now.ranked[: len(recorded.ranked)])
    return [
        f"{name}: recorded {getattr(recorded, name)}, now {getattr(shortened, name)}"
        for name in Outcome.__struct_fields__
        if getattr(recorded, name) != getattr(shortened, name)
    ]


def explain_again(replayed: Replayed) -> dict[str, Any]:
    """The explanation of a decision that was made again, which knows the ads alone that were recorded."""
    record, made, _ = replayed
    told = explain(made)
    told["funnel"] |= {
        "eligible": record.eligible,
        "targeted": record.matched,
        "above_floor": record.matched - record.below_floor,
        "ranked": len(record.outcome.ranked),
    }
    return told | {"ads_left_off": record.matched - len(told["ads"])}


class Store(Protocol):
    async def save(self, records: Sequence[Record], versions: Sequence[Version], day: date) -> None:
        """All of them or none; what is there already is left alone."""
        ...


class Recording:
    """Where decisions wait to be recorded, each at its own moment: nobody waits for it. `on_shed` is told how many were
    given up, for want of room or of a database. Those for a viewer who is being erased are not recorded."""

    def __init__(
        self,
        store: Store,
        rate: float,
        on_shed: Callable[[int], None] = lambda _: None,
        erased: Erased | None = None,
    ) -> None:
        self._store = store
        self._rate = rate
        self._on_shed = on_shed
        self._erased = erased or Erased()
        self._queue: deque[Made] = deque()
        self._digests: dict[Ad, bytes] = {}
        self._day: date | None = None

    def note(self, made: Made) -> None:
        if not (made.ask.explain or is_sampled(made.seed, self._rate)):
            return
        if self._erased.covers(made.ask.viewer.cap, made.now_ms):
            return
        if len(self._queue) < QUEUED_MAX:
            self._queue.append(made)
        else:
            self._on_shed(1)

    async def step(self, now_ms: int) -> None:
        """Records what waits."""
        day = day_of(now_ms)
        if day != self._day or len(self._digests) > DIGESTS_REMEMBERED_MAX:
            self._day, self._digests = day, {}  # what is used is said again each day
        while self._queue:
            taken = [self._queue.popleft() for _ in range(min(RECORDS_A_BATCH, len(self._queue)))]
            try:
                await self._save(taken, day)
            except BaseException:
                self._digests.clear()
                self._on_shed(len(taken))
                raise

    async def _save(self, taken: Sequence[Made], day: date) -> None:
        versions: dict[bytes, Version] = {}  # one ad may come from two snapshots

        def digest_of(ad: Ad) -> bytes:
            digest = self._digests.get(ad)
            if digest is None:
                version = version_of(ad)
                versions[version.digest] = version
                digest = self._digests[ad] = version.digest
            return digest

        records = []
        for made in taken:
            records.append(record_of(made, digest_of))
            await asyncio.sleep(0)  # a record takes a millisecond: requests go between
        await self._store.save(records, list(versions.values()), day)
