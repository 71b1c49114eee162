"""The page for people in a real browser: a file and its receipt, in every form it may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from audit.receipt import Receipt, encode_receipt_json, receipt_value
from ledger.validator_set import ValidatorSet
from rpc.params import text_of_bytes
from tests.unit.test_audit_receipt import CHAIN, RECEIPTS, SALT
from tests.vectors.audit_chain import CHAIN_ID
from tests.web.place import CONTENT, Place, give_receipt, shoot

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_receipt_holds_for_its_file_and_for_no_other(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zreceipt"
    data = place.receipt.read_bytes()
    broken.write_bytes(data[:-70] + bytes([data[-70] ^ 1]) + data[-69:])

    async def test(page: Page) -> None:
        await page.goto(place.url)
        for content, receipt, title in (
            (CONTENT, place.receipt, "The receipt holds"),
            (CONTENT + b"\n", place.receipt, "The receipt does not hold"),
            (CONTENT, broken, "The receipt does not hold"),
        ):
            await give_receipt(page, content, receipt)
            await expect(page.locator("#receipt-verdict h2")).to_have_text(title)
        await shoot(page, "receipt")

    place.visit(test)


DROP = """([selector, files]) => {
    const transfer = new DataTransfer();
    for (const [name, bytes] of files) {
        transfer.items.add(new File([Uint8Array.from(bytes)], name));
    }
    const event = new DragEvent("drop", { dataTransfer: transfer, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
}"""


def test_files_may_be_dropped(place: Place) -> None:
    async def test(page: Page) -> None:
        await page.goto(place.url)
        await expect(page.locator("#trust-chip")).to_contain_text("first use")
        files = [("a.txt", CONTENT), ("a.txt.zreceipt", place.receipt.read_bytes())]
        dropped = [[name, list(data)] for name, data in files]
        await page.evaluate(DROP, ["#receipt-drop", dropped])
        await expect(page.locator("#receipt-verdict h2")).to_have_text("The receipt holds")
        genesis = [["genesis.json", list(place.genesis.read_bytes())]]
        await page.evaluate(DROP, ["#pin", genesis])
        await expect(page.locator("#trust-chip")).to_have_text("zynk-e2e · pinned")

    place.visit(test)


def test_the_page_hashes_files_in_pieces_as_webcrypto_does_whole(place: Place) -> None:
    script = """async () => {
        const { Sha256 } = await import("/page/sha256.mjs");
        for (let length = 0; length < 300; length++) {
            const bytes = crypto.getRandomValues(new Uint8Array(length));
            const hash = new Sha256();
            for (let at = 0; at < length; ) {
                const step = 1 + Math.floor(Math.random() * 100);
                hash.update(bytes.subarray(at, at + step));
                at += step;
            }
            const whole = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
            if (hash.digest().join() !== whole.join()) return length;
        }
        return "same";
    }"""

    async def test(page: Page) -> None:
        await page.goto(place.url)
        assert await page.evaluate(script) == "same"

    place.visit(test)


def test_a_receipt_is_read_in_each_form_that_a_node_or_a_command_gives(
    place: Place, tmp_path: Path
) -> None:
    receipt = Receipt.decode(place.receipt.read_bytes())
    twin = receipt_value(receipt)
    altered = {**twin, "anchor": {**twin["anchor"], "time_ms": twin["anchor"]["time_ms"] - 1}}
    true, false = "The receipt holds", "The receipt does not hold"
    forms = {
        "twin": (encode_receipt_json(receipt), true),
        "indented": ("\n" + json.dumps(twin, indent=2), true),
        "command": (json.dumps({"leaf": "00", "bytes": 1, "path": None, "receipt": twin}), true),
        "answer": (json.dumps({"receipt": text_of_bytes(receipt.encode())}), true),
        "rpc": (
            json.dumps(
                {"jsonrpc": "2.0", "id": 1, "result": {"receipt": text_of_bytes(receipt.encode())}}
            ),
            true,
        ),
        "altered": (json.dumps(altered), false),
        "one more member": (json.dumps({**twin, "more": 1}), false),
        "a name twice": (json.dumps(twin).replace('"leaf"', '"leaf":null,"leaf"', 1), false),
    }

    async def test(page: Page) -> None:
        await page.goto(place.url)
        for name, (text, title) in forms.items():
            path = tmp_path / f"{name}.json"
            path.write_text(text)
            await give_receipt(page, CONTENT, path)
            verdict = page.locator("#receipt-verdict h2")
            await expect(verdict, name).to_have_text(title)
            await page.locator("#receipt-verdict").evaluate("node => node.replaceChildren()")
        await give_receipt(page, CONTENT + b"x", tmp_path / "twin.json")
        await expect(page.locator("#receipt-verdict")).to_contain_text("belongs to another file")

    place.visit(test)


def kept_trust(chain_id: str, validators: ValidatorSet) -> dict[str, Any]:
    """What the page keeps of a chain that was pinned."""
    point = {
        "height": "0",
        "timeMs": "1",
        "headerHash": "",
        "validators": validators.encoded.hex(),
        "trustingPeriodMs": str(10**15),
    }
    return {
        "chainId": chain_id,
        "root": "",
        "source": "genesis",
        "isPinned": True,
        "sinceMs": 1,
        "first": point,
        "last": point,
    }


def test_a_salted_receipt_asks_for_its_salt_and_holds_with_it_alone(
    place: Place, tmp_path: Path
) -> None:
    wire, twin = tmp_path / "salted.zreceipt", tmp_path / "salted.json"
    wire.write_bytes(RECEIPTS[-1])
    twin.write_text(encode_receipt_json(Receipt.decode(RECEIPTS[-1])))
    content = b"content 999"
    trust = json.dumps(kept_trust(CHAIN_ID, CHAIN.validators))

    async def test(page: Page) -> None:
        await page.goto(place.url)
        await page.evaluate("text => localStorage.setItem('zynk-trust/1', text)", trust)
        await page.reload()
        title, salt = page.locator("#receipt-verdict h2"), page.get_by_label("Its salt")
        await expect(salt).not_to_be_visible()
        await give_receipt(page, content, wire)
        await expect(title).to_have_text("Its salt is needed")
        await shoot(page, "salt-needed")
        await salt.fill("zz")
        await expect(title).to_have_text("The salt is not complete")
        await salt.fill("00" * 32)
        await expect(title).to_have_text("The receipt does not hold")
        await expect(page.locator("#receipt-verdict")).to_contain_text("the salt is another one")
        await salt.fill(SALT.hex().upper())
        await expect(title).to_have_text("The receipt holds")
        await shoot(page, "salted")
        await give_receipt(page, content, twin)
        await expect(title).to_have_text("The receipt holds")
        await give_receipt(page, content + b"x", twin)
        await expect(title).to_have_text("The receipt does not hold")
        await give_receipt(page, CONTENT, place.receipt)
        await expect(salt).not_to_be_visible()
        await expect(page.locator("#receipt-verdict")).to_contain_text("is of the chain “zynk-e2e”")

    place.visit(test)
