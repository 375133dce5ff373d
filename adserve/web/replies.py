"""Answers in JSON, whole things with their ETag, and the conditions under which they change."""

from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from adserve.store.errors import Outdated
from adserve.store.idempotency import Answer
from adserve.web.problems import UNCONDITIONAL, about

JSON = "application/json"
NOT_KEPT = {"Cache-Control": "no-store"}
"""Answers hold money or secrets, and are true just now."""

Item = TypeVar("Item")


class Page(Struct, Generic[Item], frozen=True):
    """`next` is null on the last page."""

    items: list[Item]
    next: str | None


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body, headers = msgspec.json.encode(value), NOT_KEPT | (headers or {})
    return web.Response(body=body, status=status, content_type=JSON, headers=headers)


def etag(version: int) -> str:
    return f'"{version}"'


def thing_response(thing: Any, version: int) -> web.Response:
    return json_response(thing, headers={"ETag": etag(version)})


def created(thing: Any, location: str, version: int | None = None) -> Answer:
    return Answer(201, msgspec.json.encode(thing), None if version is None else etag(version), location)


def answer_response(answer: Answer) -> web.Response:
    headers = {"ETag": answer.etag, "Location": answer.location}
    given = NOT_KEPT | {name: value for name, value in headers.items() if value is not None}
    return web.Response(body=answer.body, status=answer.status, content_type=JSON, headers=given)


def required_version(request: web.Request) -> str:
    """The request's If-Match."""
    condition = request.headers.get("If-Match")
    if condition is None:
        raise about(UNCONDITIONAL, "If-Match", "is missing: send the ETag of what you have read")
    return condition


def check_version(condition: str, version: int) -> None:
    wanted = [tag.strip() for tag in condition.split(",")]
    if "*" not in wanted and etag(version) not in wanted:
        raise Outdated("is of an earlier version: read the thing again, and send its new ETag")
