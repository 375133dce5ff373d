"""A reviewer's day at the console: sign in, look, approve, reject with a reason, put a slip right, and never judge what was not seen."""

from typing import Any

import pytest
from playwright.async_api import Page, expect
from reviews_serving import Room

pytestmark = pytest.mark.browser

PHONE: Any = {"width": 390, "height": 844}
WIDE: Any = {"width": 1_440, "height": 900}


async def sign_in(page: Page, room: Room, scope: str = "reviewer") -> None:
    await page.goto(f"{room.url}/console")
    await page.keyboard.type(room.service.keys[scope])
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/reviews" if scope == "reviewer" else "**/console/rollout")


def card(page: Page, creative: int) -> Any:
    return page.locator(f"#creative-{creative}")


async def test_a_reviewers_day(page: Page, room: Room) -> None:
    coffee, shoes, sound = [await room.make(number) for number in range(3)]
    await sign_in(page, room)
    await expect(page.locator("#waiting")).to_contain_text("3 creatives to look at")
    await expect(page.get_by_role("link", name="Rollout")).to_have_count(0)
    await expect(card(page, coffee).locator("code")).to_have_text("https://kopi-rana.example/")
    await expect(card(page, coffee).get_by_role("link")).to_have_count(0)
    assert (
        await card(page, coffee).locator("img").evaluate("img => img.decode().then(() => img.naturalWidth)")
    )

    # By keyboard: the next card has the focus when one was judged.
    await card(page, coffee).get_by_role("button", name="Approve").focus()
    await page.keyboard.press("Enter")
    await expect(card(page, coffee).locator(".pill")).to_have_text("Approved")
    await expect(card(page, shoes)).to_be_focused()
    await expect(page.locator("#said")).to_have_text("Approved: Pagi dimulai di sini.")
    assert await room.review(coffee) == ("approved", None)

    # Nobody is turned away without a word.
    await card(page, shoes).get_by_role("button", name="Reject").click()
    await page.keyboard.press("Tab")
    await page.locator("#ask-do").click()
    await expect(page.locator("#ask")).to_be_visible()
    assert (await room.review(shoes))[0] == "waiting"
    await page.locator("#ask-reason").fill("<b>Which</b> summit?")
    await page.locator("#ask-do").click()
    await expect(card(page, shoes).locator(".note").last).to_have_text("<b>Which</b> summit?")
    assert await room.review(shoes) == ("rejected", "<b>Which</b> summit?")
    await expect(card(page, sound)).to_be_focused()

    # A slip is put right where it was made.
    await card(page, coffee).get_by_role("button", name="Reject after all").click()
    await page.locator("#ask-reason").fill("No such slope.")
    await page.locator("#ask-do").click()
    await expect(card(page, coffee).locator(".pill")).to_have_text("Rejected")
    assert await room.review(coffee) == ("rejected", "No such slope.")
    await room.edit(coffee, 0, body="From a slope that there is.")
    await expect(card(page, coffee).locator(".earlier")).to_contain_text("Revision 1 was rejected")
    await expect(card(page, coffee).locator(".earlier")).to_contain_text("No such slope.")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#key")).to_be_visible()


async def test_what_changes_under_the_eyes_is_looked_at_again(page: Page, room: Room) -> None:
    creative = await room.make(0, headline="<img src=x onerror=alert(1)>")
    await sign_in(page, room)
    shown, approve = card(page, creative), card(page, creative).get_by_role("button", name="Approve")
    await expect(shown.locator("h3")).to_have_text("<img src=x onerror=alert(1)>")
    await room.edit(creative, 0, headline="Rude.")
    await expect(shown.locator(".fault")).to_contain_text("changed it: this is revision 2")
    await expect(approve).to_be_disabled()
    await expect(approve).to_be_enabled()
    # Where the page has not heard of it, the service refuses.
    await page.route("**/api/reviews?*", lambda route: route.abort())
    await room.edit(creative, 0, headline="Ruder.")
    await approve.click()
    await expect(shown.locator(".fault")).to_have_text(
        "The creative stands at revision 3, not 2: look at that one."
    )
    await shown.get_by_role("button", name="Reject").click()
    await page.locator("#ask-reason").fill("Rude.")
    await page.locator("#ask-do").click()
    await expect(page.locator("#ask-fault")).to_contain_text("stands at revision 3, not 2")
    assert await room.review(creative) == ("waiting", None)


async def test_what_another_judged_goes_and_the_database_away_is_said(page: Page, room: Room) -> None:
    ours, theirs = await room.make(0), await room.make(1, kind="video")
    await sign_in(page, room, "operator")
    await page.get_by_role("link", name="Reviews").click()
    await expect(card(page, theirs).locator("video")).to_have_count(1)
    await card(page, theirs).get_by_role("button", name="Approve").focus()
    await room.service.call("POST", f"/v1/reviews/{theirs}/approve", {"revision": 1}, key="reviewer")
    await expect(card(page, theirs)).to_have_count(0)
    await expect(page.locator("#stage")).to_be_focused()
    await expect(page.locator("#waiting")).to_contain_text("1 creative to look at")
    await room.service.call("POST", f"/v1/reviews/{ours}/approve", {"revision": 1}, key="reviewer")
    await expect(page.locator("#waiting")).to_have_text("Nothing waits for a review")
    await page.get_by_role("link", name="Rollout").click()
    await expect(page.locator("#switch-title")).to_be_visible()
    await page.go_back()
    await expect(page.locator("#live")).to_contain_text("Live")
    room.service.pools.operator.terminate()
    await expect(page.locator("#banner")).to_contain_text("The database does not answer")


async def test_it_fits_a_phone_and_a_wide_window_by_day_and_night(page: Page, room: Room) -> None:
    creative = await room.make(0, landing_url="https://kopi.example/" + "a" * 900, headline="W" * 100)
    await room.make(1)
    await sign_in(page, room)
    await expect(card(page, creative)).to_be_visible()
    for size in (PHONE, WIDE):
        await page.set_viewport_size(size)
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        box = await card(page, creative).get_by_role("button", name="Approve").bounding_box()
        assert box
        assert box["height"] >= 36
    day = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    await page.locator("[data-theme-toggle]").click()
    await expect(page.locator("html")).not_to_have_css("background-color", day)
