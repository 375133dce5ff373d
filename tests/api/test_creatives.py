import hashlib

from service import PIXEL, Service

SHA = hashlib.sha256(PIXEL).hexdigest()


async def advertiser(service: Service) -> int:
    made: int = (await service.made("/v1/advertisers", {"name": "Kopi Rana"}))["id"]
    return made


async def test_a_change_of_a_creative_is_a_new_revision(service: Service) -> None:
    body = await service.creative_body(await advertiser(service), body="", headline="Ünïcode 😀")
    created = await service.made("/v1/creatives", body)
    assert {name: created[name] for name in body} == body
    assert created["revision"] == 1
    path = f"/v1/creatives/{created['id']}"
    changed = (await service.call("PATCH", path, {"headline": "Faster."}, If_Match='"1"')).body
    assert (changed["revision"], changed["headline"]) == (2, "Faster.")
    assert changed["landing_url"] == created["landing_url"]
    paused = (await service.call("POST", f"{path}/pause")).body
    assert (paused["revision"], paused["status"]) == (2, "paused")


async def test_a_bad_creative_is_refused_by_field(service: Service) -> None:
    owner = await advertiser(service)
    bad = [
        ({"kind": "audio"}, "$.kind"),
        ({"media": "0" * 64}, "$.media"),
        ({"media": "../../etc/passwd"}, "$.media"),
        ({"headline": ""}, "$.headline"),
        ({"headline": "x" * 101}, "$.headline"),
        ({"call_to_action": "Shop now"}, "$.call_to_action"),
        ({"advertiser": 999}, "$.advertiser"),
        *(
            ({"landing_url": url}, "$.landing_url")
            for url in (
                "javascript:alert(1)",
                "https://",
                "https:///path",
                "//example.com",
                "ftp://example.com",
                "https://user:secret@example.com",
                "https://example.com\\@evil.test",
                "https://example.com/\r\nSet-Cookie: a=b",
                "https://example.com/\n",
                "https://example.com/a b",
                "https://[::1",
                "https://example.com:99999",
                "https://example.com/" + "x" * 2_000,
            )
        ),
    ]
    for change, field in bad:
        reply = await service.call("POST", "/v1/creatives", await service.creative_body(owner) | change)
        assert (reply.status, reply.fields) == (400, [field]), change


async def test_media_are_served_by_their_hash_and_for_ever(service: Service) -> None:
    assert await service.media.put(PIXEL, "image/png", 1, 1) == SHA
    assert await service.media.put(PIXEL, "image/png", 1, 1) == SHA
    reply = await service.call("GET", f"/media/{SHA}", key=None)
    assert (reply.status, reply.raw) == (200, PIXEL)
    assert reply.headers["Content-Type"] == "image/png"
    assert "immutable" in reply.headers["Cache-Control"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    for path in (f"/media/{'0' * 64}", "/media/x", "/media/../keys", f"/media/{SHA}.png"):
        reply = await service.call("GET", path, key=None)
        assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json")


async def test_an_ad_joins_things_of_one_advertiser(service: Service) -> None:
    ids, other = await service.plant(), await service.plant()
    ad = (await service.call("GET", f"/v1/ads/{ids['ad']}")).body
    assert {name: ad[name] for name in ("advertiser", "campaign", "creative")} == {
        name: ids[name] for name in ("advertiser", "campaign", "creative")
    }
    for campaign, creative, field in (
        (ids["campaign"], other["creative"], "$.creative"),
        (ids["campaign"], 999, "$.creative"),
        (999, ids["creative"], "$.campaign"),
    ):
        reply = await service.call("POST", "/v1/ads", {"campaign": campaign, "creative": creative})
        assert (reply.status, reply.fields) == (400, [field])
    path = f"/v1/ads/{ids['ad']}"
    reply = await service.call("PATCH", path, {"creative": other["creative"]}, If_Match="*")
    assert (reply.status, reply.fields) == (400, ["$.creative"])
    listed = (await service.call("GET", f"/v1/ads?campaign={ids['campaign']}")).body["items"]
    assert [ad["id"] for ad in listed] == [ids["ad"]]
