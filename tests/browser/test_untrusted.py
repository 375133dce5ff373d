"""Feeds and creatives come from outside: whatever they hold is text, and leads nowhere that is not ours."""

from typing import Any

import pytest
from browser_serving import serve_twin
from browser_twin import Twin
from playwright.async_api import Page, expect

pytestmark = pytest.mark.browser

MARKUP = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'


def spoil_texts(feed: dict[str, Any]) -> None:
    for item in feed["items"]:
        if item.get("type") == "ad":
            item["ad"]["advertiser"]["name"] = MARKUP
            item["ad"]["creative"] |= {"headline": MARKUP, "body": MARKUP, "call_to_action": MARKUP}
        else:
            item["caption"] = MARKUP
    for author in feed["authors"].values():
        author |= {"name": MARKUP, "hue": "0);background:url(//example.com)"}


async def test_markup_is_shown_as_text(page: Page) -> None:
    async with serve_twin(Twin(spoil_texts)) as url:
        await page.goto(f"{url}/demo")
        await expect(page.locator(".who-name")).to_have_text(MARKUP)
        for _ in range(20):
            if await page.locator(".offer").count():
                break
            await page.keyboard.press("ArrowRight")
        await expect(page.locator(".offer h3")).to_have_text(MARKUP)
        assert await page.evaluate("window.owned") is None


@pytest.mark.parametrize(
    "address", ["javascript:window.owned=1", "//example.com/x", "data:text/html,x", "/demo/api/pause"]
)
async def test_an_ad_that_leads_elsewhere_is_left_out(page: Page, address: str) -> None:
    def spoil(feed: dict[str, Any]) -> None:
        for item in feed["items"]:
            if item.get("type") == "ad":
                item["urls"]["click"] = address

    async with serve_twin(Twin(spoil)) as url:
        await page.goto(f"{url}/demo")
        await expect(page.locator("#strip i").first).to_be_visible()
        assert await page.locator("#strip .is-ad").count() == 0


async def test_control_an_ad_with_its_own_addresses_stays(page: Page) -> None:
    async with serve_twin(Twin()) as url:
        await page.goto(f"{url}/demo")
        await expect(page.locator("#strip .is-ad").first).to_be_visible()
