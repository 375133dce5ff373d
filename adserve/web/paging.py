"""Lists in pages: an opaque cursor points behind the last item of a page."""

import base64
from typing import Annotated, TypeVar

import msgspec
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


Position = TypeVar("Position")


def encode_cursor(*position: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str, decoder: msgspec.json.Decoder[Position]) -> Position:
    """What `encode_cursor` was given; the decoder knows which values it can have."""
    try:
        return decoder.decode(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except ValueError as error:
        raise invalid("?after", "is not a cursor of this list") from error


_by_id = msgspec.json.Decoder(tuple[CatalogueId])


def id_after(query: PageQuery) -> int:
    return 0 if query.after is None else decode_cursor(query.after, _by_id)[0]
