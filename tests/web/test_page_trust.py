"""The page for people in a real browser: whom it trusts."""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import pytest
from playwright.async_api import Page, expect

from genesis.network import generate_network
from ledger.params import ChainParams
from rpc.client import RpcClient
from tests.web.place import CONTENT, Place, give_receipt, look_up, pin, shoot, verdict_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEPT = "zynk-trust/1"


def test_a_pinned_genesis_is_kept_and_another_chain_is_caught(place: Place) -> None:
    other, named = (
        generate_network(4, name, genesis_time_ms=1, entropy=bytes(32)).document
        for name in ("zynk-e2e", "zynk-other")
    )

    async def test(page: Page) -> None:
        await page.goto(place.url)
        chip = page.locator("#trust-chip")
        await expect(chip).to_have_text("zynk-e2e · trusted on first use")
        await chip.click()
        await expect(page.locator("#trust summary")).to_be_focused()
        await expect(page.locator("#trust-now")).to_contain_text("compare the hash")
        await page.locator("#pin-file").set_input_files(place.genesis)
        await expect(chip).to_have_text("zynk-e2e · pinned")
        await page.reload()
        await expect(chip).to_have_text("zynk-e2e · pinned")
        assert await look_up(page, place.url, place.owner) == "Verified"
        await expect(page.locator("#verdict")).to_contain_text("that you pinned")
        await pin(page, other.encode().decode())
        await expect(page.locator("#verdict h2")).to_have_text("This is another chain")
        await expect(page.locator("#verdict")).to_contain_text("signed by other validators")
        await pin(page, named.encode().decode())
        await expect(page.locator("#verdict")).to_contain_text("is of the chain “zynk-e2e”")
        await shoot(page, "another-chain")
        for wrong in ("{", "[]", '{"type":"zynk-trust-point/1"}', '{"version":2}'):
            await pin(page, wrong)
            await expect(page.locator("#pin-text")).to_have_attribute("aria-invalid", "true")
            await expect(page.locator("#pin-error")).not_to_be_empty()
        await shoot(page, "pin-refused")
        await page.get_by_role("button", name="Forget").click()
        await expect(chip).to_have_text("zynk-e2e · trusted on first use")
        await expect(page.locator("#verdict h2")).to_have_text("Verified")
        await page.get_by_role("button", name="Pin this").click()
        await expect(chip).to_have_text("zynk-e2e · pinned")

    place.visit(test)


def test_a_trust_point_is_pinned_only_if_the_node_has_that_block(place: Place) -> None:
    async def test(page: Page) -> None:
        async with RpcClient(place.url) as client:
            answer = await client.call("chain_header", block=4)
        point = {
            "type": "zynk-trust-point/1",
            "chain_id": "zynk-e2e",
            "height": 4,
            "header_hash": answer["hash"],
        }
        await page.goto(place.url + "/#" + place.owner)
        await pin(page, json.dumps({**point, "height": 5}))
        await expect(page.locator("#pin-error")).to_contain_text("another block")
        await pin(page, json.dumps(point))
        await expect(page.locator("#trust-chip")).to_have_text("zynk-e2e · pinned")
        assert await verdict_of(page) == "Verified"
        await page.locator("#verdict summary").click()
        await expect(page.locator("#verdict")).to_contain_text("as of block 4")

    place.visit(test)


def test_trust_moves_on_with_what_was_verified_and_old_receipts_still_hold(place: Place) -> None:
    async def test(page: Page) -> None:
        await page.goto(place.url)
        await expect(page.locator("#trust-chip")).to_contain_text("first use")
        kept: dict[str, Any] = json.loads(
            await page.evaluate("name => localStorage.getItem(name)", KEPT)
        )
        assert kept["last"] == kept["first"]
        kept["last"]["timeMs"] = str(time.time_ns() // 1_000_000 - 2 * 3_600_000)
        store = "([name, text]) => localStorage.setItem(name, text)"
        await page.evaluate(store, [KEPT, json.dumps(kept)])
        await page.reload()
        for _ in range(2):
            assert await look_up(page, place.url, place.owner) == "Verified"
        moved = json.loads(await page.evaluate("name => localStorage.getItem(name)", KEPT))
        assert int(moved["last"]["height"]) > 4
        assert moved["first"] == kept["first"]
        await give_receipt(page, CONTENT, place.receipt)
        assert await verdict_of(page, "#receipt-verdict") == "The receipt holds"

    place.visit(test)


def test_the_page_reads_a_genesis_as_the_node_does(place: Place) -> None:
    """Same hash, same validator set, whatever the stakes; the weakest are left out."""
    random = Random(7)
    documents = [
        generate_network(
            count,
            "zynk-e2e",
            genesis_time_ms=random.randrange(2**41),
            entropy=random.randbytes(32),
            params=ChainParams(validators_max=4),
            powers=tuple(random.choice((1, 2, 2, 3, 1_000)) for _ in range(count)),
        ).document
        for count in (1, 4, 6, 9)
    ]
    script = """async (text) => {
        const { trustOfFile } = await import("/page/trust.mjs");
        const { toHex } = await import("/verifier/codec.mjs");
        const { root, last } = await trustOfFile(text);
        return [root, toHex(last.encoded), String(last.timeMs), String(last.trustingPeriodMs)];
    }"""

    async def test(page: Page) -> None:
        await page.goto(place.url)
        for document in documents:
            state = document.to_state()
            assert await page.evaluate(script, document.encode().decode()) == [
                state.genesis_hash.hex(),
                state.validators.encoded.hex(),
                str(state.time_ms),
                str(state.params.unbonding_ms * 2 // 3),
            ]

    place.visit(test)
