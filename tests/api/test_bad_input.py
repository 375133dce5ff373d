"""Every operation of the table against what a caller can get wrong. Each answer is a problem that says what."""

import asyncio
import gzip
import re
import time
import zlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from service import BODY_MAX_BYTES, Reply, Service

from adserve.access.keys import Scope
from adserve.web.operations import Operation

DECISION = "01a22583-9bb7-7694-9d8e-a485ade87604"
PATHS = {
    "{id}": "1",
    "{ticket}": "t",
    "{decision}": DECISION,
    "{event}": DECISION,
    "{sha256}": "0" * 64,
    "{asset}": "none.js",
    "{path}": "x",
}
REPORT_ONE_BY_ONE = ("reportEvents", "reportOutcomes")


def url(operation: Operation) -> str:
    path = operation.path
    for name, value in PATHS.items():
        path = path.replace(name, value)
    return path


def key(service: Service, operation: Operation) -> str | None:
    return next((scope for scope in service.keys if scope in operation.scopes), None)


def check(reply: Reply, status: int, *fields: str) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply
    assert reply.body["status"] == status
    assert reply.body["title"]
    assert reply.body["detail"]
    assert reply.body["type"].startswith("urn:adserve:problem:")
    assert reply.fields == list(fields)


async def send(service: Service, operation: Operation, body: Any = None, **headers: str) -> Reply:
    more = {"If_Match": "*"} if operation.conditional else {}
    sender = key(service, operation)
    return await service.call(operation.method, url(operation), body, key=sender, **more | headers)


async def test_every_body_is_checked_as_a_whole(service: Service) -> None:
    for operation in service.operations:
        if operation.body is None:
            continue
        for body, status in (
            (b"", 400),
            (b"{", 400),
            (b"nonsense", 400),
            (b'{"a": 1} trailing', 400),
            (b"\xef\xbb\xbf{}", 400),
            (b'"\xff"', 400),
            (b"[" * 100_000, 400),
            (b'{"a":' * 20_000, 400),
            (b"null", 400),
            (b"[]", 400),
            (b"7", 400),
            (b" " * (BODY_MAX_BYTES + 1), 413),
        ):
            reply = await send(service, operation, body)
            assert reply.status == status, (operation.id, body[:40], reply)
            check(reply, status, *reply.fields)
        unknown = await send(service, operation, {"no_such_field": 1})
        assert unknown.status == 400
        assert unknown.fields[0].startswith("$.")


async def test_a_body_says_that_it_is_json(service: Service) -> None:
    for operation in service.operations:
        if operation.body is not None:
            for kind in (
                "text/plain",
                "application/x-www-form-urlencoded",
                "application/json; charset=latin-1",
                "application/json; charset*=utf-16''x",
            ):
                check(await send(service, operation, b"{}", Content_Type=kind), 415, "Content-Type")
    operation = next(of for of in service.operations if of.id == "slots")
    for charset in ("utf8", "Utf-8"):
        kind = f"application/json; charset={charset}"
        check(await send(service, operation, b"{}", Content_Type=kind), 400, "$.viewer")


async def test_compressed_bodies_count_by_their_size_unpacked(service: Service) -> None:
    operation = next(of for of in service.operations if of.id == "createAdvertiser")
    bomb = gzip.compress(b" " * (50 * BODY_MAX_BYTES))
    assert len(bomb) < BODY_MAX_BYTES
    check(await send(service, operation, bomb, Content_Encoding="gzip"), 413)
    good = gzip.compress(b'{"name": "Kopi"}')
    for packed, coding in ((good, "gzip"), (zlib.compress(b'{"name": "Kopi"}'), "Deflate")):
        assert (await send(service, operation, packed, Content_Encoding=coding)).status == 201
    for broken in (b"not gzip", good[:-9], good + b"more"):
        check(await send(service, operation, broken, Content_Encoding="gzip"), 400, "Content-Encoding")
    for unknown in ("br", "zstd", "compress", "gzip, gzip"):
        check(await send(service, operation, good, Content_Encoding=unknown), 415, "Content-Encoding")


async def test_a_body_that_is_refused_is_not_unpacked(service: Service) -> None:
    """Not even while the rest of it is read and thrown away."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    million = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = gzip.compress(b"")[:10] + million * 1_000
    before_s = time.thread_time()
    reply = await service.call("POST", "/v1/keys", bomb, key=None, Content_Encoding="gzip")
    check(reply, 401)
    check(await service.call("POST", "/v1/keys", bomb, key="operator", Content_Encoding="gzip"), 413)
    assert (await service.call("GET", "/healthz", key=None)).status == 200
    assert time.thread_time() - before_s < 0.5


async def test_every_path_refuses_other_methods_and_says_which_it_takes(service: Service) -> None:
    allowed: dict[str, set[str]] = {}
    for operation in service.operations:
        allowed.setdefault(url(operation), set()).add(operation.method)
    for path, methods in allowed.items():
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - methods:
            reply = await service.call(method, path, key="operator")
            assert reply.status == 405, (method, path)
            assert set(reply.headers["Allow"].split(",")) == methods
            if method != "HEAD":
                check(reply, 405)


async def test_every_operation_asks_for_its_key(service: Service) -> None:
    for operation in service.operations:
        if not operation.scopes:
            continue
        reply = await service.call(operation.method, url(operation), key=None)
        check(reply, 401)
        assert "WWW-Authenticate" in reply.headers
        other = "feed" if Scope.REVIEWER in operation.scopes else "reviewer"
        reply = await service.call(operation.method, url(operation), key=other)
        check(reply, 403)
        assert all(f"'{scope}'" in reply.body["detail"] for scope in operation.scopes)


async def test_unknown_query_parameters_are_refused_by_name(service: Service) -> None:
    for operation in service.operations:
        if operation.query.__struct_config__.forbid_unknown_fields:
            path = f"{url(operation)}?no_such=1"
            reply = await service.call(operation.method, path, key=key(service, operation))
            check(reply, 400, "?no_such")


async def test_what_is_not_there_is_a_problem_too(service: Service) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/campaigns/",
        "/v1/campaigns/x",
        "/v1/campaigns/0",
        f"/v1/ads/{1 << 60}",
        "/%00",
        "/é",
    ):
        check(await service.call("GET", path), 404)
    for operation in service.operations:
        if "{id}" in operation.path and operation.method == "GET":
            check(await send(service, operation), 404)


def wrong_values(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """The example with one part replaced by what no part may be, and where."""
    yield {"no_such": 1}, path
    match value:
        case dict():
            for name, part in value.items():
                for wrong, where in wrong_values(part, f"{path}.{name}"):
                    yield value | {name: wrong}, where
        case list() if value:
            for wrong, where in wrong_values(value[0], f"{path}[0]"):
                yield [wrong, *value[1:]], where


def names(field: str, where: str) -> bool:
    """Whether a reported field is the one, its parent, or what is missing in it. A path tells no dict's keys."""
    pattern = re.escape(field).replace(r"\[\.\.\.\]", r"\.\w+")
    parent = where.rpartition(".")[0] or "$"
    return bool(re.match(pattern, f"{where}.no_such")) or field.startswith(parent)


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_every_part_of_every_example_is_checked_and_named(service: Service, method: str) -> None:
    tried = 0
    for operation in service.operations:
        if operation.example is None or operation.method != method or operation.id in REPORT_ONE_BY_ONE:
            continue
        for wrong, where in wrong_values(operation.example, "$"):
            reply = await send(service, operation, orjson.dumps(wrong))
            if "context" in where and reply.status == 200:
                continue  # an unknown field of a context that is an object
            assert reply.status == 400, (operation.id, where, reply)
            assert names(reply.fields[0], where), (reply.fields, where)
            tried += 1
    assert tried > 5


async def test_an_unexpected_failure_tells_nothing_but_a_number(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret: viewer u-123 at /i.gif?e=token")

    monkeypatch.setattr(service.live, "_view", None)
    service.checks["broken"] = fail
    reply = await service.call("GET", "/readyz", key=None)
    check(reply, 500)
    assert b"secret" not in reply.raw
    (record,) = (record for record in caplog.records if record.name == "adserve.web.problems")
    assert record.instance == reply.body["instance"]


async def test_what_is_not_http_leaves_no_address_and_no_ticket_in_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    url = service.client.make_url("/")
    for request in (
        b"BREW /i.gif?e=a-ticket HTTP/1.1\r\n\r\n",
        b"GET /i.gif?e=a-ticket HTTP/1.1\r\nbad header\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(request)
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
        await writer.wait_closed()
    assert "a-ticket" not in caplog.text
    assert "127.0.0.1" not in caplog.text
