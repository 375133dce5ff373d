"""What an advertiser made, from its making to its being shown, through HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from service import Reply, Service, campaign_body
from world import superuser

from adserve.store.books import reconciled

ASK = {"viewer": "u", "feed_length": 30, "max_ads": 2, "deadline_ms": 1_000}
REASON = "The landing page sells something else."


async def tenant(service: Service, name: str = "Kopi Rana") -> tuple[int, str]:
    """An advertiser and its key."""
    advertiser = (await service.made("/v1/advertisers", {"name": name}))["id"]
    return advertiser, await service.issue("advertiser", advertiser=advertiser)


async def waiting(service: Service, advertiser: int, key: str, **more: Any) -> int:
    """A creative that its advertiser made."""
    body = await service.creative_body(advertiser, **more)
    made: int = (await service.made("/v1/creatives", body, key=key))["id"]
    return made


async def listed(service: Service, query: str = "") -> list[dict[str, Any]]:
    reply = await service.call("GET", f"/v1/reviews{query}", key="reviewer")
    assert reply.status == 200, reply
    items: list[dict[str, Any]] = reply.body["items"]
    return items


async def judge(
    service: Service, creative: int, verdict: str = "approve", revision: int = 1, key: str = "reviewer"
) -> Reply:
    body = {"revision": revision} | ({"reason": REASON} if verdict == "reject" else {})
    return await service.call("POST", f"/v1/reviews/{creative}/{verdict}", body, key=key)


async def verdicts(service: Service, creative: int) -> list[tuple[int, str, str | None]]:
    rows = await service.pools.operator.fetch(
        "SELECT revision, verdict, reason FROM creative_verdicts WHERE creative_id = $1 ORDER BY id", creative
    )
    return [tuple(row) for row in rows]


async def shown(service: Service) -> set[int]:
    """The creatives of the ads that may be placed."""
    await service.step()
    return {ad.creative.id for ad in service.live.current().snapshot.ads}


async def advertise(service: Service, advertiser: int, key: str, creative: int) -> None:
    amount = {"amount": {"micros": 1_000_000_000, "currency": "USD"}}
    await service.made(f"/v1/advertisers/{advertiser}/deposits", amount)
    campaign = (await service.made("/v1/campaigns", campaign_body(None), key=key))["id"]
    await service.made("/v1/ads", {"campaign": campaign, "creative": creative}, key=key)


async def test_a_reviewer_sees_a_creative_as_it_would_be_shown(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key, body="Pour over.")
    (item,) = await listed(service)
    medium = (await service.creative_body(advertiser))["media"]
    since = item.pop("since")
    assert item == {
        "id": creative,
        "advertiser": {"id": advertiser, "name": "Kopi Rana"},
        "revision": 1,
        "kind": "image",
        "media_url": f"http://ads.test/media/{medium}",
        "width": 1080,
        "height": 1920,
        "headline": "Slow down.",
        "body": "Pour over.",
        "call_to_action": "shop_now",
        "landing_url": "https://example.com/kopi?a=1&b=%20",
        "status": "active",
        "state": "waiting",
        "verdict": None,
    }
    assert since.endswith("Z")


async def test_a_verdict_is_read_by_its_advertiser(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    path = f"/v1/creatives/{creative}"
    seen = (await service.call("GET", path, key=key)).body["review"]
    assert (seen["state"], seen["reason"]) == ("waiting", None)
    rejected = await judge(service, creative, "reject")
    assert (rejected.status, rejected.body["state"]) == (200, "rejected")
    verdict = {"revision": 1, "verdict": "rejected", "reason": REASON}
    assert rejected.body["verdict"] == verdict | {"at": rejected.body["since"]}
    told = {"state": "rejected", "reason": REASON, "at": rejected.body["since"]}
    for reply in (
        await service.call("GET", path, key=key),
        await service.call("POST", f"{path}/pause", key=key),
    ):
        assert reply.body["review"] == told
    (one,) = (await service.call("GET", "/v1/creatives", key=key)).body["items"]
    assert one["review"] == told
    changed = (await service.call("PATCH", path, {"headline": "Better."}, key=key, If_Match="*")).body
    assert (changed["revision"], changed["review"]["state"], changed["review"]["reason"]) == (
        2,
        "waiting",
        None,
    )
    (item,) = await listed(service)
    assert (item["revision"], item["status"], item["verdict"]["reason"]) == (2, "paused", REASON)


async def test_an_ad_is_placed_once_its_creative_is_approved_and_until_it_is_not(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    await advertise(service, advertiser, key, creative)
    await service.go_live()
    assert (await service.call("POST", "/v1/slots", ASK, key="feed")).body["no_fill"] == "no_eligible_ad"
    assert (await judge(service, creative)).status == 200
    assert await shown(service) == {creative}
    (placement,) = (await service.call("POST", "/v1/slots", ASK, key="feed")).body["placements"]
    changed = {"landing_url": "https://example.com/elsewhere"}
    path = f"/v1/creatives/{creative}"
    assert (await service.call("PATCH", path, changed, key=key, If_Match="*")).status == 200
    assert await shown(service) == set()
    assert (await judge(service, creative, revision=2)).status == 200
    assert await shown(service) == {creative}
    assert (await judge(service, creative, "reject", 2)).status == 200
    assert await shown(service) == set()
    # What was placed of the first revision is billed, and leads where that one led.
    event = {"events": [{"ticket": placement["ticket"], "kind": "impression"}]}
    (result,) = (await service.call("POST", "/v1/events", event, key="feed")).body["results"]
    assert (result["outcome"], result["billed"]["micros"]) == ("recorded", 1)
    service.landings._urls.clear()
    click = await service.call("GET", f"/r?e={placement['ticket']}", key=None)
    assert (click.status, click.headers["Location"]) == (302, "https://example.com/kopi?a=1&b=%20")
    assert (await reconciled(service.pools.analyst)).differences == ()


async def test_pausing_and_an_empty_change_leave_a_verdict_as_it_is(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    await advertise(service, advertiser, key, creative)
    await judge(service, creative)
    path = f"/v1/creatives/{creative}"
    for verb in ("pause", "resume"):
        await service.call("POST", f"{path}/{verb}", key=key)
    same = {"headline": "Slow down."}
    for changes in ({}, same):
        changed = (await service.call("PATCH", path, changes, key=key, If_Match="*")).body
        assert (changed["revision"], changed["review"]["state"]) == (1, "approved")
    assert await shown(service) == {creative}
    assert await verdicts(service, creative) == [(1, "approved", None)]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "video"},
        {"media": b"another picture"},
        {"headline": "x"},
        {"body": "x"},
        {"call_to_action": "learn_more"},
        {"landing_url": "https://example.com/x"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_whatever_is_shown_is_looked_at_again(service: Service, change: dict[str, Any]) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    await judge(service, creative)
    if "media" in change:
        change = {"media": await service.media.put(change["media"], "image/png", 1080, 1920)}
    if "kind" in change:
        change |= {"media": await service.media.put(b"a film", "video/mp4", 1080, 1920)}
    reply = await service.call("PATCH", f"/v1/creatives/{creative}", change, key=key, If_Match="*")
    assert (reply.body["revision"], reply.body["review"]["state"]) == (2, "waiting")


async def test_another_name_of_the_advertiser_is_looked_at_again(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    await advertise(service, advertiser, key, creative)
    await judge(service, creative)
    path = f"/v1/advertisers/{advertiser}"
    for changes in ({}, {"time_zone": "Asia/Jakarta"}, {"name": "Kopi Rana"}):
        assert (await service.call("PATCH", path, changes, key=key, If_Match="*")).status == 200
    assert await shown(service) == {creative}
    assert (await service.call("PATCH", path, {"name": "Rude"}, key=key, If_Match="*")).status == 200
    assert await shown(service) == set()
    (item,) = await listed(service)
    assert (item["revision"], item["advertiser"]["name"]) == (2, "Rude")
    assert (await service.call("PATCH", path, {"name": "Kopi"}, If_Match="*")).status == 200
    await judge(service, creative, revision=2)
    assert await shown(service) == {creative}


async def test_what_staff_make_is_approved_and_so_recorded(service: Service) -> None:
    ids = await service.plant()
    path = f"/v1/creatives/{ids['creative']}"
    made = (await service.call("GET", path)).body["review"]
    assert (made["state"], made["reason"]) == ("approved", "made by staff")
    changed = await service.call("PATCH", path, {"headline": "New."}, If_Match="*")
    assert changed.body["review"]["state"] == "approved"
    recorded = [(1, "approved", "made by staff"), (2, "approved", "made by staff")]
    assert await verdicts(service, ids["creative"]) == recorded
    assert await shown(service) == {ids["creative"]}
    assert await listed(service) == []


async def test_a_mind_may_change_and_each_verdict_is_recorded_once(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    answers = [
        await judge(service, creative, verdict)
        for verdict in ("approve", "approve", "reject", "reject", "approve")
    ]
    assert [answer.status for answer in answers] == [200] * 5
    assert answers[0].raw == answers[1].raw
    assert answers[2].raw == answers[3].raw
    same = {"revision": 1, "reason": "The picture cannot be read."}
    await service.call("POST", f"/v1/reviews/{creative}/reject", same, key="operator")
    assert await verdicts(service, creative) == [
        (1, "approved", None),
        (1, "rejected", REASON),
        (1, "approved", None),
        (1, "rejected", same["reason"]),
    ]
    rows = await service.pools.operator.fetch(
        "SELECT k.scopes FROM creative_verdicts v JOIN api_keys k ON k.id = v.key_id ORDER BY v.id"
    )
    assert [row["scopes"] for row in rows] == [["reviewer"]] * 3 + [["operator"]]


async def test_what_was_not_looked_at_is_not_judged(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    path = f"/v1/creatives/{creative}"
    await service.call("PATCH", path, {"headline": "Rude."}, key=key, If_Match="*")
    for revision in (1, 3):
        reply = await judge(service, creative, revision=revision)
        assert reply.status == 409
        assert "revision 2, not" in reply.body["detail"]
    assert (await judge(service, 999)).status == 404
    await service.call("POST", f"{path}/archive", key=key)
    assert await listed(service) == []
    for verdict in ("approve", "reject"):
        reply = await judge(service, creative, verdict, 2)
        assert (reply.status, "archived" in reply.body["detail"]) == (409, True)
    assert await verdicts(service, creative) == []


async def test_the_list_is_paged_and_asked_by_state_and_advertiser(service: Service) -> None:
    (one, key), (other, others_key) = await tenant(service), await tenant(service, "Zephyra")
    mine = [await waiting(service, one, key) for _ in range(5)]
    theirs = await waiting(service, other, others_key)
    assert [item["id"] for item in await listed(service)] == [*mine, theirs]
    assert [item["id"] for item in await listed(service, f"?advertiser={other}")] == [theirs]
    # An edit goes to the end of the queue.
    await service.call("PATCH", f"/v1/creatives/{mine[0]}", {"body": "x"}, key=key, If_Match="*")
    found: list[int] = []
    after = ""
    while True:
        page = (await service.call("GET", f"/v1/reviews?limit=2{after}", key="reviewer")).body
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == [*mine[1:], theirs, mine[0]]
    await judge(service, mine[1])
    await judge(service, mine[2], "reject")
    for state, ids in (
        ("approved", [mine[1]]),
        ("rejected", [mine[2]]),
        ("waiting", [*mine[3:], theirs, mine[0]]),
    ):
        assert [item["id"] for item in await listed(service, f"?state={state}")] == ids


async def test_reviews_are_for_reviewers_and_operators(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    both = await service.issue("advertiser", "analyst", advertiser=advertiser)
    for caller, status in ((key, 403), (both, 403), ("analyst", 403), ("feed", 403), (None, 401)):
        assert (await service.call("GET", "/v1/reviews", key=caller)).status == status
        for verdict, body in (("approve", {"revision": 1}), ("reject", {"revision": 1, "reason": "x"})):
            reply = await service.call("POST", f"/v1/reviews/{creative}/{verdict}", body, key=caller)
            assert reply.status == status
    assert await verdicts(service, creative) == []
    assert (await judge(service, creative, key="operator")).status == 200
    for path in ("/v1/campaigns", "/v1/creatives", "/v1/ramps", "/v1/impressions", "/v1/keys"):
        assert (await service.call("GET", path, key="reviewer")).status == 403


def bad() -> Iterator[tuple[str, Any, str]]:
    yield "approve", {}, "$.revision"
    yield "approve", {"revision": "1"}, "$.revision"
    yield "approve", {"revision": 0}, "$.revision"
    yield "approve", {"revision": 1 << 31}, "$.revision"
    yield "approve", {"revision": 1, "reason": "fine"}, "$.reason"
    yield "reject", {"revision": 1}, "$.reason"
    for reason in ("", " \n", "x" * 501, "a\0b", None):
        yield "reject", {"revision": 1, "reason": reason}, "$.reason"


async def test_garbage_is_refused_by_field(service: Service) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    for verdict, body, field in bad():
        reply = await service.call("POST", f"/v1/reviews/{creative}/{verdict}", body, key="reviewer")
        assert (reply.status, reply.fields) == (400, [field]), body
    for query in ("state=paused", "state=", "advertiser=0", "limit=501", "after=e30", "after=WzEsMV0", "x=1"):
        reply = await service.call("GET", f"/v1/reviews?{query}", key="reviewer")
        assert (reply.status, reply.fields) == (400, [f"?{query.partition('=')[0]}"]), query
    assert await verdicts(service, creative) == []


async def test_control_without_the_trigger_an_edit_is_shown_unseen(
    service: Service, database_url: str
) -> None:
    advertiser, key = await tenant(service)
    creative = await waiting(service, advertiser, key)
    await advertise(service, advertiser, key, creative)
    await judge(service, creative)
    connection = await superuser(database_url)
    await connection.execute("DROP TRIGGER reviewed ON creatives")
    await connection.close()
    await service.call("PATCH", f"/v1/creatives/{creative}", {"headline": "Rude."}, key=key, If_Match="*")
    assert await shown(service) == {creative}
