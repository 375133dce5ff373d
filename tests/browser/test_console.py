"""An operator's day at the console: sign in, plan, approve, watch steps, see a guardrail stop one, read why, pause everything."""

import asyncio
import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from console_serving import Console, tell_story
from playwright.async_api import Browser, Page, Route, expect

from adserve.domain.ramps import Metric
from adserve.domain.time import SECOND_MS
from adserve.pages.console import guard
from adserve.store import rollouts

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


async def give_key(page: Page, console: Console, key: str) -> None:
    await page.goto(f"{console.url}/console")
    await expect(page.get_by_label("Operator or reviewer key")).to_be_focused()
    await page.keyboard.type(key)
    await page.keyboard.press("Enter")


async def sign_in(page: Page, console: Console) -> None:
    await give_key(page, console, console.key)
    await expect(page.locator("#switch-title")).to_have_text("Ads are running")


async def paused(console: Console) -> bool:
    async with console.pools.operator.acquire() as connection:
        return await rollouts.paused(connection)


async def confirm(page: Page, act: str, reason: str) -> None:
    await page.locator(".acts").get_by_role("button", name=act).click()
    await expect(page.locator("#ask-reason")).to_be_focused()
    await page.keyboard.type(reason)
    await page.locator("#ask-do").click()
    await expect(page.locator("#ask")).to_be_hidden()


async def keep_steps(page: Page, *kept: int) -> None:
    rows = page.locator(".rows .step-row")
    for number in reversed(range(await rows.count())):
        if number not in kept:
            await rows.nth(number).get_by_role("button", name="Remove step").click()


async def enter(page: Page, console: Console) -> None:
    await give_key(page, console, "ads_guessed")
    await expect(page.locator("#fault")).to_have_text("This key is unknown or revoked.")
    await sign_in(page, console)
    await expect(page.locator(".empty h2")).to_have_text("No plan yet")


async def plan(page: Page) -> None:
    """What is wrong is said beside it, and the form keeps what was written."""
    percent = page.locator(".rows [name=percent]").nth(1)
    await page.locator(".empty a").click()
    await keep_steps(page, 1, 2, 3)
    await page.locator("[name=countries]").fill("ID, SG")
    await page.locator("[name=reason]").fill("<b>First</b> ads")
    hours = page.locator("[name=hours]")
    for unread in ("09:00-17:00", "22-2", "-5"):
        await hours.fill(unread)
        await page.get_by_role("button", name="Start this plan").click()
        await expect(page.locator("[data-field=hours] .fault")).to_have_text(
            f"{unread} is no hour or range such as 9-17"
        )
    await hours.fill("")
    await percent.fill("0.123")
    await page.get_by_role("button", name="Start this plan").click()
    await expect(percent).to_have_attribute("aria-invalid", "true")
    await expect(page.locator(".step-row .fault").nth(1)).to_contain_text("more than two decimals")
    await percent.fill("1")
    await page.get_by_role("button", name="Start this plan").click()
    await expect(page.locator(".plan-title h2")).to_have_text("Indonesia, Singapore")
    await expect(page.locator(".moves .move-why").last).to_have_text("<b>First</b> ads")


async def stop_everything(page: Page, console: Console) -> None:
    """One press is enough; letting ads run again asks first."""
    await page.locator("#switch-button").press("Enter")
    await expect(page.locator("#switch-note")).to_contain_text("Paused on 3 of 3 replicas.")
    assert await paused(console)
    await page.locator("#switch-button").press("Enter")
    await page.keyboard.press("Escape")
    assert await paused(console)
    await page.locator("#switch-button").click()
    await page.locator("#ask-do").click()
    await expect(page.locator("#switch-title")).to_have_text("Ads are running")
    assert not await paused(console)


async def test_an_operators_day(page: Page, console: Console) -> None:
    state, percent = page.locator(".plan-title .pill"), page.locator(".plan-percent strong")
    await enter(page, console)
    await plan(page)
    await console.look(1, SECOND_MS)
    await expect(state).to_have_text("Running")
    await expect(percent).to_have_text("0.1")

    # It advances by itself, and waits for a person before the step that needs one.
    await console.look(5)
    await expect(percent).to_have_text("1")
    await expect(page.locator(".stair").first.locator(".stair-exposed")).to_have_text(re.compile(r"^\d+$"))
    await console.look(26)
    await expect(state).to_have_text("Needs approval")
    await expect(page.locator(".band canvas").first).to_be_visible()
    await confirm(page, "Approve 5 %", "looked at with the feed team")
    await expect(percent).to_have_text("5")
    await expect(page.locator(".moves li").first).to_contain_text("Mira Tan approved")

    # Harm takes it back to those who saw ads before, and it says why with the figures.
    console.effects = {Metric.SESSION_SECONDS: -0.08}
    await console.look(12)
    await expect(state).to_have_text("Rolled back")
    await expect(percent).to_have_text("1")
    await expect(page.locator(".plan-reason")).to_contain_text("worse than the -2.00 % allowed; back to 1 %")
    await expect(page.locator(".band.is-breached h3")).to_have_text("Session seconds")
    await page.locator(".seen summary").first.press("Enter")
    await expect(page.locator(".seen tbody tr").first).to_contain_text("Breached")
    await expect(page.locator(".acts")).to_have_count(0)

    await stop_everything(page, console)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#key")).to_be_visible()


async def test_a_mismatch_holds_a_plan_until_a_person_resumes_it(page: Page, console: Console) -> None:
    await tell_story(console)
    await sign_in(page, console)
    await confirm(page, "Approve 25 %", "all is well")
    console.imbalance = 1.2
    await console.look(2)
    await expect(page.locator(".plan-title .pill")).to_have_text("Held")
    await expect(page.locator(".arms-card .pill")).to_have_text("Mismatch")
    await expect(page.locator(".plan-reason")).to_contain_text("chance does not explain")
    await confirm(page, "Resume plan", "the log of assignments was late")
    await expect(page.locator(".plan-title .pill")).to_have_text("Running")
    await confirm(page, "Roll back", "not today")
    await expect(page.locator(".plan-title .pill")).to_have_text("Rolled back")


async def test_it_fits_a_phone_and_a_wide_window_by_day_and_night_and_bears_a_lost_database(
    page: Page, console: Console
) -> None:
    await tell_story(console)
    await sign_in(page, console)
    width = "document.documentElement.scrollWidth"
    for size in (PHONE, {"width": 1_440, "height": 900}):
        await page.set_viewport_size(size)
        for place, shows in (("#plan-3", ".band canvas"), ("#new", ".form"), ("#plan-2", ".is-breached")):
            await page.goto(f"{console.url}/console/rollout{place}")
            await expect(page.locator(shows).first).to_be_visible()
            assert await page.evaluate(width) <= size["width"], (size, place)
        box = await page.locator("#switch-button").bounding_box()
        assert box
        assert box["width"] >= 200
        assert box["height"] >= 48
    day = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    await page.locator("[data-theme-toggle]").click()
    await expect(page.locator("html")).not_to_have_css("background-color", day)
    await without_a_database(page, console)


async def without_a_database(page: Page, console: Console) -> None:
    console.pools.operator.terminate()
    await expect(page.locator("#banner")).to_contain_text("The database does not answer")
    await expect(page.locator("#banner")).to_contain_text("SIGUSR1")


TITLES = """() => {
  const title = document.querySelector("#switch-title");
  window.titles = [];
  new MutationObserver(() => titles.push(title.textContent)).observe(title, { childList: true });
}"""


async def test_the_switch_waits_for_no_plan_and_shows_nothing_of_before_it_was_turned(
    page: Page, console: Console
) -> None:
    plans, pressed, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hang(route: Route) -> None:
        await plans.wait()
        await route.continue_()

    async def come_late(route: Route) -> None:
        answer = await route.fetch()
        asked.set()
        await pressed.wait()
        await route.fulfill(response=answer)

    await page.route("**/api/ramps*", hang)
    await sign_in(page, console)
    await expect(page.locator("#switch-button")).to_be_enabled()
    await page.route("**/api/rollout/switch", come_late, times=1)
    plans.set()
    await asked.wait()
    await page.evaluate(TITLES)
    await page.locator("#switch-button").press("Enter")
    await expect(page.locator("#switch-title")).to_have_text("All ads are paused")
    async with page.expect_request("**/api/rollout/switch"):  # of the next reading
        pressed.set()
    assert set(await page.evaluate("titles")) == {"All ads are paused"}


async def test_an_address_of_no_plan_says_so_and_not_that_the_service_is_away(
    page: Page, console: Console
) -> None:
    await sign_in(page, console)
    await page.goto(f"{console.url}/console/rollout#plan-99")
    await expect(page.locator("#stage")).to_have_text("There is no plan #99.")
    async with page.expect_request(
        "**/api/rollout/switch"
    ):  # of the reading behind the one that found nothing
        pass
    await expect(page.locator("#live")).to_contain_text("Live")
    await expect(page.locator("#banner")).to_be_hidden()


async def test_what_was_asked_before_closes_no_other_dialog(page: Page, console: Console) -> None:
    """Who sees the dialog of a roll-back close takes the plan for rolled back."""
    await tell_story(console)
    await sign_in(page, console)
    sent, answered = asyncio.Event(), asyncio.Event()

    async def hang(route: Route) -> None:
        sent.set()
        await answered.wait()
        await route.continue_()

    await page.route("**/api/ramps/3/pause", hang)
    await page.goto(f"{console.url}/console/rollout#plan-3")
    await page.locator(".acts").get_by_role("button", name="Pause plan").click()
    await page.locator("#ask-reason").fill("late")
    await page.locator("#ask-do").click()
    await sent.wait()
    await page.locator("#ask").get_by_role("button", name="Cancel").click()
    await page.locator(".acts").get_by_role("button", name="Roll back").click()
    await page.locator("#ask-reason").fill("not yet sent")
    answered.set()
    await expect(page.locator(".plan-head .pill")).to_have_text("Paused")
    async with page.expect_request("**/api/rollout/switch"):
        pass
    await expect(page.locator("#ask")).to_be_visible()
    await expect(page.locator("#ask-reason")).to_have_value("not yet sent")


async def test_a_switch_that_could_not_be_turned_says_where_it_stands(page: Page, console: Console) -> None:
    await sign_in(page, console)
    button = page.locator("#switch-button")
    await button.click()
    await expect(page.locator("#switch-title")).to_have_text("All ads are paused")
    await page.route("**/api/**", lambda route: route.abort())
    await button.click()
    await page.locator("#ask-do").click()
    await expect(page.locator("#ask-fault")).to_have_text("The service does not answer.")
    await page.keyboard.press("Escape")
    await expect(button).to_have_text("Let ads run again")
    assert await paused(console)


ATTACK = """url => fetch(url + "/console/api/rollout/pause", {method: "POST", mode: "no-cors", credentials: "include"}).then(() => true, () => true)"""


async def test_a_page_on_another_port_cannot_use_the_session(
    browser: Browser, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another port of this host is the same site: the cookie goes along, and only our own check is left. Without it, as a control,
    the other page stops all ads."""

    async def lure(_request: web.Request) -> web.Response:
        return web.Response(text="<h1>You have won</h1>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", lure)
    context = await browser.new_context()
    page = await context.new_page()
    await sign_in(page, console)
    async with TestServer(app) as elsewhere:
        await page.goto(str(elsewhere.make_url("/")))
        await page.evaluate(ATTACK, console.url)
        assert not await paused(console)
        monkeypatch.setattr(guard, "check_origin", lambda _: None)
        await page.evaluate(ATTACK, console.url)
        assert await paused(console)
    await context.close()
