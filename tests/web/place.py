"""What the page is shown in its tests: a real network, identities of every kind, a receipt."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.control import Control, KeyList
from did.multikey import encode_multikey
from did.operation import decode_operation
from did.syntax import encode_did
from ledger.ed25519 import KeyPair
from ledger.tx import Message
from node import config as cfg
from node.demo import Demo
from node.devnet import Devnet
from node.keys import generate_key, load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from tests.e2e.network import running_devnet
from tests.web.browser import Chromium

UNKNOWN = encode_did(bytes(32))
CONTENT = b"the report\n"
EXP = 10**6
SHOTS = os.environ.get("ZYNK_SHOTS", "")
"""A folder for screenshots, to be looked at."""


@dataclass
class Place:
    """A devnet with `owner` (stolen, then recovered), `gone` (deactivated), and `receipt`, a file
    for CONTENT."""

    chromium: Chromium = field(default_factory=Chromium)
    owner: str = ""
    gone: str = ""
    receipt: Path = Path()
    genesis: Path = Path()
    url: str = ""

    async def start(self, folder: Path) -> None:
        self._stack = AsyncExitStack()
        devnet = await self._stack.enter_async_context(running_devnet())
        await self.chromium.start()
        self._stack.push_async_callback(self.chromium.stop)
        self.url = devnet.nodes[0].url
        self.genesis = devnet.nodes[0].home / cfg.GENESIS_FILE
        await self._make_identities(devnet)
        content = folder / "report.txt"
        content.write_bytes(CONTENT)
        report = await Demo(devnet, lambda _: None).run(content)
        self.receipt = Path(report.data["receipt"])

    async def stop(self) -> None:
        await self._stack.aclose()

    def visit(self, test: Callable[[Page], Awaitable[None]], **context: Any) -> None:
        self.chromium.run(self.chromium.visit(test, **context))

    async def _make_identities(self, devnet: Devnet) -> None:
        async with RpcClient(self.url) as client:
            wallet = Wallet(client, load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE))

            async def run(body: bytes) -> bytes:
                await wallet.submit([Message("did/op", body)], method="did_submit")
                return decode_operation(body).hash

            self.owner = await self._make_owner(run)
            self.gone = await self._make_gone(run)

    async def _make_owner(self, run: Callable[[bytes], Awaitable[bytes]]) -> str:
        first, second, thief, saver = (generate_key() for _ in range(4))
        tier = KeyList(keys=(saver.public_key,), threshold=1)
        both = Control.of([first.public_key, second.public_key], 2)
        body = create_operation(
            net="zynk-e2e",
            exp_height=EXP,
            document=_document(first, second),
            control=both,
            recovery=[tier],
            signers=[first, second],
        )
        did = encode_did(await run(body))
        shared: dict[str, Any] = {"net": "zynk-e2e", "exp_height": EXP, "did": did}
        kept = await run(
            update_operation(
                **shared,
                prev=decode_operation(body).hash,
                seq=1,
                document={**_document(first, second), "alsoKnownAs": ["https://example.org/me"]},
                control=both,
                recovery=[tier],
                signers=[first, second],
            )
        )
        await run(
            update_operation(
                **shared,
                prev=kept,
                seq=2,
                document=_document(thief),
                control=Control.of([thief.public_key]),
                signers=[first, second],
            )
        )
        await run(
            recover_operation(
                **shared,
                prev=kept,
                seq=3,
                tier=0,
                document=_document(second),
                control=Control.of([second.public_key], 1, tier),
                recovery=[tier],
                signers=[saver],
            )
        )
        return did

    async def _make_gone(self, run: Callable[[bytes], Awaitable[bytes]]) -> str:
        key = generate_key()
        body = create_operation(
            net="zynk-e2e",
            exp_height=EXP,
            document=_document(key),
            control=Control.of([key.public_key]),
            signers=[key],
        )
        did = encode_did(await run(body))
        await run(
            deactivate_operation(
                net="zynk-e2e",
                exp_height=EXP,
                did=did,
                prev=decode_operation(body).hash,
                seq=1,
                signers=[key],
            )
        )
        return did


def _document(*keys: KeyPair) -> dict[str, Any]:
    names = [f"#key-{number}" for number in range(1, len(keys) + 1)]
    return {
        "verificationMethod": [
            {
                "id": name,
                "type": "Multikey",
                "publicKeyMultibase": encode_multikey(key.public_key),
            }
            for name, key in zip(names, keys, strict=True)
        ],
        "authentication": names,
        "assertionMethod": names[:1],
        "service": [
            {"id": "#files", "type": "Files", "serviceEndpoint": "https://files.example.org/"}
        ],
    }


async def look_up(page: Page, url: str, did: str) -> str:
    """Type a DID, wait for the verdict; returns its title."""
    await page.goto(url)
    await page.get_by_label("Identifier (DID)").fill(did)
    await page.get_by_role("button", name="Look up").click()
    return await verdict_of(page)


async def verdict_of(page: Page, inside: str = "#verdict") -> str:
    """Wait for a verdict that is more than "Checking…"; returns its title."""
    card = page.locator(f"{inside} .verdict:not(.wait)")
    return await card.locator("h2").inner_text()


async def shoot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


async def pin(page: Page, text: str) -> None:
    await page.locator("#trust").evaluate("trust => { trust.open = true; }")
    await page.locator("#pin-text").fill(text)
    await page.get_by_role("button", name="Pin", exact=True).click()


async def give_receipt(page: Page, content: bytes, receipt: Path) -> None:
    await page.locator("#receipt").evaluate("receipt => { receipt.open = true; }")
    file = {"name": "report.txt", "mimeType": "text/plain", "buffer": content}
    await page.get_by_label("The file").set_input_files(file)  # type: ignore[arg-type]  # a FilePayload
    await page.get_by_label("Its receipt").set_input_files(receipt)
