"""What PostgreSQL itself sees to: no keys of an erased viewer come in behind its erasure, whoever settles."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from uuid import uuid4

from msgspec.structs import replace
from outcome_rows import assigned, outcomes, told
from world import NOW_MS, World

from adserve.access.keys import Key
from adserve.domain.events import Event, Outcome
from adserve.domain.ids import KeyId
from adserve.domain.tickets import Ticket
from adserve.domain.time import HOUR_MS, SECOND_MS, day_of
from adserve.domain.traffic import Origin, Verdict
from adserve.limits.erased import nameless
from adserve.metering.tickets import AHEAD_MS, OPENING_TAIL_MS, SEALING_PERIOD_MS
from adserve.store.erasures import Erasures
from adserve.store.secrets import Secrets
from adserve.store.spool import Row
from adserve.store.spools import Spools

VIEWER, OTHER = b"c" * 16, b"o" * 16
KEY = Key(KeyId(1), "somebody's", frozenset(), None)


def traced(world: World, ticket: Ticket) -> Event:
    """An event of which it is known where it came from."""
    return replace(world.event(ticket), verdict=Verdict(origin=Origin(device=b"d" * 16)))


async def named(world: World, ticket: Ticket) -> tuple[int, ...]:
    """How many rows of the maps, and of the origins, have the ticket."""
    counts = []
    for table in ("viewer_caps", "viewer_log", "event_origins"):
        pool = world.pools.recorder
        counts.append(
            await pool.fetchval(f"SELECT count(ticket_id) FROM {table} WHERE ticket_id = $1", ticket.ticket)
        )
    return tuple(counts)


async def test_an_event_of_before_is_billed_without_its_viewer(world: World) -> None:
    erasures, lease = Erasures(world.pools.recorder), await world.lease(100_000)
    erasure = await erasures.ask(VIEWER, uuid4(), KEY, NOW_MS)
    for cut_ms in (None, NOW_MS + SECOND_MS):
        if cut_ms is not None:
            await erasures.finish([erasure.id], cut_ms)
        before, other = world.ticket(lease), world.ticket(lease, viewer_cap=OTHER)
        after = world.ticket(lease, issued_at_ms=NOW_MS + SECOND_MS)
        settled = await world.journal.settle([traced(world, ticket) for ticket in (before, other, after)])
        assert [one.outcome for one in settled] == [Outcome.RECORDED] * 3
        assert await named(world, before) == (0, 0, 0)
        assert await named(world, other) == (1, 1, 1)
        assert await named(world, after) == ((0, 0, 0) if cut_ms is None else (1, 1, 1))


async def test_who_waited_to_be_assigned_while_they_were_erased_is_not(world: World) -> None:
    """A process that could not reach PostgreSQL for the whole of an erasure knows nothing of it when it writes."""
    erasures, store = Erasures(world.pools.recorder), outcomes(world.pools)
    noted, of_another = assigned(1), assigned(2)
    erasure = await erasures.ask(noted.viewer, uuid4(), KEY, NOW_MS)
    await store.assign([noted, of_another])
    await erasures.finish([erasure.id], NOW_MS + SECOND_MS)
    await store.assign([noted])
    viewers = "SELECT array_agg(viewer ORDER BY viewer) FROM arm_viewers"
    assert await world.pools.recorder.fetchval(viewers) == [of_another.viewer]
    await store.assign([noted._replace(at_ms=NOW_MS + SECOND_MS)])  # somebody new
    assert await world.pools.recorder.fetchval(viewers) == [noted.viewer, of_another.viewer]


async def test_an_outcome_of_before_an_erasure_brings_nobody_back(world: World) -> None:
    """The process that is told may not have heard of the erasure."""
    erasures, store = Erasures(world.pools.recorder), outcomes(world.pools)
    before, of_another = told(1, 1, 20), told(2, 2, 20)
    erasure = await erasures.ask(before.viewer, uuid4(), KEY, NOW_MS)
    assert await store.add([before, of_another], NOW_MS) == {before.key, of_another.key}
    await erasures.finish([erasure.id], NOW_MS + SECOND_MS)
    await store.add([told(3, 1, 20)], NOW_MS + HOUR_MS)
    viewers = "SELECT array_agg(viewer ORDER BY viewer) FROM arm_viewers"
    assert await world.pools.recorder.fetchval(viewers) == [of_another.viewer]
    await store.add([told(4, 1, 20)._replace(at_ms=NOW_MS + SECOND_MS)], NOW_MS + HOUR_MS)  # somebody new
    assert await world.pools.recorder.fetchval(viewers) == [before.viewer, of_another.viewer]


async def test_control_without_a_tombstone_an_outcome_brings_its_viewer_back(world: World) -> None:
    erasures, store = Erasures(world.pools.recorder), outcomes(world.pools)
    erasure = await erasures.ask(told(1, 1).viewer, uuid4(), KEY, NOW_MS)
    await erasures.finish([erasure.id], NOW_MS + SECOND_MS)
    await world.pools.recorder.execute("DELETE FROM erasures")
    await store.add([told(1, 1, 20)], NOW_MS + HOUR_MS)
    assert await world.pools.recorder.fetchval("SELECT viewer FROM arm_viewers") == told(1, 1).viewer


async def test_control_without_a_tombstone_its_its_keys_are_stored_until_they_are_forgotten(
    world: World,
) -> None:
    ticket = world.ticket(await world.lease(100_000))
    await world.journal.settle([traced(world, ticket)])
    assert await named(world, ticket) == (1, 1, 1)
    await Erasures(world.pools.recorder).forget_maps(day_of(NOW_MS), [VIEWER])
    assert await named(world, ticket) == (0, 0, 0)


async def test_what_names_nobody_is_stored_for_nobody(world: World) -> None:
    ticket = nameless(world.ticket(await world.lease(100_000)))
    (settled,) = await world.journal.settle([traced(world, ticket)])
    assert settled.outcome is Outcome.RECORDED
    assert await named(world, ticket) == (0, 0, 0)


async def stripped_by(world: World, strip: Callable[[Erasures], Awaitable[None]]) -> list[bool]:
    """Whether it leaves the keys out of an event that could not be stored, one that could not be read, and another viewer's."""
    whose = {VIEWER: world.ticket(1), OTHER: world.ticket(1, viewer_cap=OTHER)}
    await world.journal.quarantine(world.event(whose[VIEWER]), "bad")
    for nth, (viewer, ticket) in enumerate(whose.items(), 2):
        event = world.event(ticket, "click")
        row = Row(1, ticket.ticket, "click", event.event, NOW_MS, None, b"\xff" + viewer)
        await Spools(world.pools.recorder).put_aside(row, "unread", NOW_MS + nth * SECOND_MS)
    await strip(Erasures(world.pools.recorder))
    rows = await world.pools.analyst.fetch("SELECT event, nameless FROM quarantined_events ORDER BY at")
    keys = VIEWER, OTHER, b64encode(VIEWER)
    assert [nameless for _, nameless in rows] == [not any(key in event for key in keys) for event, _ in rows]
    return [nameless for _, nameless in rows]


async def test_what_could_not_be_settled_is_kept_without_its_viewer_also_where_it_cannot_be_read(
    world: World,
) -> None:
    assert await stripped_by(world, lambda erasures: erasures.strip_waiting(VIEWER)) == [True, True, False]


async def test_what_is_old_is_kept_without_its_viewer_also_where_it_cannot_be_read(world: World) -> None:
    assert await stripped_by(world, lambda erasures: erasures.strip_old(NOW_MS + HOUR_MS)) == [True] * 3


async def test_an_erasure_goes_on_once_and_begins_anew_only_after_its_end(world: World) -> None:
    erasures, first = Erasures(world.pools.recorder), uuid4()
    assert (await erasures.ask(VIEWER, first, KEY, NOW_MS)).id == first
    assert (await erasures.ask(VIEWER, uuid4(), KEY, NOW_MS + 1)).id == first
    await erasures.finish([first], NOW_MS + HOUR_MS)
    ended = await erasures.of(VIEWER)
    assert ended is not None
    assert (ended.viewer, ended.cut_ms) == (None, NOW_MS + HOUR_MS)
    again = await erasures.ask(VIEWER, uuid4(), KEY, NOW_MS + 2 * HOUR_MS)
    assert again.id != first
    assert (again.viewer, again.cut_ms) == (VIEWER, None)


async def test_a_tombstone_stands_as_long_as_a_ticket_of_before_can_be_opened(world: World) -> None:
    erasures, secrets = Erasures(world.pools.recorder), Secrets(world.pools.catalogue)
    await secrets.rotate(NOW_MS)
    erasure = await erasures.ask(VIEWER, uuid4(), KEY, NOW_MS)
    await erasures.forget_tombstones()
    await erasures.finish([erasure.id], NOW_MS + HOUR_MS)
    rotated_ms = NOW_MS + SEALING_PERIOD_MS
    last_ms = rotated_ms + AHEAD_MS + OPENING_TAIL_MS
    for now_ms in (NOW_MS, rotated_ms, last_ms):
        await secrets.rotate(now_ms)
        await erasures.forget_tombstones()
        assert await erasures.of(VIEWER) is not None
    await secrets.rotate(last_ms + 1)
    await erasures.forget_tombstones()
    assert await erasures.of(VIEWER) is None
