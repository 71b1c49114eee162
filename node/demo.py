"""The newcomer's tour: a real network, an identity, an anchored file, each checked.

Every step is a claim that is verified with nothing but the genesis file: the network finalises;
a DID is created, resolved, and its proof leads to signatures of more than 2/3 of the stake; a file
is anchored and its receipt holds offline.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.leaf import hash_chunks
from audit.verify import verify_receipt
from did.build import create_operation
from did.control import Control
from did.multikey import encode_multikey
from did.operation import decode_operation
from did.verify import verify_resolution
from genesis.document import GenesisDocument
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet
from node.files import read_chunks
from node.keys import generate_key, load_key
from node.streams import create_stream_message
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.params import bytes_of_text, text_of_bytes

HEIGHTS_TO_SEE = 1
RECEIPT_TIMEOUT_S = 20.0
RECEIPT_POLL_S = 0.05
AGE_MAX_MS = 60_000


@dataclass(slots=True, kw_only=True)
class DemoReport:
    """What happened: (step, what was seen, milliseconds) and the figures for `--json`."""

    steps: list[tuple[str, str, float]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


class Demo:
    """Runs the steps against a devnet that is already listening."""

    def __init__(self, devnet: Devnet, say: Callable[[str], None]) -> None:
        self.devnet = devnet
        self.report = DemoReport()
        self._say = say
        home = devnet.nodes[0].home
        self._genesis = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes()).to_state()
        self._faucet = load_key(home / cfg.FAUCET_KEY_FILE)

    async def run(self, path: Path) -> DemoReport:
        """All steps; raises ZynkError at the first that does not hold."""
        async with RpcClient(self.devnet.nodes[0].url) as client:
            wallet = Wallet(client, self._faucet)
            await self._step("the network finalises", self._finalises())
            key = generate_key()
            did = await self._step("a DID is created", self._create_did(wallet, key))
            await self._step("the DID resolves, with proof", self._resolve(did))
            stream = await self._step("an audit stream", self._create_stream(wallet, did, key))
            leaf = await self._step(f"{path.name} is anchored", self._anchor(client, stream, path))
            await self._step("its receipt holds offline", self._verify_receipt(client, leaf, path))
        return self.report

    async def _step(self, name: str, work: Any) -> Any:
        self._say(name)
        began = time.perf_counter()
        result, seen = await work
        took_ms = (time.perf_counter() - began) * 1000
        self.report.steps.append((name, seen, took_ms))
        return result

    async def _finalises(self) -> tuple[None, str]:
        await self.devnet.wait_height(HEIGHTS_TO_SEE)
        heights = [
            int((await self.devnet.status(node.index))["height"]) for node in self.devnet.nodes
        ]
        self.report.data["heights"] = heights
        return None, "heights " + ", ".join(str(height) for height in heights)

    async def _create_did(self, wallet: Wallet, key: KeyPair) -> tuple[str, str]:
        status = await wallet.client.call("node_status")
        multikey = encode_multikey(key.public_key)
        operation = create_operation(
            net=self._genesis.chain_id,
            exp_height=int(status["height"]) + 1000,
            document={
                "verificationMethod": [
                    {"id": "#key-1", "type": "Multikey", "publicKeyMultibase": multikey}
                ],
                "authentication": ["#key-1"],
                "assertionMethod": ["#key-1"],
            },
            control=Control.of([key.public_key]),
            signers=[key],
        )
        did = decode_operation(operation).did_text
        began = time.perf_counter()
        answer = await wallet.submit([Message("did/op", operation)], method="did_submit")
        self.report.data["did"] = did
        self.report.data["did_finality_ms"] = round((time.perf_counter() - began) * 1000, 1)
        self.report.data["did_height"] = answer["height"]
        return did, f"{did}, final at height {answer['height']}"

    async def _resolve(self, did: str) -> tuple[None, str]:
        last = self.devnet.nodes[-1]
        async with RpcClient(last.url) as client:
            await self.devnet.wait_height(self.report.data["did_height"], [last.index])
            answer = await client.call("did_resolve", did=did)
        verdict = verify_resolution(
            answer,
            did=did,
            trusted=self._genesis.validators,
            chain_id=self._genesis.chain_id,
            max_age_ms=AGE_MAX_MS,
            now_ms=int(time.time() * 1000),
        )
        return None, f"by another validator, {verdict.outcome.value}; {len(verdict.steps)} checks"

    async def _create_stream(self, wallet: Wallet, did: str, key: KeyPair) -> tuple[str, str]:
        status = await wallet.client.call("node_status")
        submitter = bytes.fromhex(status["anchor_account"])
        stream, message = create_stream_message(
            chain_id=self._genesis.chain_id,
            owner=did,
            submitters=[submitter],
            description="zynk demo",
            keys=[key],
        )
        answer = await wallet.submit([message])
        self.report.data["stream"] = stream
        return stream, f"{stream}, final at height {answer['height']}"

    async def _anchor(self, client: RpcClient, stream: str, path: Path) -> tuple[bytes, str]:
        if not path.is_file():
            raise UsageError("no such file", got=str(path))
        multihash = hash_chunks(read_chunks(path))
        began = time.perf_counter()
        answer = await client.call("audit_submit", stream=stream, leaves=[text_of_bytes(multihash)])
        leaf = str(answer["leaves"][0]["leaf"])
        while True:
            status = (await client.call("audit_status", leaves=[leaf]))["leaves"][0]
            if status["status"] in ("committed", "receipted"):
                break
            if status["status"] == "rejected" or time.perf_counter() - began > RECEIPT_TIMEOUT_S:
                raise InvalidInputError("file was not anchored", got=str(status))
            await asyncio.sleep(RECEIPT_POLL_S)
        self.report.data["anchor_ms"] = round((time.perf_counter() - began) * 1000, 1)
        self.report.data["anchor_height"] = status["height"]
        return bytes.fromhex(leaf), f"sha2-256 logged, final at height {status['height']}"

    async def _verify_receipt(self, client: RpcClient, leaf: bytes, path: Path) -> tuple[None, str]:
        answer = await client.call("audit_receipt", leaf=leaf.hex())
        receipt = bytes_of_text(answer["receipt"])
        receipt_path = self.devnet.folder / (path.name + ".zreceipt")
        receipt_path.write_bytes(receipt)
        verdict = verify_receipt(
            receipt,
            multihash=hash_chunks(read_chunks(path)),
            trusted=self._genesis.validators,
            chain_id=self._genesis.chain_id,
        )
        self.report.data["receipt"] = str(receipt_path)
        self.report.data["receipt_bytes"] = len(receipt)
        if not verdict.is_ok:
            raise InvalidInputError(f"the receipt of {path} does not hold", got=verdict.reason)
        digest = hashlib.sha256(receipt).hexdigest()[:8]
        return None, f"{len(receipt)} bytes ({digest}), {len(verdict.steps)} checks"
