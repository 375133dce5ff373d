"""Forms of two parts (multipart/form-data, RFC 7578): a file, which goes to disk as it comes, and JSON that says what it is."""

import asyncio
import hashlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO, Generic, NamedTuple, TypeVar

from aiohttp import StreamReader, web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from adserve.access.keys import Key
from adserve.domain.ids import KeyId
from adserve.store.errors import UnknownReference
from adserve.web.bodies import UTF_8, BodyDecoder, arriving, media_type
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

_BOUNDARY = re.compile("[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_AS_IT_IS = frozenset({"7bit", "8bit", "binary"})

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
        boundary = parse_options_header(request.headers["Content-Type"])[1].get("boundary", "")
        if not _BOUNDARY.fullmatch(boundary):
            raise invalid("Content-Type", "names no boundary as in RFC 2046")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise about(CONTENT, "Content-Encoding", "is not for forms: send them as they are")
        if (request.content_length or 0) > self._file_max_bytes + FIELDS_MAX_BYTES + 3 * HEAD_MAX_BYTES:
            raise self._too_large()
        with self._admitted(caller.id), self._scratch() as file:
            async with arriving(FORM_READ_TIMEOUT_S):
                sha256, raw = await self._read(request.content, boundary, file)
            fields = self._decode(raw)
            file.seek(0)
            yield Received(fields, file), b"%b\0%b" % (sha256.encode(), raw)

    async def _read(self, content: StreamReader, boundary: str, file: BinaryIO) -> tuple[str, bytes]:
        """The file's SHA-256, and the fields as they came."""
        name, seen, raw, upload = "", set[str](), bytearray(), _Upload(file)
        async for event in _events(content, boundary):
            if isinstance(event, MultipartSegment):
                name = self._begun(event, seen)
            elif event is None:
                continue
            elif name == self.file:
                upload.size += len(event)
                if upload.size > self._file_max_bytes:
                    raise self._too_large()
                await upload.add(event)
            else:
                raw += event
                if len(raw) > FIELDS_MAX_BYTES:
                    raise about(TOO_LARGE, f"$.{self.fields}", f"is larger than {FIELDS_MAX_BYTES:,} bytes")
        for wanted in (self.file, self.fields):
            if wanted not in seen:
                raise invalid(f"$.{wanted}", "is missing")
        return await upload.end(), bytes(raw)

    def _begun(self, part: MultipartSegment, seen: set[str]) -> str:
        name = part.name or ""
        if name not in (self.file, self.fields):
            raise invalid(f"$.{name[:NAME_TOLD_MAX_LENGTH]}", "is not a part of this form")
        if name in seen:
            raise invalid(f"$.{name}", "is there twice")
        if part.header("Content-Transfer-Encoding", "binary").lower() not in _AS_IT_IS:
            raise about(CONTENT, f"$.{name}", "is encoded: send its bytes as they are")
        if name == self.fields and (
            part.content_type not in (None, "application/json") or (part.charset or "").lower() not in UTF_8
        ):
            raise about(CONTENT, f"$.{name}", "is not application/json in UTF-8")
        seen.add(name)
        return name

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


class _Upload:
    """Goes to disk in large pieces, off the event loop."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()
        self._held = bytearray()

    async def add(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= WRITTEN_AT_ONCE_BYTES:
            await self._write()

    async def end(self) -> str:
        await self._write()
        return self._digest.hexdigest()

    async def _write(self) -> None:
        try:
            await asyncio.to_thread(self._write_all)
        except OSError as error:
            log.warning("an upload cannot be written", extra={"reason": repr(error)})
            raise Problem(UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_S)}) from error

    def _write_all(self) -> None:
        self._digest.update(self._held)
        with memoryview(self._held) as rest:
            at = 0
            while at < len(rest):
                at += self._file.write(rest[at:])
        self._held.clear()


async def _events(content: StreamReader, boundary: str) -> AsyncIterator[MultipartSegment | bytes | None]:
    """A part's head, its data piece by piece, and None at its end."""
    parser = PushMultipartParser(boundary, max_header_size=HEAD_MAX_BYTES, strict=True)
    try:
        async for event in parser.parse_async(content.read):
            yield event
    except MultipartError as error:
        raise invalid("$", f"is no form: {error}") from error


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
