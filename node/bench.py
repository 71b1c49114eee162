"""Load on a running network: what a client sees.

`measure_finality` sends txs at a steady rate and times each from submission until the node says it
is final. `measure_throughput` keeps every node busy with signed transfers of distinct accounts and
counts what is final on all nodes; a tx counts at the time the last node has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.accounts import TransferBody
from ledger.codec import hash_tagged
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.fees import sign_tx
from ledger.params import ChainParams
from ledger.tx import Message
from node.wallet import VALID_FOR_BLOCKS, Wallet
from rpc.client import RpcClient
from rpc.errors import RpcError
from rpc.params import text_of_bytes

TRANSFERS_PER_TX = 16
FUND_UZYNK = 10**9
BATCH_TXS = 50
INFLIGHT_PER_NODE = 400
PULL_S = 0.02

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the load needs to know: each node's RPC address and a funded account."""

    urls: Sequence[str]
    key: KeyPair


def load_keys(key: KeyPair, count: int, salt: bytes) -> list[KeyPair]:
    """`count` account keys that only the holder of `key` can derive."""
    return [
        KeyPair.from_seed(hash_tagged("bench-key", key.seed + salt + index.to_bytes(4, "big")))
        for index in range(count)
    ]


async def fund(wallet: Wallet, keys: Sequence[KeyPair]) -> None:
    """Give each account enough for its fees: 16 transfers a tx, pipelined."""
    txs = []
    for start in range(0, len(keys), TRANSFERS_PER_TX):
        messages = [
            Message(
                "bank/transfer",
                TransferBody(to=key.public_key, amount=FUND_UZYNK, memo=b"").encode(),
            )
            for key in keys[start : start + TRANSFERS_PER_TX]
        ]
        txs.append((await wallet.sign(messages)).encoded)
    for start in range(0, len(txs), 32):
        answer = await wallet.client.call(
            "tx_submitBatch",
            txs=[text_of_bytes(tx) for tx in txs[start : start + 32]],
            wait="finalized",
            timeout_ms=60_000,
        )
        for outcome in answer["outcomes"]:
            if outcome.get("code") != "ok":
                raise ZynkError("could not fund the load accounts", got=str(outcome)[:200])


async def measure_finality(
    network: Network, *, rate_tx_s: float, seconds: float, progress: Progress
) -> dict[str, Any]:
    """Milliseconds from submission to finality, as the client of one node sees them; the nodes
    take turns."""
    count = max(1, int(rate_tx_s * seconds))
    clients = [RpcClient(url) for url in network.urls]
    latencies: list[float] = []
    try:
        wallet = Wallet(clients[0], network.key)
        keys = load_keys(network.key, min(count, 200), b"finality" + time.time_ns().to_bytes(8))
        await fund(wallet, keys)
        wallets = [Wallet(clients[i % len(clients)], key) for i, key in enumerate(keys)]
        txs = []
        for i in range(count):
            body = TransferBody(to=network.key.public_key, amount=1, memo=i.to_bytes(4, "big"))
            tx = await wallets[i % len(keys)].sign([Message("bank/transfer", body.encode())])
            txs.append(tx.encoded)
        await asyncio.sleep(1.0)

        async def send(index: int) -> None:
            began = time.perf_counter()
            answer = await clients[index % len(keys) % len(clients)].call(
                "tx_submit", tx=text_of_bytes(txs[index]), wait="finalized", timeout_ms=30_000
            )
            if answer.get("code") != "ok":
                raise ZynkError("a tx was not finalised", got=str(answer)[:200])
            latencies.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        tasks = []
        for index in range(count):
            pause = began + index / rate_tx_s - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(send(index)))
            progress(index / count)
        await asyncio.gather(*tasks)
    finally:
        for client in clients:
            await client.close()
    latencies.sort()
    return {
        "p50_ms": percentile(latencies, 50),
        "p90_ms": percentile(latencies, 90),
        "p99_ms": percentile(latencies, 99),
        "max_ms": round(latencies[-1], 1),
        "rate_tx_s": rate_tx_s,
        "txs": len(latencies),
        "nodes": len(network.urls),
    }


async def measure_throughput(
    network: Network,
    *,
    seconds: float,
    payload_bytes: int,
    accounts: int,
    progress: Progress,
) -> dict[str, Any]:
    """Transfers a second that are final on every node."""
    clients = [RpcClient(url) for url in network.urls]
    try:
        wallet = Wallet(clients[0], network.key)
        keys = load_keys(network.key, accounts, b"throughput" + time.time_ns().to_bytes(8))
        await fund(wallet, keys)
        params = ChainParams(**(await clients[0].call("chain_params"))["params"])
        status = await clients[0].call("node_status")
        missed_before = await _nullified(clients)
        load = _Load(
            keys=keys,
            to=network.key.public_key,
            params=params,
            chain_id=status["chain_id"],
            valid_until=int(status["height"])
            + min(10 * VALID_FOR_BLOCKS, params.tx_valid_blocks_max),
            memo=bytes(payload_bytes),
        )
        watchers = [_Watcher(client, load) for client in clients]
        await asyncio.gather(*(watcher.start() for watcher in watchers))
        began = time.perf_counter()
        deadline = began + seconds
        senders = [
            asyncio.create_task(_send(client, load, i, len(clients), watcher, deadline))
            for i, (client, watcher) in enumerate(zip(clients, watchers, strict=True))
        ]
        while time.perf_counter() < deadline:
            progress((time.perf_counter() - began) / seconds)
            await asyncio.sleep(0.2)
        at_end = min(watcher.count for watcher in watchers)
        elapsed = time.perf_counter() - began
        await asyncio.gather(*senders)
        for watcher in watchers:
            await watcher.stop()
        missed = await _nullified(clients) - missed_before
    finally:
        for client in clients:
            await client.close()
    return {
        "tx_s": round(at_end / elapsed, 1),
        "payload_bytes": payload_bytes,
        "missed_heights": missed,
        "accounts": accounts,
        "seconds": round(elapsed, 1),
        "txs": at_end,
        "refused": load.refused,
        "nodes": len(network.urls),
    }


class _Load:
    """Signs transfers on demand, each account's nonces in order; one account stays with one
    node, so that its txs arrive in order."""

    def __init__(
        self,
        *,
        keys: Sequence[KeyPair],
        to: bytes,
        params: ChainParams,
        chain_id: str,
        valid_until: int,
        memo: bytes,
    ) -> None:
        self.refused = 0
        self.sent_ids: set[str] = set()
        self._keys = keys
        self._nonces = [0] * len(keys)
        self._params = params
        self._chain_id = chain_id
        self._valid_until = valid_until
        self._messages = [
            Message("bank/transfer", TransferBody(to=to, amount=1, memo=memo).encode())
        ]

    def next_batch(self, start: int, step: int, turn: int, count: int) -> list[bytes]:
        """`count` txs of the accounts start, start + step, ..."""
        own = range(start, len(self._keys), step)
        batch = []
        for i in range(count):
            account = own[(turn + i) % len(own)]
            tx = sign_tx(
                self._keys[account],
                chain_id=self._chain_id,
                nonce=self._nonces[account],
                valid_until=self._valid_until,
                messages=self._messages,
                params=self._params,
            )
            self._nonces[account] += 1
            self.sent_ids.add(tx.id.hex())
            batch.append(tx.encoded)
        return batch


class _Watcher:
    """Counts our txs in the final blocks of one node."""

    def __init__(self, client: RpcClient, load: _Load) -> None:
        self.count = 0
        self._client = client
        self._load = load
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once subscribed."""
        self._task = asyncio.create_task(self._watch())
        await self._started.wait()

    async def _watch(self) -> None:
        async with self._client.subscribe("blocks") as events:
            self._started.set()
            async for event in events:
                self.count += sum(
                    tx["tx_id"] in self._load.sent_ids and tx["code"] == "ok" for tx in event["txs"]
                )

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _send(
    client: RpcClient, load: _Load, start: int, step: int, watcher: _Watcher, deadline: float
) -> None:
    """Keep INFLIGHT_PER_NODE txs of this node's accounts on their way."""
    sent = turn = 0
    while time.perf_counter() < deadline:
        if sent - watcher.count // step > INFLIGHT_PER_NODE:
            await asyncio.sleep(PULL_S)
            continue
        batch = load.next_batch(start, step, turn, BATCH_TXS)
        turn += len(batch)
        sent += len(batch)
        try:
            answer = await client.call("tx_submitBatch", txs=[text_of_bytes(tx) for tx in batch])
            load.refused += sum("error" in outcome for outcome in answer["outcomes"])
        except RpcError as error:
            if not error.retry:
                raise
            load.refused += len(batch)
            await asyncio.sleep(0.1)


async def _nullified(clients: Sequence[RpcClient]) -> int:
    """Views that were nullified, as the node counts that saw most."""
    found = [await client.call("node_status") for client in clients]
    return max(int(status["nullified_views"]) for status in found)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Of ascending values, to one decimal."""
    index = min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))
    return round(ordered[index], 1)
