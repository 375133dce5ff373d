from datetime import timedelta

from msgspec.structs import replace
from world import NOW_MS, PRICE_MICROS, World

from adserve.domain.time import DAY_MS, day_of
from adserve.store.figures import Figures


async def test_the_newest_events_come_first_and_are_bounded(world: World) -> None:
    lease = await world.lease(10_000)
    events = [replace(world.event(world.ticket(lease)), received_at_ms=NOW_MS + at) for at in range(3)]
    await world.journal.settle(events)
    newest = await Figures(world.pools.analyst, lambda: NOW_MS).newest_events(2)
    assert [row["event"] for row in newest] == [events[2].event, events[1].event]
    assert (newest[0]["advertiser_name"], newest[0]["campaign_name"]) == ("a", "c")
    assert newest[0]["billed_micros"] == PRICE_MICROS


async def test_money_is_that_of_the_budget_day(world: World) -> None:
    other = await world.add_campaign(world.advertiser, daily=50_000)
    yesterday = await world.lease(10_000, day=day_of(NOW_MS) - timedelta(days=1))
    today = await world.lease(10_000)
    tickets = [
        world.ticket(yesterday, budget_day=day_of(NOW_MS - DAY_MS).toordinal()),
        world.ticket(today),
        world.ticket(today),
    ]
    await world.journal.settle([world.event(ticket) for ticket in tickets])
    rows = await Figures(world.pools.analyst, lambda: NOW_MS).campaign_money()
    assert {row["campaign"]: (row["spent_micros"], row["daily_micros"]) for row in rows} == {
        world.campaign: (2 * PRICE_MICROS, None),
        other: (0, 50_000),
    }
