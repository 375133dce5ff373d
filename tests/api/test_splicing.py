import json
import random
import timeit
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserve.api.splicing import find_items, splice

RawFeed = Callable[[int], tuple[bytes, tuple[str | None, ...]]]
ITEMS_MAX = 1_000
AD = b'{"type":"ad","position":1}'


def cut(body: bytes, spans: list[tuple[int, int]]) -> bytes:
    for begin, end in reversed(spans):
        body = body[:begin] + body[end:]
    return body


def positions(seed: int, length: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(length + 1) for _ in range(chance.randrange(1, 4))]


def test_ten_thousand_feeds_come_back_to_the_byte(raw_feed: RawFeed) -> None:
    for seed in range(10_000):
        body, authors = raw_feed(seed)
        items = find_items(body, ITEMS_MAX)
        assert items is not None, body
        assert items.authors == authors, body
        places = positions(seed, len(authors))
        spliced, spans = splice(body, items, [(place, AD) for place in places])
        assert cut(spliced, spans) == body
        assert len(spans) == len(places)
        assert all(spliced[begin:end].strip(b",") == AD for begin, end in spans)


def test_ads_stand_after_as_many_items_as_their_position_says(raw_feed: RawFeed) -> None:
    for seed in range(1_000):
        body, authors = raw_feed(seed)
        expected = json.loads(body, parse_float=str)["items"]
        ads = [(place, b'"ad %d"' % index) for index, place in enumerate(positions(seed, len(authors)))]
        spliced, _ = splice(body, found(body), ads)
        for before, (place, ad) in enumerate(sorted(ads, key=lambda placed: placed[0])):
            expected.insert(place + before, json.loads(ad))
        assert json.loads(spliced, parse_float=str)["items"] == expected


def test_control_a_round_trip_through_objects_loses_bytes(raw_feed: RawFeed) -> None:
    lost = 0
    for seed in range(1_000):
        body = raw_feed(seed)[0]
        try:
            lost += orjson.dumps(orjson.loads(body)) != body
        except orjson.JSONDecodeError:
            lost += 1
    assert lost > 900


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"items"',
        b'[{"items":[1]}]',
        b"{}",
        b'{"a":{"items":[1]}}',
        b'{"items":null}',
        b'{"items":{}}',
        b'{"items":"[1]"}',
        b'{"items":[1],"items":[1]}',
        b'{"items":[1], "a":2 , "items" : [1]}',
        b'{"items":1,"items":[1]}',
        b'{"items":[1],"items":1}',
        rb'{"items":[1],"\u0069tems":[1]}',
        rb'{"\u0069tems":[1],"items":[1]}',
        rb'{"it\u0065ms":[1]}',
        b'\xef\xbb\xbf{"items":[1]}',
        '{"items":[1]}'.encode("utf-16"),
        b'{"items":["\xff"]}',
        b'{"items":["\xed\xa0\x80"]}',
        b'{"a":"\xc0\x80","items":[1]}',
        b'{"items":[1]} x',
        b'{"items":[1]}{"items":[1]}',
        b'{"items":[1]}\x00',
        b'\x0b{"items":[1]}',
        b'{"items":[1,]}',
        b'{"items":[,1]}',
        b'{"items":[1 2]}',
        b'{"items":[1],}',
        b'{"items":[1]',
        b'{"items" [1]}',
        b"{'items':[1]}",
        b"{items:[1]}",
        b'{"items":[01]}',
        b'{"items":[1.]}',
        b'{"items":[.5]}',
        b'{"items":[+1]}',
        b'{"items":[1e]}',
        b'{"items":[-]}',
        b'{"items":[NaN]}',
        b'{"items":[Infinity]}',
        b'{"items":[tru]}',
        b'{"items":["\n"]}',
        rb'{"items":["\x41"]}',
        rb'{"items":["\u12g4"]}',
        rb'{"items":["\ud80"]}',
        b'{"items":[/* no */1]}',
        b'{"items":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"items":[' + b'{"a":' * 500_000,
        b'{"items":[' + b",".join([b"1"] * (ITEMS_MAX + 1)) + b"]}",
    ],
)
def test_anything_else_is_no_feed(body: bytes) -> None:
    assert find_items(body, ITEMS_MAX) is None


def test_as_many_items_as_allowed_are_a_feed() -> None:
    assert len(found(b'{"items":[' + b",".join([b"1"] * ITEMS_MAX) + b"]}").authors) == ITEMS_MAX


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:items \\u0069').map(str.encode))
def test_no_bytes_raise(body: bytes) -> None:
    find_items(body, ITEMS_MAX)


@given(st.integers(0, 10_000), st.data())
def test_what_python_refuses_is_no_feed(raw_feed: RawFeed, seed: int, data: st.DataObject) -> None:
    """One byte put in, taken out or changed anywhere: a feed that is still one is valid to another parser."""
    body = bytearray(raw_feed(seed)[0])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=1))
    items = find_items(bytes(body), ITEMS_MAX)
    if items is not None:
        members = json.loads(bytes(body).decode(), object_pairs_hook=list, parse_constant=lambda _: 1 / 0)
        assert [key for key, _ in members].count("items") == 1
        assert len(dict(members)["items"]) == len(items.authors)


def test_an_empty_list_takes_several_ads() -> None:
    body = b'{"items":[ \n ]}'
    spliced, spans = splice(body, found(body), [(0, b"1"), (0, b"2")])
    assert spliced == b'{"items":[1,2 \n ]}'
    assert cut(spliced, spans) == body


def test_ads_at_one_position_keep_their_order() -> None:
    body = b'{"items":[7,8]}'
    spliced, _ = splice(body, found(body), [(2, b"5"), (1, b"3"), (0, b"1"), (1, b"4"), (0, b"2")])
    assert spliced == b'{"items":[1,2,7,3,4,8,5]}'


@pytest.mark.parametrize("position", [-1, 3])
def test_a_position_outside_the_feed_is_refused(position: int) -> None:
    body = b'{"items":[1,2]}'
    with pytest.raises(ValueError, match="outside a feed of 2"):
        splice(body, found(body), [(position, AD)])


def test_thirty_items_of_twenty_kilobytes_take_no_time() -> None:
    item = {
        "id": "s1",
        "author": "a1",
        "caption": "é" * 250,
        "media": {"url": "u" * 100, "sizes": [1.5] * 10},
    }
    body = orjson.dumps({"version": 1, "items": [item] * 30, "next": None})
    assert len(body) > 20_000
    assert min(timeit.repeat(lambda: find_items(body, ITEMS_MAX), number=20, repeat=20)) / 20 < 400e-6


def found(body: bytes):
    items = find_items(body, ITEMS_MAX)
    assert items is not None
    return items
