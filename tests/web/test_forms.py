"""Forms that no browser sends: each is refused by the part that is wrong, and nothing is decoded."""

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forms import BOUNDARY, TYPE, creative, form, media, part
from service import MEDIA_MAX_BYTES, Reply, Service
from waiting import until

from adserve.creatives.uploads import Uploads
from adserve.store.media import Media
from adserve.web import forms

PICTURE = b"\r\n--" + BOUNDARY.encode()[:-1] + b"!\r\n" * 100
"""Nearly a boundary, over and over."""
DELIMITER = b"--" + BOUNDARY.encode()


class Taken(list[bytes]):
    """What would have been decoded."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, service: Service) -> Taken:
    seen = Taken()
    stored = service.media.put

    async def take(_self: Uploads, _kind: str, file: Any) -> str:
        seen.append(file.read())
        return await stored(seen[-1], "image/png", 1, 1)

    monkeypatch.setattr(Uploads, "take", take)
    return seen


@pytest.fixture
async def fields(service: Service) -> dict[str, Any]:
    body = await service.creative_body((await service.made("/v1/advertisers", {"name": "Kopi"}))["id"])
    del body["media"]
    return body


async def send(service: Service, body: bytes, content_type: str = TYPE, **headers: str) -> Reply:
    return await service.call("POST", "/v1/creatives", body, Content_Type=content_type, **headers)


async def test_the_parts_come_in_either_order_and_under_any_boundary(
    service: Service, taken: Taken, fields: dict[str, Any]
) -> None:
    parts = media(PICTURE), creative(fields)
    for chosen in (parts, parts[::-1]):
        for boundary in (BOUNDARY, "x", "y" * 70):
            body = form(*chosen, boundary=boundary, end=b"--")
            reply = await send(service, body, f'multipart/form-data; boundary="{boundary}"')
            assert reply.status == 201, reply
    assert taken == [PICTURE] * 6
    bare = [part("media", PICTURE), part("creative", creative(fields)[1])]
    assert (await send(service, form(*bare), "Multipart/Form-Data;charset=utf-8; boundary=x")).status == 400
    assert (
        await send(service, form(*bare, boundary="x"), "Multipart/Form-Data;charset=utf-8; boundary=x")
    ).status == 201


async def test_what_comes_byte_by_byte_is_the_same(
    service: Service, taken: Taken, fields: dict[str, Any]
) -> None:
    body = form(media(PICTURE), creative(fields))

    async def drip() -> Any:
        for byte in body:
            yield bytes([byte])

    headers = {"Content-Type": TYPE, "Authorization": f"Bearer {service.keys['operator']}"}
    async with service.client.post("/v1/creatives", data=drip(), headers=headers) as answer:
        assert answer.status == 201
    assert taken == [PICTURE]


def wrong(fields: dict[str, Any]) -> Iterator[tuple[bytes, int, str]]:
    """Bodies, and the status and the field of their refusals."""
    one, other = media(PICTURE), creative(fields)
    whole = form(one, other)
    yield form(one), 400, "$.creative"
    yield form(other), 400, "$.media"
    yield form(), 400, "$.media"
    yield form(one, one, other), 400, "$.media"
    yield form(other, one, other), 400, "$.creative"
    yield form(one, other, part("more", b"")), 400, "$.more"
    yield form(part("Media", PICTURE), other), 400, "$.Media"
    yield form(part("x" * 4_000, PICTURE), other), 400, "$." + "x" * forms.NAME_TOLD_MAX_LENGTH
    yield form(part("media", PICTURE, "Content-Transfer-Encoding: base64"), other), 415, "$.media"
    yield form(one, part("creative", other[1], "Content-Type: text/plain")), 415, "$.creative"
    yield (
        form(one, part("creative", other[1], "Content-Type: application/json; charset=utf-16")),
        415,
        "$.creative",
    )
    yield form(one, creative(b"\xff\xfe{}")), 400, "$.creative"
    yield form(one, creative(b"{")), 400, "$.creative"
    yield form(one, creative(b"[" * 60_000)), 400, "$.creative"
    yield form(one, creative([])), 400, "$.creative"
    yield form(one, creative(fields | {"media": "0" * 64})), 400, "$.creative.media"
    yield form(one, creative(fields | {"headline": ""})), 400, "$.creative.headline"
    yield form(one, creative(fields | {"headline": "\0"})), 400, "$.creative.headline"
    yield (
        form(one, creative(fields | {"landing_url": "https://user@example.com"})),
        400,
        "$.creative.landing_url",
    )
    yield form(one, creative(fields | {"advertiser": 999})), 400, "$.creative.advertiser"
    yield form(one, creative(fields | {"advertiser": None})), 400, "$.creative.advertiser"
    yield form(one, creative(b" " * (forms.FIELDS_MAX_BYTES + 1))), 413, "$.creative"
    yield form(media(bytes(MEDIA_MAX_BYTES + 1)), other), 413, "$.media"
    yield form((b"X: " + b"x" * forms.HEAD_MAX_BYTES + b"\r\n" + one[0], PICTURE), other), 400, "$"
    yield form((b"", PICTURE), other), 400, "$"
    yield form((b"Content-Disposition: attachment; name=media", PICTURE), other), 400, "$"
    yield form((b"Content-Disposition: form-data", PICTURE), other), 400, "$"
    yield b"", 400, "$"
    yield DELIMITER + b"junk\r\n" + whole, 400, "$"
    for cut in (1, len(DELIMITER), len(DELIMITER) + 1, 100, 300, len(whole) - 100, len(whole) - 5):
        yield whole[:cut], 400, "$"


async def test_a_wrong_form_is_refused_by_its_part(
    service: Service, taken: Taken, fields: dict[str, Any]
) -> None:
    for body, status, field in wrong(fields):
        reply = await send(service, body)
        assert (reply.status, reply.fields) == (status, [field]), body[:200]
        assert reply.headers["Content-Type"] == "application/problem+json"
    assert taken == []
    assert (await send(service, form(media(PICTURE), creative(fields)))).status == 201
    assert len(taken) == 1  # the control: what is right is taken


async def test_a_wrong_content_type_is_refused(
    service: Service, taken: Taken, fields: dict[str, Any]
) -> None:
    body = form(media(PICTURE), creative(fields))
    for content_type, status in (
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 71, 400),
        ("multipart/form-data; boundary=\u00fc", 400),
        ("multipart/mixed; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        ("image/png", 415),
    ):
        reply = await send(service, body, content_type)
        assert (reply.status, reply.fields) == (status, ["Content-Type"]), content_type
    assert taken == []
    reply = await service.call("POST", "/v1/campaigns", body, Content_Type=TYPE)
    assert (reply.status, reply.fields) == (415, ["Content-Type"])  # the others take JSON alone


async def test_a_form_comes_as_it_is(service: Service, taken: Taken, fields: dict[str, Any]) -> None:
    packed = gzip.compress(form(media(bytes(1_000)), creative(fields)))
    reply = await send(service, packed, Content_Encoding="gzip")
    assert (reply.status, reply.fields, taken) == (415, ["Content-Encoding"], [])


async def raw(service: Service, *sent: bytes, length: int, end: bool = True) -> bytes:
    """The status of the answer to a body that is `sent` and no more."""
    url = service.client.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST /v1/creatives HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.keys['operator']}\r\n"
        f"Content-Type: {TYPE}\r\nContent-Length: {length}\r\n\r\n"
    )
    try:
        writer.write(head.encode())
        for data in sent:
            writer.write(data)
            await writer.drain()
        if end:
            writer.write_eof()
        return (await reader.readline())[9:12]
    finally:
        writer.close()


async def test_a_form_that_is_too_large_by_its_length_is_not_read(service: Service, taken: Taken) -> None:
    assert await raw(service, length=10 * MEDIA_MAX_BYTES, end=False) == b"413"


def partial(folder: Path) -> list[Path]:
    return list(folder.rglob("partial*"))


async def test_a_form_that_breaks_off_or_does_not_come_leaves_nothing(
    service: Service, taken: Taken, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = form(creative(fields), media(PICTURE * 1_000))
    assert await raw(service, body[:50_000], length=len(body)) in (b"400", b"")
    with monkeypatch.context() as hurried:
        hurried.setattr(forms, "FORM_READ_TIMEOUT_S", 0.2)
        assert await raw(service, body[:50_000], length=len(body), end=False) == b"408"
    assert taken == []
    assert partial(tmp_path) == []
    assert await raw(service, body, length=len(body), end=False) == b"201"


async def test_too_many_forms_at_once_are_sent_away(
    service: Service, taken: Taken, fields: dict[str, Any]
) -> None:
    """Before they are read; and one key cannot take the places of all."""
    body = form(media(PICTURE), creative(fields))
    waiting = [
        asyncio.create_task(raw(service, body[:-10], length=len(body), end=False))
        for _ in range(forms.FORMS_OF_ONE_AT_ONCE)
    ]
    [inside] = [operation.form._inside for operation in service.operations if operation.form is not None]
    await until(lambda: inside.total() == forms.FORMS_OF_ONE_AT_ONCE)
    reply = await send(service, body)
    assert (reply.status, reply.headers["Retry-After"]) == (503, str(forms.RETRY_AFTER_S))
    another = await service.issue("operator")
    assert (await service.call("POST", "/v1/creatives", body, key=another, Content_Type=TYPE)).status == 201
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await until(lambda: inside.total() == 0)


async def test_a_disk_that_is_full_is_told_as_such(
    service: Service, taken: Taken, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = form(media(PICTURE), creative(fields))
    [taking] = [operation.form for operation in service.operations if operation.form is not None]
    with monkeypatch.context() as full:
        full.setattr(taking, "_scratch", lambda: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115 - who asks closes it
        reply = await send(service, body)
    assert (reply.status, "Retry-After" in reply.headers, taken) == (503, True, [])
    with monkeypatch.context() as broken:
        broken.setattr(service.media, "_home", Path("/proc/no such folder"))
        assert (await send(service, body)).status == 503
    assert (await send(service, body)).status == 201


async def test_a_scratch_file_has_no_name(service: Service) -> None:
    media: Media = service.media
    with media.scratch() as file:
        file.write(b"x")
        file.flush()
        assert partial(media._home) == []
