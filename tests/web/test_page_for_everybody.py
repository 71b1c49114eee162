"""The page for people in a real browser: phones, dark mode, keyboards, contrast, old browsers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.web.browser import FOREIGN_HOST, Proxy
from tests.web.place import Place, look_up, shoot, verdict_of
from tests.web.test_page import change_document

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PHONE = {"width": 360, "height": 740}
OPEN_ALL = "() => { for (const d of document.querySelectorAll('details')) d.open = true; }"
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = """() => {
    const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const light = (rgb) => [0.2126, 0.7152, 0.0722]
        .reduce((sum, weight, i) => sum + weight * linear(rgb[i] / 255), 0);
    const backOf = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const back = parse(getComputedStyle(at).backgroundColor);
            if (back.length === 3 || back[3] === 1) return back;
        }
        return [255, 255, 255];
    };
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let count = 0;
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
        const [a, b] = [parse(getComputedStyle(node).color), backOf(node)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        count++;
        if (ratio < 4.5) poor.push([walker.currentNode.data.trim().slice(0, 40), ratio.toFixed(2)]);
    }
    return [count, poor];
}"""


async def each_state(page: Page, place: Place, name: str, check: Any) -> None:
    """`check` on the empty page, on a verified and on an altered answer, everything opened."""
    await page.goto(place.url)
    await expect(page.locator("#trust-now dl")).to_be_attached()
    await page.evaluate(OPEN_ALL)
    await page.locator("#receipt-salt-field").evaluate("field => { field.hidden = false; }")
    await check()
    await shoot(page, f"{name}-start")
    assert await look_up(page, place.url, place.owner) == "Verified"
    await shoot(page, f"{name}-verified")
    await page.evaluate(OPEN_ALL)
    await check()
    async with Proxy(place.url, change_document) as proxy:
        assert await look_up(page, proxy.url, place.owner) == "This answer was altered"
        await shoot(page, f"{name}-altered")
        await page.evaluate(OPEN_ALL)
        await check()


def test_nothing_scrolls_sideways_on_a_phone(place: Place) -> None:
    async def test(page: Page) -> None:
        async def check() -> None:
            assert await page.evaluate(OVERFLOW) <= 0

        await each_state(page, place, "phone", check)

    place.visit(test, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_in_light_and_in_dark(place: Place, scheme: str) -> None:
    async def test(page: Page) -> None:
        async def check() -> None:
            count, poor = await page.evaluate(CONTRAST)
            assert count > 20
            assert poor == []

        await each_state(page, place, scheme, check)
        back = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, back[4:-1].split(","))) < 150) == (scheme == "dark")

    place.visit(test, color_scheme=scheme)


def test_everything_works_with_the_keyboard_alone(place: Place) -> None:
    async def test(page: Page) -> None:
        async def focused(press: str = "Tab") -> str:
            await page.keyboard.press(press)
            now = page.locator(":focus")
            outline = await now.evaluate("node => getComputedStyle(node).outlineStyle")
            assert outline != "none", await now.evaluate("node => node.outerHTML")
            text = " ".join((await now.inner_text()).split())
            return (await now.get_attribute("id")) or text

        await page.goto(place.url)
        await expect(page.locator("#trust-chip")).to_contain_text("first use")
        order = [await focused() for _ in range(4)]
        assert order == ["Skip to the content", "zynk", "trust-chip", "did"]
        await page.keyboard.type(place.owner)
        await page.keyboard.press("Enter")
        assert await verdict_of(page) == "Verified"
        await expect(page.get_by_role("status").first).to_contain_text("Verified")
        assert [await focused() for _ in range(2)] == ["Look up", "How this was checked"]
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Signatures of more than two thirds")).to_be_visible()
        seen = [await focused() for _ in range(8)]
        assert seen[:2] == ["https://files.example.org/", "As JSON"]
        assert seen[2:6] == [f"Details of operation {seq}" for seq in (3, 2, 1, 0)]
        assert seen[6:] == ["Check a file’s receipt", "Whom you trust"]
        await page.keyboard.press("Space")
        await expect(page.locator("#pin-text")).to_be_visible()

    place.visit(test)


def test_landmarks_headings_and_names_are_there_for_screen_readers(place: Place) -> None:
    async def test(page: Page) -> None:
        await look_up(page, place.url, place.owner)
        for role in ("banner", "main", "contentinfo", "search"):
            assert await page.get_by_role(role).count() == 1, role
        levels = await page.evaluate(
            "() => [...document.querySelectorAll('h1,h2,h3')].map((h) => Number(h.tagName[1]))"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        await page.evaluate(OPEN_ALL)
        unnamed = await page.evaluate(
            """() => [...document.querySelectorAll("input, textarea, button, a, summary")]
                .filter((n) => !(n.labels?.length || n.innerText?.trim() || n.ariaLabel))
                .map((n) => n.outerHTML)"""
        )
        assert unnamed == []
        assert await page.evaluate("document.documentElement.lang") == "en"

    place.visit(test)


def test_a_connection_without_cryptography_is_told_and_nothing_is_claimed(place: Place) -> None:
    async def test(page: Page) -> None:
        port = place.url.rsplit(":", 1)[1]
        await page.goto(f"http://{FOREIGN_HOST}:{port}/#{place.owner}")
        await expect(page.get_by_role("alert")).to_contain_text("HTTPS and on localhost only")
        await expect(page.get_by_role("button", name="Look up")).to_be_disabled()
        assert await page.locator(".verdict").count() == 0
        await shoot(page, "insecure")

    place.visit(test)


def test_a_browser_without_ed25519_is_told_and_nothing_is_claimed(place: Place) -> None:
    async def test(page: Page) -> None:
        await page.add_init_script(
            """SubtleCrypto.prototype.importKey = async () => {
                throw new DOMException("Algorithm: Unrecognized name", "NotSupportedError");
            };"""
        )
        await page.goto(f"{place.url}/#{place.owner}")
        await expect(page.get_by_role("alert")).to_contain_text("Ed25519")
        assert await page.locator(".verdict").count() == 0

    place.visit(test)
