"""/v1/creatives: what is shown. A creative names media that are stored already, or brings them; /media serves them."""

import asyncio
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import asdict

from adserve.api.resource import Resource, owner_of
from adserve.api.shapes import Id, Moment, Status, changes_of, check_landing_url
from adserve.creatives.sandbox import Kind
from adserve.creatives.uploads import Uploads
from adserve.domain.ids import AdvertiserId
from adserve.store.desk import Connection, Desk
from adserve.store.errors import Missing, UnknownReference
from adserve.store.media import Media, content_type_of
from adserve.store.reviews import State
from adserve.store.setup import ADVERTISERS, CREATIVES, Row
from adserve.web.forms import Form, Received, of_part
from adserve.web.idempotency import earlier_answer
from adserve.web.operations import AnyQuery, Call, Operation
from adserve.web.paging import PageQuery
from adserve.web.problems import NOT_FOUND, Problem, invalid
from adserve.web.replies import answer_response

_END = r"$(?!\n)"
"""Alone, `$` also matches before a newline at the end."""

Sha256 = Annotated[str, Meta(pattern=f"^[0-9a-f]{{64}}{_END}")]
Url = Annotated[str, Meta(pattern=f"^https?://[!-~]+{_END}", max_length=2_000, description="http or https")]
Word = Annotated[str, Meta(pattern=f"^[a-z][a-z0-9_]{{0,39}}{_END}")]

_MEDIA_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


class UploadedCreative(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`advertiser` may be left out by an advertiser's own key."""

    advertiser: Id | None = None
    kind: Kind
    headline: Annotated[str, Meta(min_length=1, max_length=100)]
    body: Annotated[str, Meta(max_length=500)] = ""
    call_to_action: Word
    landing_url: Url


class CreativeReview(Struct, frozen=True):
    """Of the newest revision, which is shown once a person has approved it; `at` is since when."""

    state: State
    reason: str | None
    at: Moment


class NewCreative(UploadedCreative, frozen=True, kw_only=True):
    """`media` is the SHA-256 of stored media."""

    media: Sha256


class Creative(Struct, frozen=True, kw_only=True):
    id: int
    advertiser: int
    kind: Kind
    media: str
    headline: str
    body: str
    call_to_action: str
    landing_url: str
    revision: int
    status: Status
    review: CreativeReview
    created_at: Moment
    updated_at: Moment


class CreativeQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    advertiser: Id | None = None


_PLAIN = ("kind", "media", "headline", "body", "call_to_action", "landing_url")


class Creatives(Resource):
    table = CREATIVES
    noun = "creative"
    body = NewCreative
    changes = changes_of("CreativeChanges", NewCreative, but=frozenset({"advertiser"}))
    answer = Creative
    query = CreativeQuery
    example = {  # noqa: RUF012 - the base declares it a ClassVar
        "advertiser": 3,
        "kind": "image",
        "media": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "headline": "Slow down. Pour over.",
        "body": "Beans that travel less than you do.",
        "call_to_action": "shop_now",
        "landing_url": "https://example.com/beans",
    }

    def __init__(self, desk: Desk, uploads: Uploads, form: Form[UploadedCreative]) -> None:
        super().__init__(desk)
        self._uploads = uploads
        self.form = self._form = form

    async def create(self, call: Call[Any, Any]) -> web.StreamResponse:
        if not isinstance(call.body, Received):
            return await super().create(call)
        fields = call.body.fields
        with of_part(self._form.fields):
            async with self.desk.transaction(call.caller.advertiser) as connection:
                answer = await earlier_answer(connection, call)
                if answer is not None:
                    return answer_response(answer)
                await self._check(connection, call.caller.advertiser, fields)
        media = await self._uploads.take(fields.kind, call.body.file)
        with of_part(self._form.fields):
            return await super().create(call._replace(body=NewCreative(media=media, **asdict(fields))))

    async def _check(
        self, connection: Connection, tenant: AdvertiserId | None, fields: UploadedCreative
    ) -> None:
        """Nothing is decoded for what is refused anyway."""
        check_landing_url("$.landing_url", fields.landing_url)
        try:
            await ADVERTISERS.one(connection, owner_of(tenant, fields.advertiser))
        except Missing as error:
            raise UnknownReference("advertiser") from error

    def encode(self, row: Row) -> Creative:
        names = set(Creative.__struct_fields__) - {"advertiser", "review"}
        review = CreativeReview(State(row["review"]), row["review_reason"], row["review_at"])
        return Creative(advertiser=row["advertiser_id"], review=review, **{name: row[name] for name in names})

    def body_of(self, row: Row) -> NewCreative:
        return NewCreative(advertiser=row["advertiser_id"], **{name: row[name] for name in _PLAIN})

    async def columns(
        self, connection: Connection, tenant: AdvertiserId | None, body: NewCreative, _stored: Row | None
    ) -> Row:
        check_landing_url("$.landing_url", body.landing_url)
        if not (await content_type_of(connection, body.media)).startswith(f"{body.kind}/"):
            raise invalid("$.kind", "is not what the media are")
        owner = owner_of(tenant, body.advertiser)
        return {"advertiser_id": owner} | {name: getattr(body, name) for name in _PLAIN}


def form_of(media: Media, media_max_bytes: int) -> Form[UploadedCreative]:
    return Form("media", "creative", UploadedCreative, file_max_bytes=media_max_bytes, scratch=media.scratch)


class MediaFiles:
    """Serves stored media. A name is the hash of the bytes, so an answer holds for ever."""

    def __init__(self, media: Media) -> None:
        self._media = media

    async def get(self, call: Call[None, AnyQuery]) -> web.StreamResponse:
        medium = await asyncio.to_thread(self._media.find, call.request.match_info["sha256"])
        if medium is None:
            raise Problem(NOT_FOUND)
        return web.FileResponse(medium.path, headers=_MEDIA_HEADERS | {"Content-Type": medium.content_type})

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/media/{sha256}",
                id="getMedia",
                tag="creatives",
                summary="The bytes of an image or a video",
                handle=self.get,
                query=AnyQuery,
                content_types=("image/*", "video/mp4"),
            )
        ]
