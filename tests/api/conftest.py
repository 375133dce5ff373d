import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from service import Service, running
from waiting import PATIENCE_MS
from wrapping import World, wrapper

from adserve.api.upstream import open_session
from adserve.database.pools import Pools

NUMBERS = (
    "0",
    "-0",
    "1.0",
    "0.10",
    "1e400",
    "-1E+2",
    "-0.0e-05",
    "12345678901234567890123",
    "3.141592653589793238",
)
ESCAPES = (
    r"\"",
    r"\\",
    r"\/",
    r"\b",
    r"\f",
    r"\n",
    r"\r",
    r"\t",
    r"\u0000",
    r"\u00E9",
    r"\ud83d\uDE00",
    r"\uD800",
    r"\udbffx",
    r"\\ud800\udc00",
)
PLAIN = ("a", "items", " ", "é", "😀", "\x7f", "\u2028", "[{", "}],", ":")
KEYS = ('"id"', '"items"', '"b"', '"b"', r'"b"', '""', r'"\u0069tems"', '"x y"', r'"a\"items"')
SPACE = ("", "", "", " ", "\n", "\t\r\n", "    ")


class FeedWriter:
    """Writes feeds as text, with everything that JSON allows and a decoder would not give back."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def space(self) -> str:
        return self.chance.choice(SPACE)

    def string(self) -> str:
        pieces = (self.chance.choice(ESCAPES + PLAIN) for _ in range(self.chance.randrange(6)))
        return '"' + "".join(pieces) + '"'

    def scalar(self) -> str:
        return self.chance.choice((self.string(), self.chance.choice(NUMBERS), "true", "false", "null"))

    def value(self, depth: int = 0) -> str:
        kind = self.chance.randrange(8 if depth < 3 else 6)
        if kind < 6:
            return self.scalar()
        count = self.chance.randrange(4)
        if kind == 6:
            return self.array([self.value(depth + 1) for _ in range(count)])
        return self.object([(self.chance.choice(KEYS), self.value(depth + 1)) for _ in range(count)])

    def array(self, values: list[str]) -> str:
        return "[" + self.space() + self.joined(values) + "]"

    def object(self, members: list[tuple[str, str]]) -> str:
        pairs = [key + self.space() + ":" + self.space() + value for key, value in members]
        return "{" + self.space() + self.joined(pairs) + "}"

    def joined(self, parts: list[str]) -> str:
        return ",".join(self.space() + part + self.space() for part in parts)

    def item(self) -> tuple[str, str | None]:
        if self.chance.random() < 0.1:
            return self.chance.choice((self.scalar(), "[]", "{}", '[{"author": "nobody"}]')), None
        written, author = self.chance.choice(
            (
                ('"a1"', "a1"),
                ('"a2"', "a2"),
                (r'"\u00e9\n"', "é\n"),
                ("7", "7"),
                ("1e400", None),
                (r'"\udc00\\"', "\ufffd\\"),
            )
        )
        members = [(key, self.value(1)) for key in self.chance.sample(KEYS, 3)]
        members.insert(self.chance.randrange(4), ('"author"', written))
        return self.object(members), author

    def feed(self) -> tuple[bytes, tuple[str | None, ...]]:
        items = [self.item() for _ in range(self.chance.choice((0, 0, 1, 2, 5, 12)))]
        members = [
            (key, self.value())
            for key in self.chance.choices(KEYS, k=3)
            if key not in ('"items"', r'"\u0069tems"')
        ]
        place = self.chance.randrange(len(members) + 1)
        members.insert(place, ('"items"', self.array([text for text, _ in items])))
        body = self.space() + self.object(members) + self.space()
        return body.encode(), tuple(author for _, author in items)


@pytest.fixture(scope="session")
def raw_feed() -> Callable[[int], tuple[bytes, tuple[str | None, ...]]]:
    """Seed to body and authors; 10,000 seeds take about a second."""
    return lambda seed: FeedWriter(seed).feed()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with wrapper(open_session(PATIENCE_MS)) as world:
        yield world


@pytest.fixture
async def world_of_hasty_decisions() -> AsyncIterator[World]:
    async with wrapper(open_session(PATIENCE_MS), deadline_ms=30) as world:
        yield world


@pytest.fixture
async def world_without_patience() -> AsyncIterator[World]:
    """For an upstream that says nothing: any other may seem silent to it, when the machine stalls."""
    async with wrapper(open_session(timeout_ms=300)) as world:
        yield world


@pytest.fixture
async def service(pools: Pools, clock: Callable[[], int], tmp_path: Path) -> AsyncIterator[Service]:
    async with running(pools, clock, tmp_path) as service:
        yield service
