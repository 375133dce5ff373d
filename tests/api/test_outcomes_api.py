import asyncio
from typing import Any

from ramping import begin_ramp, enter_step, viewers_of
from service import Service

from adserve.domain.ramps import Arm
from adserve.domain.time import DAY_MS, HOUR_MS, SECOND_MS, from_ms
from adserve.store.outcomes import IDS_KEPT_MS

PERCENT_BP = 2_000
COUNTS = "SELECT arm, count(*), sum(statuses_viewed), sum(statuses_told) FROM arm_viewers GROUP BY arm ORDER BY arm"


async def report(service: Service, *outcomes: Any) -> list[dict[str, Any]]:
    await service.refresh.step(service.clock())
    reply = await service.call("POST", "/v1/outcomes", {"outcomes": outcomes}, key="feed")
    assert reply.status == 200, reply
    results: list[dict[str, Any]] = reply.body["results"]
    return results


async def said(service: Service, *outcomes: Any) -> list[str]:
    return [result["result"] for result in await report(service, *outcomes)]


async def begin(service: Service, **more: Any) -> int:
    ramp = await begin_ramp(service.pools, service.clock(), PERCENT_BP, **more)
    await service.refresh.step(service.clock())
    return ramp


async def counted(service: Service) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await service.pools.recorder.fetch(COUNTS)]


def advance(service: Service, duration_ms: int) -> None:
    service.clock.advance(duration_ms)


async def test_outcomes_of_both_arms_are_counted_once_each_in_its_place(service: Service) -> None:
    ramp = await begin(service)
    (exposed, *_), (control, *_) = (viewers_of(arm, ramp, PERCENT_BP) for arm in (Arm.EXPOSED, Arm.CONTROL))
    (nobody, *_) = viewers_of(Arm.NONE, ramp, PERCENT_BP)
    first = {"id": "s-1", "viewer": exposed, "statuses_viewed": 20, "session_seconds": 299.6}
    other = {"id": "s-2", "viewer": control, "country": "ID", "returned_next_day": False}
    batch = [
        first,
        other,
        {"id": "s-3", "viewer": nobody},
        first,
        {"id": "s-4", "viewer": exposed, "statuses_viewed": 4},
    ]
    assert await said(service, *batch) == ["recorded", "recorded", "not_compared", "duplicate", "recorded"]
    assert await said(service, *batch) == ["duplicate", "duplicate", "not_compared", "duplicate", "duplicate"]
    assert await counted(service) == [("control", 1, 0, 0), ("exposed", 1, 24, 2)]
    assert await service.pools.recorder.fetchval("SELECT max(session_seconds) FROM arm_viewers") == 300


async def test_while_nobody_may_see_ads_nobody_is_compared(service: Service) -> None:
    ramp = await begin(service)
    (viewer, *_) = viewers_of(Arm.EXPOSED, ramp, PERCENT_BP)
    for nth, (path, results) in enumerate((("pause", ["not_compared"]), ("resume", ["recorded"]))):
        await service.call("POST", f"/v1/rollout/{path}", key="operator")
        assert await said(service, {"id": f"s-{nth}", "viewer": viewer}) == results
    assert await counted(service) == [("exposed", 1, 0, 0)]


async def test_the_same_batches_at_once_count_once(service: Service) -> None:
    ramp = await begin(service)
    viewers = viewers_of(Arm.EXPOSED, ramp, PERCENT_BP, count=20)
    batch = [{"id": f"s-{viewer}", "viewer": viewer, "statuses_viewed": 1} for viewer in viewers]
    answers = await asyncio.gather(*(said(service, *batch[nth:], *batch[:nth]) for nth in range(6)))
    assert sum(answer.count("recorded") for answer in answers) == 20
    assert await counted(service) == [("exposed", 20, 20, 20)]


async def test_a_bad_outcome_is_refused_in_its_place_by_field(service: Service) -> None:
    await begin(service)
    bad: list[tuple[Any, str]] = [
        ({"viewer": "u"}, "$.id"),
        ({"id": "s"}, "$.viewer"),
        ({"id": "", "viewer": "u"}, "$.id"),
        ({"id": "s", "viewer": "u", "statuses_viewed": -1}, "$.statuses_viewed"),
        ({"id": "s", "viewer": "u", "statuses_viewed": 1.5}, "$.statuses_viewed"),
        ({"id": "s", "viewer": "u", "session_seconds": 86_401}, "$.session_seconds"),
        ({"id": "s", "viewer": "u", "returned_next_day": 1}, "$.returned_next_day"),
        ({"id": "s", "viewer": "u", "posts_made": 1 << 70}, "$.posts_made"),
        ({"id": "s", "viewer": "u", "surface": "stories"}, "$.surface"),
        ({"id": "s", "viewer": "u", "surface": ""}, "$.surface"),
        ({"id": "s", "viewer": "u", "country": "idn"}, "$.country"),
        ({"id": "s", "viewer": "u", "occurred_at": "2026-01-01T00:00:00"}, "$.occurred_at"),
        ({"id": "s", "viewer": "u", "occurred_at": "0001-01-01T00:00:00+23:59"}, "$.occurred_at"),
        ({"id": "s", "viewer": "u", "occurred_at": "2026-01-02T00:00:00Z"}, "$.occurred_at"),
        ({"id": "s", "viewer": "u", "mood": "fine"}, "$.mood"),
        (7, "$"),
    ]
    good = {"id": "good", "viewer": "u"}
    *refused, last = await report(service, *(outcome for outcome, _ in bad), good)
    assert last["result"] != "refused"
    for result, (outcome, field) in zip(refused, bad, strict=True):
        assert (result["result"], [error["field"] for error in result["errors"]]) == ("refused", [field]), (
            outcome
        )


async def test_an_envelope_that_cannot_be_read_is_refused_as_a_whole(service: Service) -> None:
    one = {"id": "s", "viewer": "u"}
    for body, field in (
        ({"outcomes": []}, "$.outcomes"),
        ({"outcomes": [one] * 1_001}, "$.outcomes"),
        ({"outcomes": [one], "more": 1}, "$.more"),
        (b"{", "$"),
        (b"\xff", "$"),
    ):
        reply = await service.call("POST", "/v1/outcomes", body, key="feed")
        assert (reply.status, reply.fields) == (400, [field]), body
    for key, status in (("operator", 403), (None, 401)):
        assert (await service.call("POST", "/v1/outcomes", {"outcomes": [one]}, key=key)).status == status


async def test_odd_ids_are_no_fault(service: Service) -> None:
    await begin(service)
    odd = rb'{"outcomes": [{"id": "\u0000", "viewer": "\ud800"}, {"id": "\ud800", "viewer": "\u0000"}]}'
    reply = await service.call("POST", "/v1/outcomes", odd, key="feed")
    assert (reply.status, len(reply.body["results"])) == (200, 2)


async def test_only_what_occurred_since_the_step_was_entered_counts(service: Service) -> None:
    ramp = await begin(service)
    (viewer, *_) = viewers_of(Arm.EXPOSED, ramp, PERCENT_BP)
    before = {"id": "s-0", "viewer": viewer, "occurred_at": from_ms(service.clock() - 1).isoformat()}
    within = {"id": "s-1", "viewer": viewer, "occurred_at": from_ms(service.clock()).isoformat()}
    assert await said(service, before, within) == ["late", "recorded"]
    advance(service, HOUR_MS)
    await enter_step(service.pools, ramp, 1, service.clock(), 5_000)
    await service.refresh.step(service.clock())
    assert await said(service, within | {"id": "s-2"}, {"id": "s-3", "viewer": viewer}) == [
        "late",
        "recorded",
    ]
    rows = await service.pools.recorder.fetch("SELECT count(*) FROM arm_viewers GROUP BY entered_at")
    assert [count for (count,) in rows] == [1, 1]
    occurred_at = from_ms(service.clock()).isoformat()
    advance(service, IDS_KEPT_MS)
    assert await said(service, {"id": "s-3", "viewer": viewer, "occurred_at": occurred_at}) == ["late"]
    advance(service, -SECOND_MS - DAY_MS)
    assert await said(service, {"id": "s-3", "viewer": viewer, "occurred_at": occurred_at}) == ["duplicate"]


async def test_a_ramp_of_a_country_compares_its_viewers_alone(service: Service) -> None:
    ramp = await begin(service, countries=("ID",))
    (viewer, *_) = viewers_of(Arm.EXPOSED, ramp, PERCENT_BP)
    outcomes = [
        {"id": f"s-{country}", "viewer": viewer, "country": country} for country in ("ID", "BR", None)
    ]
    assert await said(service, *outcomes) == ["recorded", "not_compared", "not_compared"]


async def test_without_a_ramp_nothing_is_kept(service: Service) -> None:
    await service.go_live()
    assert await said(service, {"id": "s-1", "viewer": "u-1"}) == ["not_compared"]
    assert await service.pools.recorder.fetchval("SELECT count(*) FROM outcome_ids") == 0


async def test_while_the_database_is_away_it_says_when_to_come_again(service: Service) -> None:
    ramp = await begin(service)
    (viewer, *_) = viewers_of(Arm.EXPOSED, ramp, PERCENT_BP)
    await service.pools.recorder.close()
    reply = await service.call(
        "POST", "/v1/outcomes", {"outcomes": [{"id": "s", "viewer": viewer}]}, key="feed"
    )
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert reply.body["title"] == "Try again shortly"
