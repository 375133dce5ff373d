"""Recorded, a decision comes out the same again; with anything of it missing, it does not."""

import asyncio
from random import Random
from typing import Any

import pytest
from market import Market, ToldRates, fund, make_ad, make_ask, per_click
from msgspec.structs import replace

from adserve.domain.ads import Cap, Tier
from adserve.domain.rollouts import SurfaceRollout
from adserve.domain.slots import Context, NoFill
from adserve.domain.surfaces import Surface
from adserve.domain.targeting import AgeRange, Exclusion, Targeting
from adserve.domain.time import DAY_MS
from adserve.selection import recording
from adserve.selection.made import Made, considered
from adserve.selection.recording import (
    Record,
    Recording,
    RecordRefused,
    decode,
    encode,
    explain_again,
    is_sampled,
    record_of,
    replay,
    version_of,
)
from adserve.selection.slots import Bounds

INTERESTS = ("music", "food", "sport")


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.facts: dict[bytes, bytes] = {}
        self.away = False

    async def save(self, records: Any, versions: Any, day: Any) -> None:
        if self.away:
            raise ConnectionError
        self.records += records
        self.facts |= dict(versions)


def random_market(seed: int) -> Market:
    chance = Random(seed)
    ads = [
        (per_click if chance.random() < 0.4 else make_ad)(
            number,
            advertiser=chance.randrange(8),
            bid_micros=chance.randrange(1, 9) * 1_000_000,
            tier=Tier.GUARANTEED if chance.random() < 0.1 else Tier.AUCTION,
            caps=(Cap("campaign", 1, 3_600), Cap("all", 6, 86_400)) if chance.random() < 0.5 else (),
            separation=("drinks",) if chance.random() < 0.2 else (),
            targeting=_targeting(chance),
        )
        for number in range(1, chance.randrange(4, 60))
    ]
    rates = ToldRates({ad.id: chance.random() / 50 for ad in ads})
    rollout = SurfaceRollout(chance.choice((10_000, 5_000)), 500, {"DE": 3_000})
    surface = Surface(separation_s=60, min_time_s=1, floors_micros={"ID": 1_000_000})
    market = Market(ads, rates=rates, rollout=rollout, surface=surface, fund_micros=0)
    fund(market.book, [ad for ad in ads if chance.random() < 0.8], chance.choice((10_000, 10_000_000)))
    market.bounds = Bounds(candidates_max=chance.randrange(2, 33))
    return market


def _targeting(chance: Random) -> Targeting:
    return Targeting(
        age=AgeRange(20, 40) if chance.random() < 0.2 else None,
        interests=(chance.choice(INTERESTS),) if chance.random() < 0.2 else (),
        custom={"tier": ("gold",)} if chance.random() < 0.2 else {},
        exclude=Exclusion(custom={"tier": ("lead",)}) if chance.random() < 0.2 else Exclusion(),
    )


def random_ask(chance: Random) -> Any:
    return make_ask(
        f"u-{chance.randrange(6)}",
        max_ads=chance.randrange(0, 5),
        authors=tuple(chance.choice(("ann", "bob", None)) for _ in range(30)),
        context=Context(
            country=chance.choice(("ID", "DE", None)),
            age=chance.randrange(15, 50),
            interests=(chance.choice(INTERESTS),),
            custom={"tier": chance.choice(("gold", "lead", "pewter")), "phone": "+49 151 555"},
        ),
        personalised=chance.random() < 0.7,
        ads_allowed=chance.random() < 0.95,
        floor_micros=chance.choice((0, 0, 3_000_000, 900_000_000)),
        explain=chance.random() < 0.5,
    )


async def decided(seed: int, decisions: int = 25) -> list[Made]:
    market, chance = random_market(seed), Random(seed)
    noted: list[Made] = []
    market.notes = (noted.append,)
    for _ in range(decisions):
        market.seed = chance.getrandbits(128)
        await market.slots.answer(random_ask(chance))
        market.now_ms += chance.choice((0, 300, 1_100))
    return noted


def recorded(made: Made) -> tuple[Record, dict[bytes, bytes]]:
    facts: dict[bytes, bytes] = {}

    def digest_of(ad: Any) -> bytes:
        version = version_of(ad)
        facts[version.digest] = version.facts
        return version.digest

    return decode(encode(record_of(made, digest_of))), facts


@pytest.mark.parametrize("seed", range(30))
async def test_a_recorded_decision_comes_out_the_same(seed: int) -> None:
    for made in await decided(seed):
        record, facts = recorded(made)
        again = replay(record, facts)
        assert again.differences == []
        assert [given.ticket for given in again.made.awards] == [given.ticket for given in made.awards]
        assert again.made.no_fill == made.no_fill
        told, (_, matched, below_floor) = explain_again(again), considered(made, 1)
        assert told["funnel"]["targeted"] == matched
        assert told["funnel"]["above_floor"] == matched - below_floor
        assert told["funnel"]["placed"] == len(made.awards)


async def test_all_kinds_of_ends_are_among_them() -> None:
    ends = {made.no_fill for seed in range(30) for made in await decided(seed)}
    assert ends >= {
        None,
        NoFill.NOT_IN_ROLLOUT,
        NoFill.HOLDOUT,
        NoFill.OPTED_OUT,
        NoFill.FEED_TOO_SHORT,
        NoFill.FREQUENCY_CAPPED,
        NoFill.BUDGET_SPENT,
        NoFill.BELOW_FLOOR,
    }


SPOILT = {
    "another seed": lambda record: replace(record, seed=bytes(16)),
    "another floor": lambda record: replace(record, ask=replace(record.ask, floor_micros=6_000_000)),
    "other click rates": lambda record: replace(
        record, candidates=tuple(replace(each, click_rate=0.01) for each in record.candidates)
    ),
    "another bucket": lambda record: replace(
        record, ask=replace(record.ask, viewer=replace(record.ask.viewer, buckets=(9_999, 0)))
    ),
    "no holds": lambda record: replace(record, places=record.places[1:], holds=record.holds[1:]),
}


@pytest.mark.parametrize("spoil", SPOILT)
async def test_control_with_one_input_changed_it_does_not(spoil: str) -> None:
    differ = 0
    for seed in range(8):
        for made in await decided(seed):
            record, facts = recorded(made)
            if record.outcome.placed:
                try:
                    differ += bool(replay(SPOILT[spoil](record), facts).differences)
                except IndexError:
                    differ += 1
    assert differ


async def test_what_the_viewer_saw_is_part_of_it() -> None:
    """The model says less of a click that was seen before; the recorded rate has it, whatever is counted now."""
    market = Market([per_click(1, 4_000_000), make_ad(2)], rates=WearingOut())
    noted: list[Made] = []
    market.notes = (noted.append,)
    first = await market.answer(max_ads=1, personalised=True)
    ticket = first.placements[0].ticket
    await market.counters.confirm(ticket, market.now_ms, market.now_ms)
    market.now_ms += 1_000
    await market.answer(max_ads=2, personalised=True)
    (_, record_facts) = [recorded(made) for made in noted]
    record, facts = record_facts
    assert record.exposures["*"] == 1
    assert replay(record, facts).differences == []
    unseen = [replace(each, click_rate=0.01) for each in record.candidates]
    assert replay(replace(record, candidates=tuple(unseen)), facts).differences


class WearingOut(ToldRates):
    def click(self, prepared: Any, rows: Any, viewer: Any, exposures: Any) -> Any:
        return super().click(prepared, rows, viewer, exposures) / (1 + exposures)


async def test_no_raw_viewer_nor_author_nor_unasked_word_of_theirs_is_recorded() -> None:
    for made in await decided(3):
        record, facts = recorded(made)
        written = encode(record) + b"".join(facts.values())
        assert made.ask.viewer.cap in written, "control: the pseudonym is there"
        for secret in (b"ann", b"bob", b"+49", b"pewter"):
            assert secret not in written
        # The test's pseudonyms hold the id: in their place, look at the record without them.
        viewer = replace(record.ask.viewer, cap=b"", log=b"")
        assert made.ask.viewer.raw.encode() not in encode(
            replace(record, ask=replace(record.ask, viewer=viewer))
        )


async def test_without_consent_nothing_personal_is_recorded() -> None:
    for made in await decided(4):
        context = recorded(made)[0].ask.context
        if not made.ask.personalised:
            assert (context.age, context.interests, context.custom) == (None, (), {})


async def test_facts_that_are_gone_are_said_to_be() -> None:
    (made, *_) = [made for made in await decided(1) if made.awards]
    record, _ = recorded(made)
    with pytest.raises(RecordRefused, match="gone"):
        replay(record, {})
    with pytest.raises(RecordRefused, match="format"):
        decode(b"\x02")


def test_the_sample_is_of_the_seed() -> None:
    chance = Random(1)
    seeds = [chance.getrandbits(128) for _ in range(20_000)]
    tenth = {seed for seed in seeds if is_sampled(seed, 0.1)}
    assert 1_800 < len(tenth) < 2_200
    assert {seed for seed in seeds if is_sampled(seed, 0.01)} <= tenth
    assert not any(is_sampled(seed, 0.0) for seed in seeds)
    assert all(is_sampled(seed, 1.0) for seed in seeds)


async def test_only_the_sample_and_what_is_explained_is_recorded() -> None:
    kept = Kept()
    explained = [made for made in await decided(5, 60) if made.ask.explain]
    recorder = Recording(kept, 0.0)
    for made in await decided(5, 60):
        recorder.note(made)
    await recorder.step(0)
    assert [record.decision for record in kept.records] == [made.decision for made in explained]


async def test_what_finds_no_room_or_no_database_is_shed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "QUEUED_MAX", 20)
    kept, shed = Kept(), []
    recorder = Recording(kept, 1.0, shed.append)
    decisions = await decided(6, 30)
    for made in decisions:
        recorder.note(made)
    assert sum(shed) == 10
    kept.away = True
    with pytest.raises(ConnectionError):
        await recorder.step(0)
    assert sum(shed) == 30
    kept.away = False
    for made in decisions[:5]:
        recorder.note(made)
    await recorder.step(DAY_MS)
    assert [record.decision for record in kept.records] == [made.decision for made in decisions[:5]]
    for record in kept.records:
        assert replay(record, kept.facts).differences == [], (
            "the facts came again, as they may not have been stored"
        )


async def test_requests_go_on_while_decisions_are_recorded() -> None:
    recorder = Recording(Kept(), 1.0)
    for made in await decided(7, 40):
        recorder.note(made)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await recorder.step(0)
    other.cancel()
    assert turns >= 40
