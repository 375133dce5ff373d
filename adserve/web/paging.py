"""Lists in pages: an opaque cursor points behind the last item of a page."""

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from adserve.domain.ids import CATALOGUE_ID_MAX
from adserve.web.problems import invalid

LIMIT_DEFAULT = 50
LIMIT_MAX = 500

Cursor = Annotated[str, Meta(max_length=200, description="`next` of the page before")]
CatalogueId = Annotated[int, Meta(ge=1, le=CATALOGUE_ID_MAX)]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    after: Cursor | None = None


Position = TypeVar("Position", bound=Sequence[Any])
Found = TypeVar("Found")


def encode_cursor(*position: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str, decoder: msgspec.json.Decoder[Position]) -> Position:
    """What `encode_cursor` was given; the decoder knows which values it can have."""
    try:
        position = decoder.decode(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
        for value in position:
            _check_storable(value)
    except ValueError as error:
        raise invalid("?after", "is not a cursor of this list") from error
    return position


def _check_storable(value: object) -> None:
    """ValueError for what no row has and PostgreSQL would not take: U+0000, and what in UTC may lie outside the calendar."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("contains the character U+0000")
    if isinstance(value, datetime) and value.utcoffset():
        raise ValueError("is not in UTC")


def cut(
    found: Sequence[Found], limit: int, place: Callable[[Found], Iterable[object]]
) -> tuple[Sequence[Found], str | None]:
    """The page, of one more than its limit if there are so many, and the cursor behind it: None on the last page."""
    if len(found) <= limit:
        return found, None
    return found[:limit], encode_cursor(*place(found[limit - 1]))


def next_link(request: web.Request, following: str) -> str:
    """The value of `Link` where the answer itself has no room for the cursor."""
    return f'<{request.rel_url.update_query(after=following)}>; rel="next"'


_by_id = msgspec.json.Decoder(tuple[CatalogueId])


def id_after(query: PageQuery) -> int:
    return 0 if query.after is None else decode_cursor(query.after, _by_id)[0]
