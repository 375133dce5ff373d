"""Forms of two parts (multipart/form-data, RFC 7578): a file, which goes to disk as it comes, and JSON that says what it is.

Stricter than the RFC where that leaves no doubt what was meant: nothing before, between or behind the parts, each there once.
"""

import asyncio
import hashlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, BinaryIO, Generic, NamedTuple, TypeVar

from aiohttp import StreamReader, web

from adserve.access.keys import Key
from adserve.domain.ids import KeyId
from adserve.store.errors import UnknownReference
from adserve.web.bodies import BodyDecoder, arriving, media_type
from adserve.web.problems import (
    CONTENT,
    TOO_LARGE,
    UNAVAILABLE,
    FieldError,
    Problem,
    about,
    invalid,
    problem_of,
)

CONTENT_TYPE = "multipart/form-data"
FORM_READ_TIMEOUT_S = 120.0
"""The largest upload by default, at 2.2 Mbit/s."""
FORMS_AT_ONCE = 16
FORMS_OF_ONE_AT_ONCE = 4
"""Of one key: whoever sends slowly keeps nobody else out."""
RETRY_AFTER_S = 5
HEAD_MAX_BYTES = 4_096
"""Of each part."""
FIELDS_MAX_BYTES = 65_536
WRITTEN_AT_ONCE_BYTES = 1 << 18
NAME_TOLD_MAX_LENGTH = 100

_HEAD_END = b"\r\n\r\n"
_BOUNDARY = re.compile(
    r"""multipart/form-data[ \t]*(?:;.*)?;[ \t]*boundary=("?)([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\1[ \t]*(?:;.*)?""",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    rb""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^";\s]*))[ \t]*""", re.DOTALL
)
_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-?8"?[ \t]*)?', re.IGNORECASE)
_AS_IT_IS = frozenset({b"7bit", b"8bit", b"binary"})

Fields = TypeVar("Fields")

log = logging.getLogger(__name__)


class Received(NamedTuple, Generic[Fields]):
    """The file stands at its beginning, and is gone when the call ends."""

    fields: Fields
    file: BinaryIO


class Form(Generic[Fields]):
    """`file` and `fields` are the names of the parts, `type` what the second one is; `scratch` makes files without a name and
    without a buffer."""

    def __init__(
        self,
        file: str,
        fields: str,
        type_: type[Fields],
        *,
        file_max_bytes: int,
        scratch: Callable[[], BinaryIO],
    ) -> None:
        self.file = file
        self.fields = fields
        self.type = type_
        self._file_max_bytes = file_max_bytes
        self._scratch = scratch
        self._decode = BodyDecoder(type_, f"$.{fields}").decode
        self._inside: Counter[KeyId] = Counter()

    def is_sent(self, request: web.Request) -> bool:
        return media_type(request.headers.get("Content-Type", ""))[0] == CONTENT_TYPE

    @asynccontextmanager
    async def received(
        self, request: web.Request, caller: Key
    ) -> AsyncIterator[tuple[Received[Fields], bytes]]:
        """The form, and bytes that are the same when the same is sent again, whatever the boundary and the order."""
        boundary = _BOUNDARY.fullmatch(request.headers["Content-Type"])
        if boundary is None:
            raise invalid("Content-Type", "names no boundary as in RFC 2046")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise about(CONTENT, "Content-Encoding", "is not for forms: send them as they are")
        if (request.content_length or 0) > self._file_max_bytes + FIELDS_MAX_BYTES + 3 * HEAD_MAX_BYTES:
            raise self._too_large()
        with self._admitted(caller.id), self._scratch() as file:
            parts = _Parts(request.content, boundary[2].encode())
            async with arriving(FORM_READ_TIMEOUT_S):
                sha256, raw = await self._read(parts, file)
            fields = self._decode(raw)
            file.seek(0)
            yield Received(fields, file), b"%b\0%b" % (sha256.encode(), raw)

    async def _read(self, parts: "_Parts", file: BinaryIO) -> tuple[str, bytes]:
        sha256, raw = None, None
        while (head := await parts.next()) is not None:
            name = head.name
            if name not in (self.file, self.fields):
                raise invalid(f"$.{name[:NAME_TOLD_MAX_LENGTH]}", "is not a part of this form")
            if (sha256 if name == self.file else raw) is not None:
                raise invalid(f"$.{name}", "is there twice")
            if head.encoding not in _AS_IT_IS:
                raise about(CONTENT, f"$.{name}", "is encoded: send its bytes as they are")
            if name == self.file:
                sha256 = await self._store(parts, file)
            else:
                if not _JSON.fullmatch(head.content_type):
                    raise about(CONTENT, f"$.{name}", "is not application/json in UTF-8")
                raw = await self._collect(parts)
        if sha256 is None or raw is None:
            raise invalid(f"$.{self.file if sha256 is None else self.fields}", "is missing")
        return sha256, raw

    async def _store(self, parts: "_Parts", file: BinaryIO) -> str:
        digest, size, held = hashlib.sha256(), 0, bytearray()

        def write() -> None:
            digest.update(held)
            with memoryview(held) as rest:
                at = 0
                while at < len(rest):
                    at += file.write(rest[at:])
            held.clear()

        async for data in parts.data():
            size += len(data)
            if size > self._file_max_bytes:
                raise self._too_large()
            held += data
            if len(held) >= WRITTEN_AT_ONCE_BYTES:
                await _to_disk(write)
        await _to_disk(write)
        return digest.hexdigest()

    async def _collect(self, parts: "_Parts") -> bytes:
        raw = bytearray()
        async for data in parts.data():
            raw += data
            if len(raw) > FIELDS_MAX_BYTES:
                raise about(TOO_LARGE, f"$.{self.fields}", f"is larger than {FIELDS_MAX_BYTES:,} bytes")
        return bytes(raw)

    def _too_large(self) -> Problem:
        return about(TOO_LARGE, f"$.{self.file}", f"is larger than {self._file_max_bytes:,} bytes")

    @contextmanager
    def _admitted(self, caller: KeyId) -> Iterator[None]:
        if self._inside.total() >= FORMS_AT_ONCE or self._inside[caller] >= FORMS_OF_ONE_AT_ONCE:
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            raise Problem(UNAVAILABLE, "Too many uploads are under way.", headers=retry)
        self._inside[caller] += 1
        try:
            yield
        finally:
            self._inside[caller] -= 1
            self._inside += Counter()  # forgets who has none


async def _to_disk(write: Callable[[], Any]) -> None:
    try:
        await asyncio.to_thread(write)
    except OSError as error:
        log.warning("an upload cannot be written", extra={"reason": repr(error)})
        raise Problem(UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_S)}) from error


@contextmanager
def of_part(name: str) -> Iterator[None]:
    """A field of the body that is refused inside is one of this part's."""
    try:
        yield
    except (Problem, UnknownReference) as error:
        problem = error if isinstance(error, Problem) else problem_of(error)
        assert problem is not None  # noqa: S101 - for the type checker: the table has it
        errors = [
            FieldError(f"$.{name}{wrong.field[1:]}" if wrong.field[0] == "$" else wrong.field, wrong.reason)
            for wrong in problem.errors
        ]
        detail = "; ".join(f"{wrong.field}: {wrong.reason}" for wrong in errors) or problem.detail
        raise Problem(problem.kind, detail, errors, problem.headers) from error


class _Head(NamedTuple):
    name: str
    content_type: bytes
    encoding: bytes


class _Parts:
    """The parts of a body, one after the other: `next`, and then its `data`."""

    def __init__(self, content: StreamReader, boundary: bytes) -> None:
        self._content = content
        self._delimiter = b"\r\n--" + boundary
        self._held = bytearray(b"\r\n")  # so that the first delimiter is like all others
        self._begun = False

    async def next(self) -> _Head | None:
        """None at the end of the form, with nothing behind it."""
        if not self._begun:
            self._begun = True
            await self._take(self._delimiter, "does not begin with the boundary that Content-Type names")
        await self._until(2)
        if self._held.startswith(b"--"):
            await self._end()
            return None
        while (end := self._held.find(_HEAD_END, 0, HEAD_MAX_BYTES)) < 0:
            if len(self._held) >= HEAD_MAX_BYTES:
                raise invalid("$", f"has a part whose head is longer than {HEAD_MAX_BYTES:,} bytes")
            await self._more()
        if not self._held.startswith(b"\r\n"):
            raise invalid("$", "has something behind a boundary")
        head = bytes(self._held[2:end])
        del self._held[: end + len(_HEAD_END)]
        return _head_of(head)

    async def data(self) -> AsyncIterator[bytes]:
        while (end := self._held.find(self._delimiter)) < 0:
            certain = len(self._held) - len(self._delimiter) + 1
            if certain > 0:
                yield bytes(self._held[:certain])
                del self._held[:certain]
            await self._more()
        yield bytes(self._held[:end])
        del self._held[: end + len(self._delimiter)]

    async def _end(self) -> None:
        while not self._content.at_eof():
            self._held += await self._content.readany()
            if len(self._held) > len(b"--\r\n"):
                break
        if bytes(self._held) not in (b"--", b"--\r\n"):
            raise invalid("$", "has something behind its last part")

    async def _take(self, wanted: bytes, otherwise: str) -> None:
        await self._until(len(wanted))
        if not self._held.startswith(wanted):
            raise invalid("$", otherwise)
        del self._held[: len(wanted)]

    async def _until(self, size: int) -> None:
        while len(self._held) < size:
            await self._more()

    async def _more(self) -> None:
        data = await self._content.readany()
        if not data and self._content.at_eof():
            raise invalid("$", "ends before its last part does")
        self._held += data


def _head_of(head: bytes) -> _Head:
    lines = (line.partition(b":") for line in head.split(b"\r\n") if line)
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    name = _name_of(fields.get(b"content-disposition", b""))
    if name is None:
        raise invalid("$", "has a part whose Content-Disposition is not form-data with a name")
    return _Head(
        name.decode(errors="replace"),
        fields.get(b"content-type", b"application/json"),
        fields.get(b"content-transfer-encoding", b"binary").lower(),
    )


def _name_of(disposition: bytes) -> bytes | None:
    kind, semicolon, _ = disposition.partition(b";")
    if kind.strip().lower() != b"form-data" or not semicolon:
        return None
    name, at = None, len(kind)
    while at < len(disposition):
        parameter = _PARAMETER.match(disposition, at)
        if parameter is None:
            return None
        if parameter[1].lower() == b"name":
            if name is not None:
                return None
            name = parameter[2] if parameter[3] is None else parameter[3]
        at = parameter.end()
    return name
