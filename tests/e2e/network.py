"""Shared by the end-to-end tests: a devnet that always ends, steady load on it, and waiting.

Tests wait for what they claim, never for a time. With one of four away each view has an absent
leader with probability 1/4, and the view timeouts double (0.6, 1.2, 2.4, ... 10 s): one height in
1,000 takes 18 s, one in 16,000 takes 38 s, and that is how it must be. `LIMIT_S` is above
that; only a network that stands still reaches it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from audit.leaf import decode_stream_text
from audit.verify import verify_receipt
from genesis.document import GenesisDocument
from ledger.accounts import TransferBody
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.genesis_state import GenesisState
from ledger.tx import Message
from node import config as cfg
from node.anchor_client import fetch_receipts, wait_receipted
from node.bench import fund, load_keys
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError, RpcError

LIMIT_S = 120.0
FINAL_TIMEOUT_MS = 60_000
"""The most that `tx_submit` waits."""
POLL_S = 0.05
HASHES_A_BATCH = 200

Status = dict[str, Any]


@asynccontextmanager
async def running_devnet(validators: int = 4) -> AsyncIterator[Devnet]:
    """Four validators that have finalised a block; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
    devnet = Devnet.create(folder, validators=validators, chain_id="zynk-e2e")
    try:
        await devnet.start()
        await devnet.wait_height(1)
        yield devnet
    finally:
        await devnet.stop()
        devnet.remove()


def zynk(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def genesis_of(devnet: Devnet) -> GenesisState:
    path = devnet.nodes[0].home / cfg.GENESIS_FILE
    return GenesisDocument.parse(path.read_bytes()).to_state()


def public_key_of(devnet: Devnet, index: int) -> bytes:
    """The key that the validator votes with."""
    return load_key(devnet.nodes[index].home / cfg.VALIDATOR_KEY_FILE).public_key


async def until(what: str, holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait for a condition. Raises ZynkError naming what did not come."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise ZynkError(what, expected=f"within {limit_s:.0f} s")
        await asyncio.sleep(POLL_S)


async def until_status(
    devnet: Devnet,
    index: int,
    what: str,
    holds: Callable[[Status], object],
    limit_s: float = LIMIT_S,
) -> Status:
    """Wait until the node's status is as said; returns it. Raises ZynkError with the last one."""
    deadline = time.monotonic() + limit_s
    while not holds(status := await devnet.status(index)):
        if time.monotonic() > deadline:
            raise ZynkError(what, expected=f"within {limit_s:.0f} s", got=str(status))
        await asyncio.sleep(POLL_S)
    return status


async def until_voting(devnet: Devnet, index: int) -> None:
    """Until the node votes. Raises ZynkError with its own reason."""
    await until_status(devnet, index, "the node votes", lambda s: s["validator"]["voting"])


async def height_of(devnet: Devnet, index: int) -> int:
    return int((await devnet.status(index))["height"])


async def until_height(devnet: Devnet, height: int, indexes: Iterable[int] | None = None) -> None:
    """Until each of the nodes (default: all) has finalised `height`. Raises ZynkError."""
    await devnet.wait_height(height, indexes, timeout_s=LIMIT_S)


async def until_higher(devnet: Devnet, index: int, by: int) -> int:
    """Until the node has finalised `by` heights more; returns the height that it had before."""
    before = await height_of(devnet, index)
    await until_height(devnet, before + by, [index])
    return before


async def chain_hashes(devnet: Devnet, index: int, heights: Iterable[int]) -> dict[int, str]:
    """Block hash by height, as the node has them."""
    wanted = list(heights)
    found: dict[int, str] = {}
    async with RpcClient(devnet.nodes[index].url) as client:
        for start in range(0, len(wanted), HASHES_A_BATCH):
            group = wanted[start : start + HASHES_A_BATCH]
            answers = await client.batch([("chain_header", {"block": h}) for h in group])
            for height, answer in zip(group, answers, strict=True):
                if isinstance(answer, RpcError):
                    raise answer
                found[height] = str(answer["hash"])
    return found


async def final_heights(devnet: Devnet, index: int, tx_ids: Iterable[str]) -> dict[str, int]:
    """Height by tx id, as the node has them; 0 for a tx that it does not have as final."""
    wanted = list(tx_ids)
    found: dict[str, int] = {}
    async with RpcClient(devnet.nodes[index].url) as client:
        for start in range(0, len(wanted), HASHES_A_BATCH):
            group = wanted[start : start + HASHES_A_BATCH]
            answers = await client.batch([("tx_get", {"tx_id": tx_id}) for tx_id in group])
            for tx_id, answer in zip(group, answers, strict=True):
                found[tx_id] = 0
                if not isinstance(answer, RpcError):
                    found[tx_id] = int(answer.get("height", 0))
    return found


async def check_receipts(
    devnet: Devnet, index: int, stream: str, multihash_by_leaf: Mapping[bytes, bytes]
) -> None:
    """Each leaf that the node accepted ends with a receipt, and each receipt holds offline."""
    genesis = genesis_of(devnet)
    leaves = list(multihash_by_leaf)
    async with RpcClient(devnet.nodes[index].url) as client:
        status = await wait_receipted(client, leaves, timeout_s=LIMIT_S, progress=lambda _: None)
        assert {found["status"] for found in status.values()} == {"receipted"}
        receipts = await fetch_receipts(client, leaves, progress=lambda _: None)
    for leaf, multihash in multihash_by_leaf.items():
        verdict = verify_receipt(
            receipts[leaf],
            multihash=multihash,
            trusted=genesis.validators,
            chain_id=genesis.chain_id,
            stream=decode_stream_text(stream),
        )
        assert verdict.is_ok, verdict.reason


class Load:
    """Transfers at a steady rate through nodes that may die. `final` holds every tx that a node
    reported as finalised, with the height it named."""

    def __init__(self, devnet: Devnet, nodes: list[int], rate_tx_s: float = 40.0) -> None:
        self.final: dict[str, int] = {}
        self.failures: list[str] = []
        self._devnet = devnet
        self._nodes = nodes
        self._rate_tx_s = rate_tx_s
        self._faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
        self._keys: list[KeyPair] = []
        self._locks: dict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    async def start(self, accounts: int = 64) -> None:
        """Fund accounts that no other load has, then begin."""
        async with RpcClient(self._devnet.nodes[self._nodes[0]].url) as client:
            self._keys = load_keys(self._faucet, accounts, os.urandom(16))
            await fund(Wallet(client, self._faucet), self._keys)
        self._runner = asyncio.create_task(self._run())

    async def until_final(self, count: int) -> None:
        """Until so many txs were reported as final since the start. Raises ZynkError."""
        await until(f"{count} txs are final", lambda: len(self.final) >= count)

    async def stop(self) -> None:
        """End the load; txs on their way are given up."""
        if self._runner is not None:
            self._runner.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        turn = 0
        while True:
            task = asyncio.create_task(self._send(turn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            turn += 1
            await asyncio.sleep(1 / self._rate_tx_s)

    async def _send(self, turn: int) -> None:
        key = self._keys[turn % len(self._keys)]
        node = self._devnet.nodes[self._nodes[turn % len(self._nodes)]]
        body = TransferBody(
            to=self._faucet.public_key, amount=1, memo=turn.to_bytes(8, "big")
        ).encode()
        try:
            # One tx of an account at a time, or two could be signed with the same nonce.
            async with self._locks[key.public_key], RpcClient(node.url) as client:
                answer = await Wallet(client, key).submit(
                    [Message("bank/transfer", body)], timeout_ms=FINAL_TIMEOUT_MS
                )
                self.final[answer["tx_id"]] = answer["height"]
        except (ZynkError, RpcConnectionError, OSError) as error:
            self.failures.append(f"{node.url}: {error}")
