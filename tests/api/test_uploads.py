"""Creatives that bring their media."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from forms import TYPE, creative, form, media
from PIL import Image
from service import Reply, Service

from adserve.creatives.uploads import Uploads
from adserve.store import media as stored_media

CREATIVE = {
    "kind": "image",
    "headline": "Slow down.",
    "call_to_action": "shop_now",
    "landing_url": "https://example.com/kopi",
}


def picture(colour: str = "red", form: str = "PNG", size: tuple[int, int] = (30, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


async def upload(
    service: Service, data: bytes, key: str = "operator", headers: dict[str, str] | None = None, **fields: Any
) -> Reply:
    body = form(media(data), creative(CREATIVE | fields))
    return await service.call("POST", "/v1/creatives", body, key=key, Content_Type=TYPE, **(headers or {}))


async def advertiser(service: Service) -> int:
    made: int = (await service.made("/v1/advertisers", {"name": "Kopi"}))["id"]
    return made


def partial(home: Path) -> list[Path]:
    return list(home.rglob("partial*"))


def names(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("??/*"))


async def test_an_upload_is_served_as_its_rendition(service: Service, tmp_path: Path) -> None:
    owner, sent = await advertiser(service), picture(size=(3_000, 100)) + b"hidden behind it"
    reply = await upload(service, sent, advertiser=owner)
    assert reply.status == 201, reply
    made = reply.body
    assert {name: made[name] for name in CREATIVE} == CREATIVE
    assert made == (await service.call("GET", reply.headers["Location"])).body
    served = await service.call("GET", f"/media/{made['media']}", key=None)
    assert (served.status, served.headers["Content-Type"]) == (200, "image/png")
    assert hashlib.sha256(served.raw).hexdigest() == made["media"]
    assert b"hidden" not in served.raw
    async with service.pools.operator.acquire() as connection:
        row = await connection.fetchrow("SELECT * FROM media")
    assert (row["sha256"], row["bytes"], row["width"], row["height"]) == (
        made["media"],
        len(served.raw),
        1_920,
        64,
    )
    part = await service.call("GET", f"/media/{made['media']}", key=None, Range="bytes=1-3")
    assert (part.status, part.raw) == (206, b"PNG")
    again = await upload(service, sent, advertiser=owner, headline="Again.")
    assert (again.body["media"], again.body["id"]) == (made["media"], made["id"] + 1)
    assert names(tmp_path) == [f"{made['media']}.png"]
    # Stored once, it may be named by JSON, too.
    named = await service.made("/v1/creatives", CREATIVE | {"advertiser": owner, "media": made["media"]})
    assert named["media"] == made["media"]


async def test_what_is_refused_is_not_stored(service: Service, tmp_path: Path) -> None:
    owner = await advertiser(service)
    for data, kind in (
        (b"garbage", "image"),
        (b"", "image"),
        (picture(), "video"),
        (picture()[:60], "image"),
    ):
        reply = await upload(service, data, advertiser=owner, kind=kind)
        assert (reply.status, reply.fields) == (400, ["$.media"]), (data, reply)
        assert kind in reply.body["errors"][0]["reason"]
    assert names(tmp_path) == []
    assert (await service.call("GET", "/v1/creatives")).body["items"] == []


async def test_an_upload_may_be_sent_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, once = await advertiser(service), {"Idempotency_Key": "first"}
    first = await upload(service, picture(), advertiser=owner, headers=once)
    decoded = 0
    take = Uploads.take

    async def counted(*arguments: Any) -> str:
        nonlocal decoded
        decoded += 1
        return await take(*arguments)

    monkeypatch.setattr(Uploads, "take", counted)
    again = await upload(service, picture(), advertiser=owner, headers=once)
    assert (again.status, again.raw) == (first.status, first.raw) == (201, first.raw)
    for changed in (
        await upload(service, picture("blue"), advertiser=owner, headers=once),
        await upload(service, picture(), advertiser=owner, headers=once, headline="Other."),
        await service.call(
            "POST",
            "/v1/creatives",
            CREATIVE | {"advertiser": owner, "media": first.body["media"]},
            **once,
        ),
    ):
        assert (changed.status, changed.fields) == (409, ["Idempotency-Key"])
    reply = await upload(service, picture(), advertiser=owner, headers={"Idempotency_Key": "x" * 201})
    assert (reply.status, reply.fields) == (400, ["Idempotency-Key"])
    assert decoded == 0
    assert (await upload(service, picture(), advertiser=owner)).body["id"] == first.body["id"] + 1
    assert decoded == 1  # the control: what is new is decoded


async def test_a_tenant_uploads_for_itself_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = await advertiser(service), await advertiser(service)
    key = await service.issue("advertiser", advertiser=own)
    made = (await upload(service, picture(), key)).body
    assert made["advertiser"] == own
    assert (await upload(service, picture(), key, advertiser=own)).body["advertiser"] == own
    monkeypatch.delattr(Uploads, "take")  # no such upload comes as far
    for who, fields in ((key, {"advertiser": other}), ("operator", {"advertiser": 999}), ("operator", {})):
        reply = await upload(service, picture(), who, **fields)
        assert (reply.status, reply.fields) == (400, ["$.creative.advertiser"])
    for scope, status in (("feed", 403), ("nobody", 401)):
        assert (await upload(service, picture(), scope)).status == status


async def test_a_creative_is_of_the_kind_of_its_media(service: Service) -> None:
    owner = await advertiser(service)
    made = (await upload(service, picture(), advertiser=owner)).body
    named = CREATIVE | {"advertiser": owner, "media": made["media"]}
    for reply in (
        await service.call("POST", "/v1/creatives", named | {"kind": "video"}),
        await service.call("PATCH", f"/v1/creatives/{made['id']}", {"kind": "video"}, If_Match="*"),
    ):
        assert (reply.status, reply.fields) == (400, ["$.kind"])
    assert (await service.call("POST", "/v1/creatives", named)).status == 201


async def test_partial_media_of_the_dead_are_swept(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the moment before a medium gets its name, a process leaves a partial file."""

    class Killed(BaseException):
        pass

    def dies(_descriptor: int) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(stored_media.os, "fsync", dies)
        dying.setattr(stored_media.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            await service.media.put(b"x", "image/png", 1, 1)
    [left] = partial(tmp_path)
    written_ms = round(left.stat().st_mtime * 1_000)
    await service.media.sweep(written_ms)
    assert left.exists()  # it could be a sibling's that is being written
    kept = await service.media.put(b"y", "image/png", 1, 1)
    await service.media.sweep(written_ms + 2 * stored_media.PARTIAL_FOR_S * 1_000)
    assert not left.exists()
    assert names(tmp_path) == [f"{kept}.png"]
