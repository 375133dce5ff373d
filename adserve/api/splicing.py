"""Ads go into a feed by byte offset: the upstream's own bytes are never decoded and written again.

A feed is a JSON object with one top-level `items` array. Whatever is not exactly that is left alone.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from adserve.web.bodies import without_lone_surrogates

Span = tuple[int, int]
"""Begin and end, as offsets in bytes."""

_SPACE = rb"[ \t\n\r]*"
_NEXT = re.compile(rb"[ \t\n\r,]*")
_KEY = re.compile(rb'"items"' + _SPACE + rb":" + _SPACE + rb"\Z")


class _Item(msgspec.Struct):
    author: str | int | None = None


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_item = msgspec.json.Decoder(_Item)


class Items(NamedTuple):
    """`gaps[n]` is the offset at which something with n items before it goes in; `authors` has one for each item."""

    gaps: tuple[int, ...]
    authors: tuple[str | None, ...]


def find_items(body: bytes, items_max: int) -> Items | None:
    """The one top-level `items` array, or None where that is not what `body` plainly has.

    None also for a key spelled with escapes, more than `items_max` items, a byte order mark or invalid UTF-8.
    """
    try:
        body.decode()
        text, members = _members(body)
        value = members.get("items")
        if value is None:
            return None
        start = _address(value) - _address(text)
        key = _KEY.search(text, 0, start)
        if key is None or "items" in _object.decode(text[: key.start()].rstrip(b" \t\n\r,") + b"}"):
            return None
        lengths = [memoryview(item).nbytes for item in _array.decode(value)]
    except (ValueError, RecursionError):
        return None
    if len(lengths) > items_max:
        return None
    gaps, authors = [start + 1], []
    for length in lengths:
        begin = _NEXT.match(text, gaps[-1]).end()  # type: ignore[union-attr]  # it matches nothing, too
        gaps.append(begin + length)
        authors.append(_author(text[begin : begin + length]))
    return Items(tuple(gaps), tuple(authors))


def splice(body: bytes, items: Items, ads: Sequence[tuple[int, bytes]]) -> tuple[bytes, list[Span]]:
    """`body` with each (position, JSON) of `ads` as an item of its own, and the spans that were inserted.

    A position is the number of the body's own items before the ad; ads at one position keep their order. Cutting
    the spans, which are offsets in the answer, gives back `body`. ValueError for a position outside the feed.
    """
    parts: list[bytes] = []
    spans: list[Span] = []
    done = inserted = 0
    for position, ad in sorted(ads, key=lambda placed: placed[0]):
        if not 0 <= position < len(items.gaps):
            raise ValueError(f"position {position} lies outside a feed of {len(items.authors)} items")
        gap = items.gaps[position]
        if position == 0 and items.authors:
            item = ad + b","
        elif position == 0 and not spans:
            item = ad
        else:
            item = b"," + ad
        parts += (body[done:gap], item)
        spans.append((gap + inserted, gap + inserted + len(item)))
        done, inserted = gap, inserted + len(item)
    return b"".join((*parts, body[done:])), spans


def _members(body: bytes) -> tuple[bytes, dict[str, msgspec.Raw]]:
    """The members, and the text that they are views into: `body`, or a stand-in whose offsets are the same."""
    try:
        return body, _object.decode(body)
    except ValueError:
        text = without_lone_surrogates(body)
        return text, _object.decode(text)


def _author(item: bytes) -> str | None:
    try:
        author = _item.decode(item).author
    except (ValueError, RecursionError):
        return None
    return None if author is None else str(author)


def _address(buffer: bytes | msgspec.Raw) -> int:
    """Where the bytes lie: a Raw is a view into what it was decoded from, and so knows its offset."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])
