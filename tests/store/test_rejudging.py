"""Rules that change later: what was charged and is invalid now is credited, once; an event stays what it was."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest
from crediting import TWICE
from msgspec.structs import replace
from waiting import until_a_lock_is_waited_for
from world import NOW_MS, PRICE_MICROS, World, superuser

from adserve.domain.events import EventKind, Outcome
from adserve.domain.tickets import Ticket
from adserve.domain.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, day_of, from_ms
from adserve.domain.traffic import Rate, Reason, Rules, Source, Verdict
from adserve.metering.intake import rated
from adserve.metering.networks import NO_NETWORKS, Networks, decode_networks
from adserve.metering.origins import Origins
from adserve.metering.pseudonyms import Pseudonyms, ViewerSecrets
from adserve.metering.rejudging import Rejudging, Tally
from adserve.metering.traffic import Moments, Traffic
from adserve.store import traffic
from adserve.store.traffic import TrafficStore

IMPRESSION, CLICK = EventKind.IMPRESSION, EventKind.CLICK
HOSTED = Source("WhatsApp/2.26.1 A", "52.95.110.7")
AT_HOME = Source("WhatsApp/2.26.1 A", "81.2.69.142")
AMAZON = decode_networks(b"52.95.110.0/23")
PART_OF_IT = decode_networks(b"52.95.110.0/25")
TO_MS = NOW_MS + DAY_MS


class Happened(NamedTuple):
    kind: EventKind
    ticket: Ticket
    source: Source | None = None
    at_ms: int = NOW_MS + SECOND_MS
    occurred_at_ms: int | None = None


class Setting:
    def __init__(self, world: World, owner: asyncpg.Connection, lease: int) -> None:
        self.world, self.owner, self.lease = world, owner, lease
        self.store = TrafficStore(world.pools.recorder)
        self.processes = [self._process(), self._process()]
        self._stored = 0

    def _process(self) -> Traffic:
        judging = Traffic(Origins(Pseudonyms(ViewerSecrets(b"c" * 32, ((0, b"m" * 32),)))))
        judging.use(1, Rules(), NO_NETWORKS)
        return judging

    def ticket(self, viewer: int = 1, billable: str = "impression") -> Ticket:
        return self.world.ticket(self.lease, viewer_cap=viewer.to_bytes(16, "big"), billable=billable)

    async def store_all(self, *happened: Happened) -> list[Verdict]:
        """As it is told to one process and the other in turn."""
        verdicts = []
        for one in happened:
            self._stored += 1
            moments = Moments(one.at_ms, one.occurred_at_ms)
            judging = self.processes[self._stored % 2]
            verdict = judging.judge(one.kind, one.ticket, moments, one.source)
            event = replace(
                self.world.event(one.ticket, one.kind, seed=self._stored),
                verdict=verdict,
                received_at_ms=one.at_ms,
                occurred_at_ms=one.occurred_at_ms,
            )
            await self.world.journal.settle([rated(event, counts=True, epoch=None)])
            verdicts.append(verdict)
        return verdicts

    async def revise(self, rules: Rules, networks: Networks) -> int:
        async with self.world.pools.operator.acquire() as connection, connection.transaction():
            return (await traffic.revise(connection, rules, "1", networks.digest, NOW_MS)).version

    async def rejudge(
        self, rules: Rules, networks: Networks, *, version: int | None = None, since_ms: int = NOW_MS
    ) -> Tally:
        """By a version that is new unless one is given."""
        version = version or await self.revise(rules, networks)
        return await Rejudging(self.store, rules, networks, version).run(
            since_ms, TO_MS, TO_MS, lambda at_ms, tally: None
        )

    async def credits(self) -> list[tuple[Any, ...]]:
        rows = await self.owner.fetch("SELECT kind, reason, micros FROM credits ORDER BY id")
        return [tuple(row) for row in rows]

    async def findings(self) -> list[tuple[Any, ...]]:
        rows = await self.owner.fetch("SELECT rules_version, reason FROM traffic_findings ORDER BY 1, 2")
        return [tuple(row) for row in rows]


@pytest.fixture
async def setting(world: World, database_url: str) -> AsyncIterator[Setting]:
    owner = await superuser(database_url)
    yield Setting(world, owner, await world.lease(10_000_000))
    await owner.close()


LOCK = (
    "SELECT FROM accounts WHERE kind IN ('available', 'receivable') AND advertiser_id = $1 FOR NO KEY UPDATE"
)
CREDIT = ("impression", "invalid_traffic", PRICE_MICROS)


async def test_networks_that_are_listed_later_are_credited_once(setting: Setting) -> None:
    tickets = [setting.ticket(viewer) for viewer in range(4)]
    verdicts = await setting.store_all(
        Happened(IMPRESSION, tickets[0], HOSTED),
        Happened(IMPRESSION, tickets[1], AT_HOME),
        Happened(IMPRESSION, tickets[2]),
        Happened(IMPRESSION, tickets[3], HOSTED),
        Happened(CLICK, tickets[3], HOSTED),  # was not charged
    )
    assert {verdict.reason for verdict in verdicts} == {None}
    before = await setting.owner.fetch("SELECT * FROM events ORDER BY event_id")
    first = await setting.rejudge(Rules(), AMAZON)
    assert (first.judged, first.charged, first.invalid) == (5, 4, 2)
    assert first.found == (2, 2, 2 * PRICE_MICROS)
    assert await setting.credits() == [CREDIT, CREDIT]
    again = await setting.rejudge(Rules(), AMAZON, version=1)
    assert (again.invalid, again.found) == (2, (0, 0, 0))
    later = await setting.rejudge(Rules(declared_bots=False), AMAZON)  # another version finds them as well
    assert later.found == (2, 0, 0)
    assert await setting.credits() == [CREDIT, CREDIT]
    assert await setting.findings() == [(1, "data_centre")] * 2 + [(2, "data_centre")] * 2
    assert await setting.owner.fetch("SELECT * FROM events ORDER BY event_id") == before


async def test_control_credits_that_do_not_know_each_other_are_given_twice(setting: Setting) -> None:
    await setting.owner.execute(TWICE)
    await setting.store_all(Happened(IMPRESSION, setting.ticket(), HOSTED))
    for _ in range(2):
        await setting.rejudge(Rules(), AMAZON)
    assert await setting.credits() == [CREDIT, CREDIT]


async def test_a_part_of_the_network_that_was_kept_is_not_enough(setting: Setting) -> None:
    await setting.store_all(Happened(IMPRESSION, setting.ticket(), HOSTED))
    assert (await setting.rejudge(Rules(), PART_OF_IT)).invalid == 0
    assert await setting.credits() == []


async def test_what_becomes_valid_is_not_charged(setting: Setting) -> None:
    for judging in setting.processes:
        judging.use(1, Rules(), AMAZON)
    verdicts = await setting.store_all(Happened(IMPRESSION, setting.ticket(), HOSTED))
    assert verdicts[0].reason is Reason.DATA_CENTRE
    tally = await setting.rejudge(Rules(data_centres=False), NO_NETWORKS)
    assert (tally.judged, tally.charged, tally.found) == (1, 0, (0, 0, 0))
    assert await setting.world.fetchval("SELECT outcome FROM events") == "invalid_traffic"
    assert await setting.world.fetchval("SELECT sum(billed_micros) FROM events") == 0


async def test_clients_that_are_no_longer_allowed(setting: Setting) -> None:
    await setting.store_all(
        Happened(IMPRESSION, setting.ticket(1), AT_HOME),
        Happened(IMPRESSION, setting.ticket(2), Source("okhttp/4.12.0")),
    )
    assert (await setting.rejudge(Rules(clients_allowed=("WhatsApp",)), NO_NETWORKS)).found.credited == 1


async def test_a_flood_through_two_processes_is_seen_as_a_whole(setting: Setting) -> None:
    tickets = [setting.ticket(viewer=7, billable="click") for _ in range(6)]
    rules = Rules(clicks_of_viewer=Rate(count=3, window_s=60))
    for judging in setting.processes:
        judging.use(1, rules, NO_NETWORKS)
    clicks = [Happened(CLICK, ticket, at_ms=NOW_MS + nth) for nth, ticket in enumerate(tickets)]
    assert {verdict.reason for verdict in await setting.store_all(*clicks)} == {None}
    tally = await setting.rejudge(rules, NO_NETWORKS)
    assert tally.found == (3, 3, 3 * PRICE_MICROS)
    assert await setting.findings() == [(1, "click_flood_of_viewer")] * 3


async def test_a_click_is_held_against_an_impression_that_came_after_it(setting: Setting) -> None:
    ticket = setting.ticket(billable="click")
    verdicts = await setting.store_all(
        Happened(CLICK, ticket, at_ms=NOW_MS + 1_000, occurred_at_ms=NOW_MS + 400),
        Happened(IMPRESSION, ticket, at_ms=NOW_MS + 2_000, occurred_at_ms=NOW_MS + 900),
    )
    assert {verdict.reason for verdict in verdicts} == {None}
    assert (await setting.rejudge(Rules(), NO_NETWORKS)).found.credited == 1
    assert await setting.findings() == [(1, "impossible_order")]


async def test_what_came_before_the_period_is_known_and_not_credited(setting: Setting) -> None:
    tickets = [setting.ticket(viewer=7) for _ in range(6)]
    await setting.store_all(
        *(
            Happened(IMPRESSION, ticket, at_ms=NOW_MS + nth * MINUTE_MS * 5)
            for nth, ticket in enumerate(tickets)
        )
    )
    rules = Rules(impressions_of_viewer=Rate(count=2, window_s=3_600))
    tally = await setting.rejudge(rules, NO_NETWORKS, since_ms=NOW_MS + MINUTE_MS * 20)
    assert (tally.judged, tally.found.credited) == (2, 2)


async def test_an_hour_is_judged_by_the_days_whose_tickets_it_may_have(setting: Setting) -> None:
    await setting.owner.execute("SELECT ensure_partitions('2025-12-01', '2025-12-31')")
    ticket = setting.world.ticket(setting.lease, expires_at_ms=TO_MS)
    await setting.store_all(Happened(IMPRESSION, ticket, at_ms=TO_MS))
    assert len([one async for one in setting.store.logged(TO_MS, TO_MS + HOUR_MS)]) == 1
    days = day_of(NOW_MS), day_of(TO_MS)
    plan = await setting.owner.fetch(
        f"EXPLAIN {traffic.SQL.judged}", from_ms(TO_MS), from_ms(TO_MS + HOUR_MS), *days
    )
    opened = re.findall(r" on (\w+)_(\d{8})", "\n".join(line for (line,) in plan))
    assert {table for table, _ in opened} == {"events", "viewer_caps", "event_origins"}
    assert {day for _, day in opened} == {f"{day:%Y%m%d}" for day in days}


async def test_a_run_without_a_version_writes_nothing(setting: Setting) -> None:
    await setting.store_all(Happened(IMPRESSION, setting.ticket(), HOSTED))
    tally = await Rejudging(setting.store, Rules(), AMAZON, None).run(
        NOW_MS, TO_MS, TO_MS, lambda at_ms, tally: None
    )
    assert (tally.invalid, tally.found) == (1, (0, 0, 0))
    assert (await setting.credits(), await setting.findings()) == ([], [])


async def test_an_erased_viewer_is_nobody_else(setting: Setting) -> None:
    tickets = [setting.ticket(viewer) for viewer in range(5)]
    await setting.store_all(*(Happened(IMPRESSION, ticket) for ticket in tickets))
    await setting.owner.execute("DELETE FROM viewer_caps")
    rules = Rules(impressions_of_viewer=Rate(count=1, window_s=60))
    assert (await setting.rejudge(rules, NO_NETWORKS)).invalid == 0


async def test_only_charged_events_are_found(setting: Setting) -> None:
    ticket = setting.ticket()
    await setting.store_all(Happened(CLICK, ticket, HOSTED))
    found = await setting.store.find_invalid(
        await setting.revise(Rules(), AMAZON),
        [
            traffic.Finding(day, ticket.ticket, kind, Reason.DATA_CENTRE)
            for day in [await setting.world.fetchval("SELECT issued_day FROM events")]
            for kind in (CLICK, IMPRESSION)
        ],
        NOW_MS + HOUR_MS,
    )
    assert found == (0, 0, 0)
    assert await setting.world.fetchval("SELECT outcome FROM events") == Outcome.UNBILLED_KIND


async def credits_beside_leases(setting: Setting, database_url: str) -> bool:
    """Whether whoever leases of one advertiser still gets the accounts of the next while both are being credited."""
    world, other = setting.world, await setting.world.add_advertiser(1_000_000)
    campaign = await world.add_campaign(other)
    theirs = world.ticket(
        await world.lease(10_000, campaign), ticket=UUID(int=1), advertiser=other, campaign=campaign
    )
    ours = world.ticket(setting.lease, ticket=UUID(int=2))
    await setting.store_all(Happened(IMPRESSION, theirs, HOSTED), Happened(IMPRESSION, ours, HOSTED))
    got_both = True
    async with setting.owner.transaction():
        await setting.owner.execute(LOCK, world.advertiser)
        crediting = asyncio.create_task(setting.rejudge(Rules(), AMAZON))
        await until_a_lock_is_waited_for(database_url)
        try:
            async with setting.owner.transaction():
                await setting.owner.execute(f"{LOCK} NOWAIT", other)
        except asyncpg.LockNotAvailableError:
            got_both = False
    assert (await crediting).found.credited == 2
    return got_both


async def test_crediting_locks_accounts_in_the_order_of_leases(setting: Setting, database_url: str) -> None:
    assert await credits_beside_leases(setting, database_url)


async def test_control_crediting_in_another_order_would_deadlock(setting: Setting, database_url: str) -> None:
    source: str = await setting.owner.fetchval("SELECT pg_get_functiondef('find_invalid'::regproc)")
    assert "ORDER BY id FOR" in source
    await setting.owner.execute(source.replace("ORDER BY id FOR", "ORDER BY id DESC FOR"))
    assert not await credits_beside_leases(setting, database_url)
