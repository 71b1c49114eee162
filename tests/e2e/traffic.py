"""Clients of a network whose nodes are killed: each holds on to one node while it is up."""

from __future__ import annotations

import asyncio
import os
import random
import time

from ledger.accounts import TransferBody
from ledger.tx import Message
from node import config as cfg
from node.bench import fund, load_keys
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError
from tests.e2e.network import FINAL_TIMEOUT_MS


class Traffic:
    """Clients that each send a transfer, wait until it is final, and send the next, through a node
    that is up. What a kill interrupts may be final or not; its account is not used again."""

    def __init__(self, devnet: Devnet, up: set[int], rng: random.Random, *, accounts: int) -> None:
        """`up`: the nodes that answer, kept true by whoever kills them."""
        self.final: dict[str, int] = {}
        self.latencies_ms: list[float] = []
        self.interrupted = 0
        self._devnet = devnet
        self._up = up
        self._rng = rng
        self._faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
        self._accounts = load_keys(self._faucet, accounts, os.urandom(16))

    async def fund(self, index: int) -> None:
        """Pay for it all, through a node."""
        async with RpcClient(self._devnet.nodes[index].url) as client:
            await fund(Wallet(client, self._faucet), self._accounts)

    async def run_client(self, over: asyncio.Event) -> None:
        while not over.is_set():
            index = self._rng.choice(sorted(self._up))
            try:
                async with RpcClient(self._devnet.nodes[index].url) as client:
                    wallet = Wallet(client, self._accounts.pop())
                    while not over.is_set() and index in self._up:
                        await self._send(wallet)
                    self._accounts.insert(0, wallet.key)
            except (RpcConnectionError, OSError):
                assert index not in self._up, f"node {index} is up and does not answer"
                self.interrupted += 1

    async def _send(self, wallet: Wallet) -> None:
        body = TransferBody(to=self._faucet.public_key, amount=1, memo=b"").encode()
        began = time.perf_counter()
        answer = await wallet.submit([Message("bank/transfer", body)], timeout_ms=FINAL_TIMEOUT_MS)
        self.latencies_ms.append((time.perf_counter() - began) * 1000)
        self.final[answer["tx_id"]] = answer["height"]
