"""Decodes bodies and queries into typed values, and says which field is wrong."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from adserve.web.problems import CONTENT, INVALID, SLOW, TOO_LARGE, FieldError, Problem, about, invalid

BODY_READ_TIMEOUT_S = 15.0

Body = TypeVar("Body")

_PATH = re.compile(r" - at (?:`key` in )?`(\$[^`]*)`$")
_NAMED = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$", re.DOTALL)
_NUL = b"\\u0000"
_HIGH, _LOW, _EITHER = (
    rb"u[dD][" + digits + rb"][0-9a-fA-F]{2}" for digits in (b"89abAB", b"c-fC-F", b"89a-fA-F")
)
_ESCAPE = re.compile(rb"\\(?:[^u]|" + _HIGH + rb"\\" + _LOW + rb"|(?P<lone>" + _EITHER + rb"))")
UTF_8 = frozenset({"", "utf-8", "utf8"})
_INTEGER = re.compile(r"-?[0-9]+")
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_anything = msgspec.json.Decoder()


async def read_body(request: web.Request, most: int) -> bytes:
    """The whole body, of at most `most` bytes (also when it was compressed)."""
    coding = (request.headers.get("Content-Encoding") or "identity").lower()
    if coding not in _PACKED and coding != "identity":
        raise about(CONTENT, "Content-Encoding", "is neither gzip nor deflate")
    raw = await _read(request, most)
    return _unpacked(raw, most) if coding in _PACKED else raw


async def _read(request: web.Request, most: int) -> bytes:
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if request.content.is_eof():
        return await _collect(request, most)
    async with arriving(BODY_READ_TIMEOUT_S):
        return await _collect(request, most)


@asynccontextmanager
async def arriving(within_s: float) -> AsyncIterator[None]:
    """Refuses a body that is not read to its end inside, in time."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise Problem(SLOW, f"The body did not arrive within {within_s:g} s.") from error
    except ConnectionError as error:
        raise Problem(INVALID, "The body broke off.") from error


async def _collect(request: web.Request, most: int) -> bytes:
    body = b""
    while not request.content.at_eof():
        body += await request.content.readany()
        if len(body) > most:
            raise _too_large(most)
    return body


def _unpacked(packed: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = inflater.decompress(packed, most + 1)
    except zlib.error as error:
        raise invalid("Content-Encoding", "is not how the body is packed") from error
    if len(plain) > most:
        raise _too_large(most)
    if not inflater.eof or inflater.unused_data:
        raise invalid("Content-Encoding", "is of a body that ends elsewhere than it says")
    return plain


def _too_large(most: int) -> Problem:
    return Problem(TOO_LARGE, f"At most {most:,} bytes are accepted here.")


def check_is_json(request: web.Request, otherwise: str = "is not application/json") -> None:
    header = request.headers.get("Content-Type", "")
    if header == "application/json":
        return  # nearly always, and without parsing it
    kind, charset = media_type(header)
    if kind != "application/json":
        raise about(CONTENT, "Content-Type", otherwise)
    if charset not in UTF_8:
        raise about(CONTENT, "Content-Type", "names another charset than UTF-8")


def media_type(header: str) -> tuple[str, str]:
    """The type that a Content-Type names, and its charset, empty without one; in small letters. The framework's own parser
    raises whatever it likes."""
    kind, *parameters = header.lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip(" \t*") == "charset":
            return kind.strip(), value.strip(' \t"')
    return kind.strip(), ""


class BodyDecoder(Generic[Body]):
    """Decodes JSON into one type. `root` is what its fields are below, when a refusal names one."""

    def __init__(self, type_: type[Body], root: str = "$") -> None:
        self._decoder = msgspec.json.Decoder(type_)
        self._root = root

    def decode(self, raw: bytes) -> Body:
        body = decode_json(self._decoder, raw, self._root)
        if _NUL in raw:
            _refuse_nul(raw, self._root)
        return body


def decode_json(decoder: msgspec.json.Decoder[Body], raw: bytes, root: str = "$") -> Body:
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError) as error:
        wrong = field_error(error, root)
        raise invalid(wrong.field, wrong.reason) from error


def without_lone_surrogates(raw: bytes) -> bytes:
    """U+FFFD in place of each surrogate escape without its other half, in as many bytes. It is valid JSON, and what JavaScript
    makes of half an emoji, but the decoder refuses it."""
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["lone"] else escape[0], raw)


def field_error(error: Exception, root: str = "$") -> FieldError:
    """Which field a decoder stumbled over, and why."""
    if isinstance(error, RecursionError):
        return FieldError(root, "is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return FieldError(root, "is not valid UTF-8")
    message = str(error)
    at = _PATH.search(message)
    path, reason = (at[1], message[: at.start()]) if at else ("$", message)
    named = _NAMED.match(reason)
    if named:
        path = f"{path}.{named[1]}"
    return FieldError(root + path.removeprefix("$"), reason)


def _refuse_nul(raw: bytes, root: str) -> None:
    """PostgreSQL's text cannot hold U+0000, so no string of ours does."""
    for path in _paths_with_nul(decode_json(_anything, raw), root):
        raise invalid(path, "contains the character U+0000")


def _paths_with_nul(value: Any, path: str) -> Iterator[str]:
    match value:
        case str() if "\0" in value:
            yield path
        case list():
            for index, item in enumerate(value):
                yield from _paths_with_nul(item, f"{path}[{index}]")
        case dict():
            for key, item in value.items():
                if "\0" in key:
                    yield f"{path}.{key}".replace("\0", "\\u0000")
                yield from _paths_with_nul(item, f"{path}.{key}")


Query = TypeVar("Query", bound=Struct)


def decode_query(request: web.Request, type_: type[Query]) -> Query:
    """The query's parameters, each given once. Where the type ignores others, they may be whatever they like."""
    known = type_.__struct_encode_fields__
    ignores_others = not type_.__struct_config__.forbid_unknown_fields
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if ignores_others and name not in known:
            continue
        if "\0" in value or "�" in value:
            raise invalid(f"?{name}", "is not text in UTF-8 without U+0000")
        if name in given:
            raise invalid(f"?{name}", "is given twice")
        if ":" not in value and name in _moments(type_):
            raise invalid(f"?{name}", "is not a time in RFC 3339")
        given[name] = value
    try:
        query = msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        _refuse_query(error)
    for name, field in zip(known, type_.__struct_fields__, strict=True):
        if name in given:
            _check_as_written(f"?{name}", given[name], getattr(query, field))
    return query


@cache
def _moments(type_: type[Struct]) -> frozenset[str]:
    """The parameters for which msgspec would also take a bare number, as the seconds of an epoch."""
    return frozenset(
        field.encode_name for field in msgspec.structs.fields(type_) if "datetime.datetime" in str(field.type)
    )


def _check_as_written(parameter: str, text: str, value: object) -> None:
    """What msgspec makes of text beyond what is meant: `null` is nothing, and 2e1 is 20."""
    if value is None:
        raise invalid(parameter, "is `null`: leave it out instead")
    if type(value) is int and not _INTEGER.fullmatch(text):
        raise invalid(parameter, "is not written as an integer")


def _refuse_query(error: msgspec.ValidationError) -> NoReturn:
    wrong = field_error(error)
    name = wrong.field.removeprefix("$.")
    raise invalid(
        f"?{name}", wrong.reason.replace("Object", "Query").replace("field", "parameter")
    ) from error
