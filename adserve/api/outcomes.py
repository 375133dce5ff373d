"""/v1/outcomes: how viewers fared, as the feed service reports it; what ads may harm is seen by it. In order, each in its place."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from adserve.access.keys import Scope
from adserve.api.shapes import Moment, check_moment
from adserve.api.slots import Opaque, Short
from adserve.domain.targeting import Country
from adserve.domain.time import DAY_MS, SECOND_MS, Clock, to_ms
from adserve.metering.pseudonyms import Pseudonyms
from adserve.rollout.arms import standing_of
from adserve.selection.state import View
from adserve.store.outcomes import IDS_KEPT_MS, Outcomes, Told
from adserve.web.bodies import decode_json, field_error, without_lone_surrogates
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.problems import FieldError, Problem, invalid
from adserve.web.replies import json_response

FEED = frozenset({Scope.FEED})
OUTCOMES_MAX = 1_000
OLDEST_MS = IDS_KEPT_MS - DAY_MS
"""An older one might have been counted before, and its id forgotten."""
AHEAD_MAX_MS = 300 * SECOND_MS
_ID = "outcome\0"
"""So that no outcome's id is hashed as a viewer's would be."""

Count = Annotated[int, Meta(ge=0, le=100_000)]


class Kind(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    LATE = "late"
    NOT_COMPARED = "not_compared"
    REFUSED = "refused"


class OutcomeReport(Struct, frozen=True, forbid_unknown_fields=True):
    """How a viewer fared in one session, or later. `id` is the caller's own, new for each outcome; what is not known is left out.

    Without `occurred_at` it occurred now; without a `surface`, on the first one.
    """

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    viewer: Opaque
    surface: Short | None = None
    country: Country | None = None
    occurred_at: Moment | None = None
    statuses_viewed: Count | None = None
    session_seconds: Annotated[float, Meta(ge=0, le=86_400, description="Rounded to whole ones")] | None = (
        None
    )
    returned_next_day: bool | None = None
    posts_made: Count | None = None


class OutcomeReports(Struct, frozen=True, forbid_unknown_fields=True):
    outcomes: Annotated[list[OutcomeReport], Meta(min_length=1, max_length=OUTCOMES_MAX)]


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    outcomes: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=OUTCOMES_MAX)]


class OutcomeResult(Struct, frozen=True):
    """`late` occurred before the step of the ramp was entered, or days ago; `not_compared` is of a viewer in neither arm, or where no
    ramp is under way. Neither is stored, nor is what is `refused`."""

    result: Kind
    errors: list[FieldError] | UnsetType = UNSET


class OutcomeResults(Struct, frozen=True):
    results: list[OutcomeResult]


_whole = msgspec.json.Decoder(OutcomeReports)
_envelope = msgspec.json.Decoder(_Envelope)
_item = msgspec.json.Decoder(OutcomeReport)

Read = OutcomeReport | FieldError


def decode_outcomes(raw: bytes) -> list[Read]:
    """All at once; and only when that fails one by one, so that a bad one spoils no other."""
    try:
        return list(_whole.decode(raw).outcomes)
    except (ValueError, RecursionError):
        return list(_decode_one_by_one(raw))


def _decode_one_by_one(raw: bytes) -> Iterator[Read]:
    for item in decode_json(_envelope, without_lone_surrogates(raw)).outcomes:
        try:
            yield _item.decode(item)
        except (ValueError, RecursionError) as error:
            yield field_error(error)


class OutcomesApi:
    """`groups` maps each surface to its rollout group, the first one is meant when none is named; `forgotten` says of a viewer's pseudonym
    and a moment whether nothing of then may be kept."""

    def __init__(
        self,
        store: Outcomes,
        pseudonyms: Pseudonyms,
        view: Callable[[], View],
        groups: Mapping[str, str],
        forgotten: Callable[[bytes, int], bool],
        clock: Clock,
    ) -> None:
        self._store = store
        self._pseudonyms = pseudonyms
        self._view = view
        self._groups = groups
        self._default_surface = next(iter(groups))
        self._forgotten = forgotten
        self._clock = clock

    async def report(self, call: Call[list[Read], NoQuery]) -> web.StreamResponse:
        now_ms, view = self._clock(), self._view()
        told: dict[bytes, Told] = {}
        results: list[OutcomeResult | bytes] = []
        for read in call.body:
            known = self._judge(read, view, now_ms)
            if isinstance(known, Told):
                results.append(OutcomeResult(Kind.DUPLICATE) if known.key in told else known.key)
                told.setdefault(known.key, known)
            else:
                results.append(known)
        new = await self._store.add(list(told.values()), now_ms) if told else set()
        return json_response(OutcomeResults([_result(known, new) for known in results]))

    def _judge(self, read: Read, view: View, now_ms: int) -> Told | OutcomeResult:
        if isinstance(read, FieldError):
            return OutcomeResult(Kind.REFUSED, [read])
        try:
            return self._told(read, view, now_ms)
        except Problem as problem:
            return OutcomeResult(Kind.REFUSED, list(problem.errors))

    def _told(self, report: OutcomeReport, view: View, now_ms: int) -> Told | OutcomeResult:
        surface = self._default_surface if report.surface is None else report.surface
        if surface not in self._groups:
            raise invalid("$.surface", f"is not one of {', '.join(self._groups)}")
        occurred_ms = now_ms if report.occurred_at is None else _occurred_ms(report.occurred_at, now_ms)
        if not view.shows_ads(now_ms):
            return OutcomeResult(Kind.NOT_COMPARED)
        snapshot, rollout = view.snapshot, view.snapshot.rollout_of(surface)
        standing = standing_of(
            report.viewer, self._groups[surface], snapshot.stages, rollout, surface, report.country
        )
        if standing is None:
            return OutcomeResult(Kind.NOT_COMPARED)
        if occurred_ms < max(standing.stage.since_ms, now_ms - OLDEST_MS):
            return OutcomeResult(Kind.LATE)
        viewer, _ = self._pseudonyms.of(report.viewer, now_ms)
        if self._forgotten(viewer, occurred_ms):
            return OutcomeResult(Kind.NOT_COMPARED)
        key, _ = self._pseudonyms.of(_ID + report.id, now_ms)
        seconds = None if report.session_seconds is None else round(report.session_seconds)
        return Told(
            key,
            standing,
            viewer,
            occurred_ms,
            report.statuses_viewed,
            seconds,
            report.returned_next_day,
            report.posts_made,
        )

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/outcomes",
                id="reportOutcomes",
                tag="feed service",
                summary="Report how viewers fared",
                description="Ramps are judged by it. Answers when everything is durable, in order. An `id` that came before is a `duplicate` "
                "and is not counted again; a bad outcome is refused in its place.",
                handle=self.report,
                scopes=FEED,
                body=OutcomeReports,
                decode=decode_outcomes,
                answer=OutcomeResults,
                refusals=(503,),
                example={
                    "outcomes": [
                        {"id": "session-1", "viewer": "u-123", "statuses_viewed": 24, "session_seconds": 310}
                    ]
                },
            )
        ]


def _occurred_ms(moment: datetime, now_ms: int) -> int:
    check_moment("$.occurred_at", moment)
    occurred_ms = to_ms(moment)
    if occurred_ms > now_ms + AHEAD_MAX_MS:
        raise invalid("$.occurred_at", "is in the future")
    return occurred_ms


def _result(known: OutcomeResult | bytes, new: set[bytes]) -> OutcomeResult:
    if isinstance(known, OutcomeResult):
        return known
    return OutcomeResult(Kind.RECORDED if known in new else Kind.DUPLICATE)
