"""`make pictures`: those of the demo and the console in docs/images, to be looked at before they are kept."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browser_serving import show_ads_to_everybody
from console_serving import Console, tell_story
from PIL import Image
from playwright.async_api import Browser, Page, expect
from reviews_serving import Room
from test_console import PHONE, sign_in
from test_demo import open_demo, walk
from test_reviews_page import sign_in as sign_in_to_reviews

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif("ADSERVE_PICTURES" not in os.environ, reason="make pictures"),
]

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE: Any = {"width": 1_440, "height": 1_000}
TALL: Any = {"width": 1_440, "height": 1_560}
COLOURS_TURN_MS = 500
COLOURS = 256
"""As many as a palette has: a third of the bytes."""
LEASES_COME_MS = 15_000
OF_THE_FIRST_TENTH = 43
"""The sample viewer whom a ramp's first step shows ads."""


async def keep(page: Page, name: str) -> None:
    await page.wait_for_timeout(COLOURS_TURN_MS)
    picture = Image.open(BytesIO(await page.screenshot())).convert("RGB")
    picture.quantize(COLOURS).save(IMAGES / f"{name}.png", optimize=True)


async def test_the_demo(browser: Browser, page: Page, service_url: str) -> None:
    await show_ads_to_everybody(service_url)
    await page.set_viewport_size(WIDE)
    await page.wait_for_timeout(LEASES_COME_MS)
    await open_demo(page, service_url, OF_THE_FIRST_TENTH + 1)
    await page.get_by_label("Country").select_option("US")
    await walk(page, ".end")
    await page.get_by_role("button", name="Previous viewer").click()
    await expect(page.locator(".end")).to_have_count(0)
    await walk(page, ".sponsored")
    await page.get_by_role("button", name="Pause", exact=True).click()
    await expect(page.locator("#why")).to_contain_text("Bid")
    await page.get_by_role("button", name="Ramp up slowly").click()
    await expect(page.locator("#percent")).to_have_text("25", timeout=60_000)
    await expect(page.locator("#ramp-note")).to_contain_text("allowed", timeout=60_000)
    await keep(page, "demo-light")
    await page.get_by_role("button", name="Plant a harm").click()
    await expect(page.locator("#ramp-note")).to_contain_text("Taken back", timeout=60_000)
    await page.locator("[data-theme-toggle]").first.click()
    await keep(page, "demo-dark")
    await show_ads_to_everybody(service_url)
    phone = await browser.new_page(viewport=PHONE, device_scale_factor=1.5)
    await open_demo(phone, service_url)
    await walk(phone, ".sponsored")
    await keep(phone, "demo-phone")


async def test_the_reviews(page: Page, room: Room) -> None:
    for number in range(3):
        creative = await room.make(number)
    await room.service.call(
        "POST",
        f"/v1/reviews/{creative}/reject",
        {"revision": 1, "reason": "The landing page sells cables, not headphones."},
        key="reviewer",
    )
    await room.edit(creative, 2, landing_url="https://zephyra.example/headphones")
    await page.set_viewport_size(WIDE)
    await sign_in_to_reviews(page, room)
    await expect(page.locator(".review img").first).to_be_visible()
    await keep(page, "reviews-light")
    await page.locator("[data-theme-toggle]").click()
    await page.set_viewport_size(PHONE)
    await page.locator(".review").last.evaluate("card => scrollTo(0, card.offsetTop + 300)")
    await keep(page, "reviews-phone")


async def test_the_console(browser: Browser, page: Page, console: Console) -> None:
    await tell_story(console)
    await page.set_viewport_size(TALL)
    await sign_in(page, console)
    for plan, name in ((2, "console-rolled-back"), (3, "console-light")):
        await page.goto(f"{console.url}/console/rollout#plan-{plan}")
        await expect(page.locator(".band canvas").first).to_be_visible()
        await keep(page, name)
    await page.locator("[data-theme-toggle]").click()
    await keep(page, "console-dark")
    await page.locator("[data-theme-toggle]").click()
    await page.set_viewport_size(PHONE)
    await page.locator(".plan-head").evaluate("head => scrollTo(0, head.offsetTop - 176)")
    await keep(page, "console-phone")
