"""The page for people in a real browser: verdicts, trust, receipts."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from playwright.async_api import Page, expect

from did.multikey import decode_base64url
from ledger.block import Header
from rpc.client import RpcClient
from tests.web.browser import Change, Proxy
from tests.web.place import UNKNOWN, Place, look_up, pin, shoot, verdict_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_an_identity_is_verified_and_its_document_control_and_history_shown(place: Place) -> None:
    async def test(page: Page) -> None:
        assert await look_up(page, place.url, place.owner) == "Verified"
        await expect(page.locator("#verdict .verdict")).to_have_attribute("data-kind", "good")
        await expect(page.locator("#verdict")).to_contain_text("as first seen")
        document = page.get_by_role("region", name="Document")
        await expect(document).to_contain_text(place.owner)
        await expect(document.get_by_text("authentication", exact=True)).to_be_visible()
        charge = page.get_by_role("region", name="Who controls it")
        await expect(charge).to_contain_text("One key")
        await expect(charge).to_contain_text("recovered by tier 1")
        await expect(charge).to_contain_text("Committed: only the keys behind")
        await expect(charge).not_to_contain_text("can still undo")  # no tier is above the first
        items = page.get_by_role("region", name="History").locator("li[data-seq]")
        shown = [(await i.inner_text()).split("\n")[0] for i in await items.all()]
        assert shown == ["#3 Recovered by tier 1", "#2 Updated", "#1 Updated", "#0 Created"]
        await expect(items.nth(1)).to_contain_text("nullified by #3")
        await expect(items.nth(1)).to_contain_text("control changed")
        await expect(items.nth(2)).not_to_contain_text("nullified")
        await expect(items.nth(2)).not_to_contain_text("control changed")
        await shoot(page, "desktop-light")

    place.visit(test)


def test_a_link_opens_the_identity_and_going_back_the_one_before(place: Place) -> None:
    async def test(page: Page) -> None:
        await page.goto(f"{place.url}/?did={place.gone}")
        assert await verdict_of(page) == "Verified: deactivated"
        assert await page.get_by_role("region", name="Document").count() == 0
        await expect(page.get_by_role("region", name="Who controlled it")).to_be_visible()
        await expect(page.get_by_role("region", name="History")).to_contain_text("#1 Deactivated")
        await page.goto(f"{place.url}/?did={place.gone}#{UNKNOWN}")
        title = page.locator("#verdict h2")
        await expect(title).to_have_text("Proven: there is no such identity")
        assert await page.locator("#result section").count() == 0
        await page.goto(f"{place.url}/?did={place.gone}#{place.owner}%23key-1")
        await expect(title).to_have_text("Verified")
        await page.go_back()
        await expect(title).to_have_text("Proven: there is no such identity")

    place.visit(test)


def test_what_is_no_did_is_told_at_the_field(place: Place) -> None:
    async def test(page: Page) -> None:
        await page.goto(place.url)
        await expect(page.locator("#trust-chip")).to_contain_text("first use")
        field = page.get_by_label("Identifier (DID)")
        for typed in ("", "hello", "did:web:example.org", place.owner[:-1]):
            await field.evaluate("field => field.removeAttribute('aria-invalid')")
            await field.fill(typed)
            await field.press("Enter")
            await expect(field).to_have_attribute("aria-invalid", "true")
            await expect(field).to_be_focused()
            await expect(field).to_have_accessible_description(re.compile("not a did:zynk"))
            assert await page.locator("#verdict .verdict").count() == 0
        await field.fill(place.gone)
        await field.press("Enter")
        assert await verdict_of(page) == "Verified: deactivated"
        await expect(field).not_to_have_attribute("aria-invalid", "true")

    place.visit(test)


def change_document(path: str, query: dict[str, str], text: str) -> str:
    del query
    return text.replace("files.example.org", "evil.example.org") if "did_resolve" in path else text


def change_proof(path: str, query: dict[str, str], text: str) -> str:
    del query
    if "did_resolve" not in path:
        return text
    at = text.index('"certificate":"') + 200
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def hide_the_theft(path: str, query: dict[str, str], text: str) -> str:
    del query
    return text.replace('"nullifiedBy":3', '"nullifiedBy":null') if "history" in path else text


def drop_an_operation(path: str, query: dict[str, str], text: str) -> str:
    del query
    if "did_history" not in path:
        return text
    page = json.loads(text)
    page["operations"].pop(1)
    return json.dumps(page)


def change_metadata(path: str, query: dict[str, str], text: str) -> str:
    del query
    return text.replace('"updated":"2', '"updated":"3') if "did_resolve" in path else text


@pytest.mark.parametrize(
    ("change", "title", "reason"),
    [
        (change_document, "This answer was altered", "document is not the one that the record"),
        (change_metadata, "This answer was altered", "says something that its proof does not"),
        (change_proof, "Not signed by the validators", "certificate has a bad signature"),
        (hide_the_theft, "The history was altered", "flags the wrong operations as nullified"),
        (drop_an_operation, "The history was altered", "history is not whole"),
        (
            lambda path, _, text: text[:-1] if "did_" in path else text,
            "This answer is not genuine",
            "not JSON",
        ),
    ],
    ids=["document", "metadata", "proof", "nullified", "operation missing", "cut off"],
)
def test_an_altered_answer_shows_as_such(
    place: Place, change: Change, title: str, reason: str
) -> None:
    async def test(page: Page) -> None:
        async with Proxy(place.url, change) as proxy:
            assert await look_up(page, proxy.url, place.owner) == title
            await page.get_by_text("What was found").click()
            await expect(page.locator("#verdict")).to_contain_text(reason)
            await expect(page.locator("#verdict")).to_contain_text("Nothing of it is shown as true")
            await expect(page.locator("#verdict .verdict")).to_have_attribute("data-kind", "bad")
            assert await page.locator("#result section").count() == 0
            await shoot(page, f"altered-{change.__name__.strip('<>')}")

    place.visit(test)


def test_a_hidden_identity_is_caught(place: Place) -> None:
    async def test(page: Page) -> None:
        absent = await page.request.get(f"{place.url}/read/did_resolve?did={UNKNOWN}")
        hidden = (await absent.text()).replace(UNKNOWN, place.owner)
        async with Proxy(place.url, lambda p, _, t: hidden if "did_resolve" in p else t) as proxy:
            title = await look_up(page, proxy.url, place.owner)
            assert title == "This identity may be hidden"
            await expect(page.locator("#verdict")).to_contain_text("its proof does not show that")
            await shoot(page, "hidden")

    place.visit(test)


def test_a_state_of_before_in_a_newer_dress_is_caught(place: Place) -> None:
    """The record of another state under the header and signatures of the true answer."""

    async def test(page: Page) -> None:
        other = json.loads(
            await (await page.request.get(f"{place.url}/read/did_resolve?did={place.gone}")).text()
        )

        def dress(path: str, query: dict[str, str], text: str) -> str:
            if "did_resolve" not in path:
                return text
            answer = json.loads(text)
            (proof,) = answer["didDocumentMetadata"]["proof"]
            proof["stateProof"] = other["didDocumentMetadata"]["proof"][0]["stateProof"]
            return json.dumps(answer)

        async with Proxy(place.url, dress) as proxy:
            assert await look_up(page, proxy.url, place.owner) == "Not what the block holds"
            await expect(page.locator("#verdict")).to_contain_text("out of date in new dress")

    place.visit(test)


def test_an_old_answer_is_caught_by_the_clock_and_by_what_was_seen_before(place: Place) -> None:
    async def test(page: Page) -> None:
        async with Proxy(place.url, lambda _path, _query, text: text) as proxy:
            old = await page.request.get(f"{place.url}/read/did_resolve?did={place.owner}")
            old_text = await old.text()
            (proof,) = json.loads(old_text)["didDocumentMetadata"]["proof"]
            shown = Header.decode(decode_base64url(proof["header"], bytes_max=1024))
            await page.goto(proxy.url)
            await expect(page.locator("#trust-chip")).to_contain_text("first use")
            await wait_for_height(place.url, shown.height + 2)
            async with RpcClient(place.url) as client:
                later = await client.call("chain_header", block=shown.height + 2)
            point = {
                "type": "zynk-trust-point/1", "chain_id": "zynk-e2e", "height": later["height"],
                "header_hash": later["hash"],
            }  # fmt: skip
            await pin(page, json.dumps(point))
            await expect(page.locator("#trust-chip")).to_contain_text("pinned")
            proxy.change = lambda path, _, text: old_text if "did_resolve" in path else text
            assert await look_up(page, proxy.url, place.owner) == "Out of date"
            await expect(page.locator("#verdict")).to_contain_text("Something newer exists")
            await shoot(page, "stale-seen-before")
            proxy.change = lambda _path, _query, text: text
            await page.clock.install()
            await page.clock.fast_forward("01:00:00")
            await page.get_by_role("button", name="Look up").click()
            await expect(page.locator("#verdict")).to_contain_text("Something newer may exist")
            await expect(page.locator("#verdict h2")).to_have_text("Out of date")
            await shoot(page, "stale")

    place.visit(test)


async def wait_for_height(url: str, height: int) -> None:
    async with RpcClient(url) as client:
        while (await client.call("chain_header"))["height"] < height:
            await asyncio.sleep(0.2)


def test_a_node_that_does_not_answer_is_told_from_one_that_lies(place: Place) -> None:
    async def test(page: Page) -> None:
        async with Proxy(place.url, lambda _path, _query, text: text) as proxy:
            await page.goto(proxy.url)
            await expect(page.locator("#trust-chip")).to_contain_text("first use")
        await page.get_by_label("Identifier (DID)").fill(place.owner)
        await page.get_by_role("button", name="Look up").click()
        assert await verdict_of(page) == "No answer"

    place.visit(test)
