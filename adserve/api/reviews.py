"""/v1/reviews: what advertisers made is looked at by a person before it is shown."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from adserve.access.keys import Scope
from adserve.api.shapes import Id, Moment, Status
from adserve.api.slots import PlacedAdvertiser
from adserve.store import reviews
from adserve.store.desk import Desk
from adserve.store.reviews import State
from adserve.store.setup import Row
from adserve.web.operations import Call, NoQuery, Operation
from adserve.web.paging import CatalogueId, PageQuery, cut, decode_cursor
from adserve.web.replies import Page, json_response

REVIEWERS = frozenset({Scope.REVIEWER, Scope.OPERATOR})

Revision = Annotated[int, Meta(ge=1, le=2_147_483_647, description="What was looked at")]


class ReviewQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    state: State = State.WAITING
    advertiser: Id | None = None


class Approval(Struct, frozen=True, forbid_unknown_fields=True):
    revision: Revision


class Rejection(Struct, frozen=True, forbid_unknown_fields=True):
    """The advertiser reads the reason."""

    revision: Revision
    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\S")]


class Verdict(Struct, frozen=True):
    """On `revision`, which may be an earlier one. What staff made is approved by that."""

    revision: int
    verdict: State
    reason: str | None
    at: Moment


class Review(Struct, frozen=True, kw_only=True):
    """A creative as it would be shown; `id` is the creative's, `since` when it came to its `state`."""

    id: int
    advertiser: PlacedAdvertiser
    revision: int
    kind: str
    media_url: str
    width: int
    height: int
    headline: str
    body: str
    call_to_action: str
    landing_url: str
    status: Status
    state: State
    since: Moment
    verdict: Verdict | None


_place = msgspec.json.Decoder(tuple[datetime, CatalogueId])
_PLAIN = (
    "id",
    "revision",
    "kind",
    "width",
    "height",
    "headline",
    "body",
    "call_to_action",
    "landing_url",
    "status",
)


class Reviews:
    """`base_url` is what the URLs of media begin with."""

    def __init__(self, desk: Desk, base_url: str) -> None:
        self._desk = desk
        self._base_url = base_url

    async def page(self, call: Call[None, ReviewQuery]) -> web.StreamResponse:
        query = call.query
        after = None if query.after is None else decode_cursor(query.after, _place)
        async with self._desk.transaction(None) as connection:
            rows = await reviews.page(connection, query.state, after, query.limit + 1, query.advertiser)
        shown, following = cut(rows, query.limit, lambda row: (row["review_at"], row["id"]))
        return json_response(Page([self._encode(row) for row in shown], following))

    async def approve(self, call: Call[Approval, NoQuery]) -> web.StreamResponse:
        return await self._judge(call, State.APPROVED, None)

    async def reject(self, call: Call[Rejection, NoQuery]) -> web.StreamResponse:
        return await self._judge(call, State.REJECTED, call.body.reason)

    async def _judge(self, call: Call[Any, NoQuery], verdict: State, reason: str | None) -> web.Response:
        async with self._desk.transaction(None) as connection:
            row = await reviews.judge(
                connection, call.id, call.body.revision, verdict, reason, call.caller.id
            )
        return json_response(self._encode(row))

    def _encode(self, row: Row) -> Review:
        last = None
        if row["verdict"] is not None:
            last = Verdict(row["judged_revision"], State(row["verdict"]), row["reason"], row["at"])
        return Review(
            advertiser=PlacedAdvertiser(row["advertiser_id"], row["advertiser_name"]),
            media_url=f"{self._base_url}/media/{row['media']}",
            state=State(row["review"]),
            since=row["review_at"],
            verdict=last,
            **{name: row[name] for name in _PLAIN},
        )

    def operations(self) -> list[Operation]:
        operation = partial(Operation, tag="reviews", scopes=REVIEWERS)
        return [
            operation(
                method="GET",
                path="/v1/reviews",
                id="listReviews",
                summary="Creatives that wait for a review, those that have waited longest first",
                handle=self.page,
                query=ReviewQuery,
                answer=Page[Review],
            ),
            operation(
                method="POST",
                path="/v1/reviews/{id}/approve",
                id="approveCreative",
                summary="Let the creative with this id be shown",
                description="`revision` is the one that was looked at: 409 when the advertiser has changed it since.",
                handle=self.approve,
                body=Approval,
                answer=Review,
                refusals=(409,),
                example={"revision": 2},
            ),
            operation(
                method="POST",
                path="/v1/reviews/{id}/reject",
                id="rejectCreative",
                summary="Keep the creative with this id from being shown, and tell its advertiser why",
                description="One that is being shown is taken off within a second. 409 as for an approval.",
                handle=self.reject,
                body=Rejection,
                answer=Review,
                refusals=(409,),
                example={"revision": 2, "reason": "The landing page sells something else."},
            ),
        ]
