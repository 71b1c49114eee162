"""Shared by the end-to-end tests: a devnet that always ends, and steady load on it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ledger.accounts import TransferBody
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.tx import Message
from node import config as cfg
from node.bench import fund, load_keys
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError


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
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None

    async def start(self, accounts: int = 64) -> None:
        """Fund the accounts, then begin."""
        async with RpcClient(self._devnet.nodes[self._nodes[0]].url) as client:
            self._keys = load_keys(self._faucet, accounts, b"e2e")
            await fund(Wallet(client, self._faucet), self._keys)
        self._runner = asyncio.create_task(self._run())

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
            async with RpcClient(node.url) as client:
                answer = await Wallet(client, key).submit(
                    [Message("bank/transfer", body)], timeout_ms=20_000
                )
                self.final[answer["tx_id"]] = answer["height"]
        except (ZynkError, RpcConnectionError, OSError) as error:
            self.failures.append(f"{node.url}: {error}")
