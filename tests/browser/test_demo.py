"""What a person does in the demo: watch, click, hide, turn the rollout down, stop it."""

import re

import pytest
from browser_serving import serve_twin, show_ads_to_everybody
from browser_twin import Twin
from playwright.async_api import Page, expect
from waiting import until

pytestmark = pytest.mark.browser

STATUSES_MAX = 60


async def walk(page: Page, until: str) -> list[str]:
    """Taps through the feed until `until` is on the screen or the feed ends; answers the sponsors seen."""
    sponsors: list[str] = []
    for _ in range(STATUSES_MAX):
        await expect(page.locator(".frame, .end").first).to_be_visible()
        if await page.locator(".sponsored").count():
            sponsors.append(await page.locator(".who-name").inner_text())
        if await page.locator(until).count() or await page.locator(".end").count():
            return sponsors
        await page.keyboard.press("ArrowRight")
    raise AssertionError("the feed did not end")


async def open_demo(page: Page, url: str, viewer: int | None = None) -> None:
    await page.goto(f"{url}/demo")
    await expect(page.locator(".frame")).to_be_visible()
    if viewer is not None:
        await page.locator(f"#viewer-{viewer - 1}").click()
        await expect(page.locator("#viewer-name")).to_have_text(f"viewer-{viewer:03}")
        await expect(page.locator(".frame")).to_be_visible()
    await expect(page.locator("#log li").first).to_be_attached()
    await page.evaluate(
        "known = new Set([...document.querySelectorAll('#log li')].map(row => row.dataset.event))"
    )


async def commits(page: Page, kind: str) -> None:
    """An event of this kind comes that was not in the log when the demo was opened."""
    new = "kind => [...document.querySelectorAll('#log li')].some(row => row.querySelector('.kind-' + kind) && !known.has(row.dataset.event))"
    await page.wait_for_function(new, arg=kind)


async def test_an_ad_is_shown_explained_and_reported_as_it_happens(
    page: Page, demo: str, viewer: int
) -> None:
    await open_demo(page, demo, viewer)
    assert await walk(page, ".offer")
    await expect(page.locator(".sponsored")).to_have_text("Sponsored")
    await expect(page.locator("#why")).to_contain_text("Rollout bucket")
    await expect(page.locator("#why .caps li").first).to_contain_text("left per")
    await expect(page.locator("#why .funnel")).to_contain_text("Eligible")
    await commits(page, "impression")
    await commits(page, "view")
    async with page.context.expect_page() as opened:
        await page.locator(".offer a").click()
    await expect((await opened.value).locator(".visit-brand")).to_be_visible()
    await commits(page, "click")


async def test_a_decision_is_made_again(page: Page, service_url: str, viewer: int) -> None:
    await show_ads_to_everybody(service_url)
    await open_demo(page, service_url, viewer)
    await walk(page, ".offer")
    decision = await page.locator("#why .again code").inner_text()

    async def is_recorded() -> bool:
        return (await page.request.get(f"{service_url}/demo/api/decisions/{decision}")).ok

    await until(is_recorded)
    await page.get_by_role("button", name="Make it again").click()
    await expect(page.locator("#why .again output")).to_have_text("Made again: the same result.")


async def test_hiding_ends_an_advertisers_ads_for_this_viewer(page: Page, demo: str, viewer: int) -> None:
    await open_demo(page, demo, viewer)
    sponsor = (await walk(page, ".offer"))[-1]
    await page.get_by_label("About this ad").click()
    await page.get_by_role("menuitem", name=re.compile("^Hide ads from")).click()
    await commits(page, "hide")
    assert sponsor not in await walk(page, ".end")
    await page.get_by_role("button", name="Load a fresh feed").click()
    assert sponsor not in await walk(page, ".end")


async def test_reporting_is_recorded(page: Page, demo: str, viewer: int) -> None:
    await open_demo(page, demo, viewer)
    await walk(page, ".offer")
    await page.get_by_label("About this ad").click()
    await page.get_by_role("menuitem", name="Report this ad").click()
    await commits(page, "report")


async def test_at_nought_percent_nobody_sees_ads(page: Page, demo: str, viewer: int) -> None:
    await open_demo(page, demo, viewer)
    await page.locator("#slider").focus()
    await page.keyboard.press("Home")
    await expect(page.locator("#percent")).to_have_text("0")
    await expect(page.locator("#viewers-count")).to_have_text("0 of 200 see ads")
    await expect(page.locator("#why-title")).to_have_text("Why no ads")
    await page.locator("#slider").blur()
    assert await walk(page, ".end") == []


async def test_at_ten_percent_the_lit_viewers_see_ads_and_the_others_none(
    page: Page, demo: str, viewer: int
) -> None:
    await open_demo(page, demo, viewer)
    await page.locator("#slider").focus()
    while await page.locator("#percent").inner_text() != "10":
        await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#viewers-count")).to_have_text(re.compile(r"^\d+ of 200"))
    lit = await page.locator("#grid .is-in").count()
    assert 5 <= lit <= 40
    await expect(page.locator("#why p.aside")).to_contain_text("below 1,000")
    await page.locator("#grid .is-in").first.click()
    await expect(page.locator("#strip .is-ad").first).to_be_visible()
    await page.locator("#grid i:not(.is-in)").first.click()
    await expect(page.locator("#why-title")).to_have_text("Why no ads")
    await expect(page.locator("#strip .is-ad")).to_have_count(0)


async def test_the_switch_stops_ads_and_lets_them_run_again(page: Page, demo: str, viewer: int) -> None:
    await open_demo(page, demo, viewer)
    await page.get_by_role("button", name="Stop all ads").click()
    await expect(page.locator("#rollout-note")).to_have_text(re.compile(r"^Stopped on \d of 1 replica\.$"))
    await expect(page.locator("#why")).to_contain_text("stopped for everyone")
    await expect(page.locator("#viewers-count")).to_have_text("0 of 200 see ads")
    assert await walk(page, ".end") == []
    await page.get_by_role("button", name="Let ads run").click()
    await expect(page.locator("#why-title")).to_have_text("Why this ad")
    assert await walk(page, ".offer")


STATUS = "document.querySelector('.segments').getAnimations({subtree: true})[0]"
STATUS_MS = f"{STATUS}.currentTime"
"""For how long the status on the screen has been shown."""
SHOWN_FOR = f"ms => {STATUS_MS} > ms"


async def test_time_moves_the_statuses_and_a_hold_stops_it(page: Page) -> None:
    async with serve_twin(Twin()) as url:
        await open_demo(page, url)
        first = await page.locator(".frame").element_handle()
        await page.wait_for_function(SHOWN_FOR, arg=100)
        box = await page.locator(".tap-next").bounding_box()
        assert box
        await page.mouse.move(box["x"] + 50, box["y"] + 300)
        await page.mouse.down()
        await expect(page.locator("#screen")).to_have_class(re.compile("is-held"))
        await page.evaluate(f"{STATUS}.ready.then(() => null)")  # it stops with the next frame
        held_ms = await page.evaluate(STATUS_MS)
        await page.wait_for_timeout(500)
        assert await page.evaluate(STATUS_MS) == held_ms
        await page.mouse.up()
        await page.wait_for_function(SHOWN_FOR, arg=held_ms + 100)
        assert await first.evaluate("frame => frame.isConnected"), "letting go is not a tap"
        await page.evaluate(f"{STATUS_MS} = 449_000")
        await page.wait_for_function("frame => !frame.isConnected", arg=first)


async def test_ads_that_nobody_saw_are_given_back(page: Page) -> None:
    twin = Twin()
    async with serve_twin(twin) as url:
        await open_demo(page, url)
        await walk(page, ".offer")
        await commits(page, "impression")
        ads = await page.locator("#strip .is-ad").count()
        await page.get_by_role("button", name="Next viewer").click()
        await expect(page.locator("#viewer-name")).to_have_text("viewer-002")
        await expect(page.locator(".frame")).to_be_visible()
    assert len(twin.released) == ads - 1
    shown = {event["ticket"] for event in twin.events}
    assert not shown & set(twin.released)


async def test_on_a_phone_the_panels_wait_in_a_sheet(page: Page) -> None:
    async with serve_twin(Twin()) as url:
        await page.set_viewport_size({"width": 390, "height": 844})
        await open_demo(page, url)
        screen = await page.locator("#screen").bounding_box()
        assert screen
        assert (screen["width"], screen["height"]) == (390, 844)
        await expect(page.locator("#sheet")).to_be_hidden()
        await page.get_by_role("button", name="Behind this feed").click()
        await expect(page.locator("#slider")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#sheet")).to_be_hidden()


async def test_the_slider_is_a_small_ramp_that_harm_takes_back(page: Page, service_url: str) -> None:
    await show_ads_to_everybody(service_url)
    await open_demo(page, service_url)
    await page.get_by_role("button", name="Ramp up slowly").click()
    await expect(page.locator("#slider")).to_be_disabled()
    await expect(page.locator("#percent")).to_have_text("25")
    await page.get_by_role("button", name="Plant a harm").click()
    await expect(page.locator("#ramp-note")).to_contain_text("Taken back: session seconds")
    await expect(page.locator("#ramp-note")).to_contain_text("worse than the -5.00 % allowed")
    await expect(page.locator("#slider")).to_be_enabled()
    await show_ads_to_everybody(service_url)
