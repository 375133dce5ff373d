"""What an event was charged, explained: by HTTP and from the command line, and rated again to the same micro."""

import asyncio
import json
import random
from datetime import datetime
from math import ceil
from typing import Any

import pytest
from service import Service

from adserve.__main__ import main
from adserve.accounting.rating import RatedEvent, Rating, rate_again
from adserve.domain.events import EventKind, Outcome
from adserve.domain.time import HOUR_MS, SECOND_MS, to_ms

KINDS = ("impression", "view", "click", "hide", "complete")


def ask(viewer: str, **more: Any) -> dict[str, Any]:
    feed = [{"id": f"item-{n}", "author": f"author-{n}"} for n in range(12)]
    return {"viewer": viewer, "feed": feed, "explain": True, "context": {"country": "ID"}} | more


def bid(model: str, micros: int) -> dict[str, Any]:
    return {"model": model, "price": {"micros": micros, "currency": "USD"}}


async def placed(service: Service, viewer: str = "v", **more: Any) -> list[dict[str, Any]]:
    body = ask(viewer, **more)
    reply = await service.call("POST", "/v1/slots", body, key="operator" if body["explain"] else "feed")
    assert reply.status == 200
    await service.recording.step(service.clock())
    placements: list[dict[str, Any]] = reply.body["placements"]
    return placements


async def reported(service: Service, *events: dict[str, Any]) -> list[dict[str, Any]]:
    reply = await service.call("POST", "/v1/events", {"events": list(events)}, key="feed")
    assert reply.status == 200
    results: list[dict[str, Any]] = reply.body["results"]
    return results


async def told(service: Service, event: str, key: str = "analyst") -> dict[str, Any]:
    reply = await service.call("GET", f"/v1/charges/{event}", key=key)
    assert reply.status == 200, reply
    charge: dict[str, Any] = reply.body
    return charge


async def test_a_charge_is_told_from_the_bid_to_the_postings(service: Service) -> None:
    winner = await service.plant(bid=bid("cpm", 9_000_000))
    loser = await service.plant(bid=bid("cpm", 4_000_000))
    await service.go_live()
    (placement,) = await placed(service, max_ads=1)
    assert placement["ad"]["id"] == winner["ad"]
    (impression,) = await reported(service, {"ticket": placement["ticket"], "kind": "impression"})
    charge = await told(service, impression["event"])
    price = {"micros": 4_000, "currency": "USD"}
    assert (charge["outcome"], charge["billed"]) == ("recorded", price)
    assert charge["ticket"]["price"] == price
    assert charge["ticket"]["campaign"] == winner["campaign"]
    assert charge["versions"]["rules"] == 1
    assert charge["rating"] == {
        "outcome": "recorded",
        "billed": price,
        "reason": "it is what its ticket bills, at the price sealed in it",
        "same": True,
    }
    pricing = charge["pricing"]
    assert (pricing["bid_micros"], pricing["price_micros"], pricing["set_by"]) == (9_000, 4_000, "runner_up")
    assert pricing["runner_up"]["advertiser"] == loser["advertiser"]
    assert charge["lease"]["id"] == charge["ticket"]["lease"]
    assert [(each["account"], each["amount"]["micros"]) for each in charge["postings"]] == [
        ("held", -4_000),
        ("revenue", 4_000),
    ]

    own = await told(
        service, impression["event"], await service.issue("advertiser", advertiser=winner["advertiser"])
    )
    assert [each["account"] for each in own["postings"]] == ["held"]
    assert own["pricing"]["runner_up"] == {
        "ad": None,
        "advertiser": None,
        "value_micros": pricing["runner_up"]["value_micros"],
    }
    other = await service.issue("advertiser", advertiser=loser["advertiser"])
    path = f"/v1/charges/{impression['event']}"
    assert (await service.call("GET", path, key=other)).status == 404
    assert (await service.call("GET", path, key="feed")).status == 403


async def test_without_its_decision_a_charge_has_the_price_that_was_sealed(service: Service) -> None:
    await service.plant()
    await service.go_live()
    (placement, *_) = await placed(service, explain=False)
    ticket = placement["ticket"]
    (impression,) = await reported(service, {"ticket": ticket, "kind": "impression"})
    (click,) = await reported(service, {"ticket": ticket, "kind": "click"})
    charge = await told(service, impression["event"])
    assert charge["pricing"] is None
    assert charge["rating"]["same"] is True
    clicked = await told(service, click["event"])
    assert (clicked["outcome"], clicked["billed"]["micros"]) == ("unbilled_kind", 0)
    assert clicked["rating"]["reason"] == "its ticket bills the impression"
    assert clicked["postings"] == []


@pytest.mark.parametrize(
    "unknown", ["019b7800-0000-7000-8000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
)
async def test_an_event_that_is_not_there_is_404(service: Service, unknown: str) -> None:
    assert (await service.call("GET", f"/v1/charges/{unknown}", key="analyst")).status == 404


def price_of(pricing: dict[str, Any]) -> int:
    """From nothing but what a charge tells."""
    if pricing["set_by"] == "own_price":
        return int(pricing["bid_micros"])
    rival = pricing["runner_up"]
    to_beat = max(pricing["floor_micros"], rival["value_micros"] if rival else 0)
    price = ceil(pricing["bid_micros"] * to_beat / pricing["value_micros"] * (1 - 1e-12))
    return min(int(pricing["bid_micros"]), max(1, price))


def event_of(charge: dict[str, Any]) -> RatedEvent:
    def ms(moment: str) -> int:
        return to_ms(datetime.fromisoformat(moment))

    return RatedEvent(
        EventKind(charge["kind"]),
        Outcome(charge["outcome"]),
        charge["billed"]["micros"],
        charge["ticket"]["billable"],
        charge["ticket"]["price"]["micros"],
        ms(charge["received_at"]),
        ms(charge["ticket"]["expires_at"]),
    )


def forgetful(event: RatedEvent) -> Rating:
    """A twin that does not look at the clock."""
    return rate_again(event._replace(expires_at_ms=event.received_at_ms))


async def random_charges(service: Service, rounds: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    for _ in range(6):
        model = chance.choice(("cpm", "cpm", "cpc"))
        micros = chance.randrange(1_000, 20_000) * 1_000
        await service.plant(
            bid=bid(model, micros if model == "cpm" else micros // 10),
            billable="click" if model == "cpc" else chance.choice(("impression", "view")),
            priority=chance.choice(("auction", "auction", "auction", "guaranteed")),
            caps=[{"scope": "campaign", "count": 3, "window_s": 3_600}],
        )
    await service.go_live()
    events = []
    for number in range(rounds):
        floor = {"micros": chance.randrange(0, 3_000_000), "currency": "USD"}
        placements = await placed(service, f"v{number % 5}", floor=floor, max_ads=3)
        late = chance.random() < 0.2
        service.clock.advance(2 * HOUR_MS if late else SECOND_MS)
        given = [
            {"ticket": placement["ticket"], "kind": kind, "view_ms": 1_000 if kind == "view" else None}
            for placement in placements
            for kind in chance.sample(KINDS, 2)
        ]
        events += [result["event"] for result in (await reported(service, *given) if given else [])]
        await service.step()
    return [await told(service, event) for event in events]


async def test_random_charges_rate_again_to_the_same_micro(service: Service) -> None:
    charges = await random_charges(service, 25, 7)
    outcomes = {charge["outcome"] for charge in charges}
    assert {"recorded", "late", "unbilled_kind"} <= outcomes
    assert {charge["pricing"]["set_by"] for charge in charges} == {"runner_up", "floor", "own_price"}
    for charge in charges:
        assert charge["rating"]["same"] is True
        assert (
            charge["ticket"]["price"]["micros"]
            == charge["pricing"]["price_micros"]
            == price_of(charge["pricing"])
        )
        event = event_of(charge)
        assert rate_again(event)[:2] == (event.outcome, event.billed_micros)
    # The controls: what does not look at the clock rates late ones anew; what bills the bid is no second price.
    events = [event_of(charge) for charge in charges]
    assert any(forgetful(event)[:2] != (event.outcome, event.billed_micros) for event in events)
    assert any(charge["pricing"]["bid_micros"] != charge["ticket"]["price"]["micros"] for charge in charges)


async def test_the_command_line_tells_it_too(
    service: Service, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await service.plant(bid=bid("cpm", 9_000_000))
    await service.plant(bid=bid("cpm", 4_000_000))
    await service.go_live()
    (placement, *_) = await placed(service)
    (impression,) = await reported(service, {"ticket": placement["ticket"], "kind": "impression"})
    monkeypatch.setenv("ADSERVE_DATABASE_URL", database_url)
    assert await asyncio.to_thread(main, ["charge", impression["event"]]) == 0
    said = capsys.readouterr().out
    assert "billed 4,000 micros USD" in said
    assert "same result" in said
    assert await asyncio.to_thread(main, ["charge", impression["event"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == await told(service, impression["event"])
    assert await asyncio.to_thread(main, ["charge", "019b7800-0000-7000-8000-000000000000"]) == 1
    assert "no such event" in capsys.readouterr().err
