"""The audit log under kill -9, and after the loss of a disk.

`./dev soak` kills 20 times, `./dev test` once.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Iterable

import pytest

from audit.leaf import hash_chunks
from bench.stream import make_stream
from ledger.errors import ZynkError
from node import config as cfg
from node.daemon import AUDIT_FOLDER
from node.devnet import Devnet
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError
from rpc.params import text_of_bytes
from tests.e2e.network import (
    check_receipts,
    running_devnet,
    until,
    until_height,
    until_higher,
)

pytestmark = pytest.mark.e2e

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SEED = int(os.environ.get("ZYNK_SEED", "1"))
KILLS = 20 if IS_SOAK else 1
GROUP_LEAVES = 20
GROUPS_A_CYCLE_MIN = 5


class Client:
    """Hands groups of leaves to one node, and each again until it is taken: `taken` holds the
    multihash by leaf hash."""

    def __init__(self, devnet: Devnet, index: int, stream: str, rng: random.Random) -> None:
        self.taken: dict[bytes, bytes] = {}
        self.groups = 0
        self.retried = 0
        self._url = devnet.nodes[index].url
        self._stream = stream
        self._rng = rng
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            group = [hash_chunks([self._rng.randbytes(16)]) for _ in range(GROUP_LEAVES)]
            request_id = self._rng.randbytes(8).hex()
            while True:
                try:
                    async with RpcClient(self._url) as client:
                        answer = await client.call(
                            "audit_submit",
                            stream=self._stream,
                            leaves=[text_of_bytes(multihash) for multihash in group],
                            request_id=request_id,
                        )
                    break
                except (ZynkError, RpcConnectionError, OSError):
                    self.retried += 1
                    await asyncio.sleep(0.1)
            for leaf, multihash in zip(answer["leaves"], group, strict=True):
                self.taken[bytes.fromhex(leaf["leaf"])] = multihash
            self.groups += 1
            await asyncio.sleep(0.15)


class Heads:
    """Asks every node for its checkpoint again and again: none goes back, and no size has two
    roots anywhere."""

    def __init__(self, devnet: Devnet) -> None:
        self.seen = 0
        self.faults: list[str] = []
        self._root_by_size: dict[int, str] = {}
        self._tasks = [
            asyncio.create_task(self._watch(index, node.url))
            for index, node in enumerate(devnet.nodes)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, index: int, url: str) -> None:
        newest = 0
        while True:
            try:
                async with RpcClient(url) as client:
                    while True:
                        answer = await client.call("audit_checkpoint")
                        newest = self._judge(index, answer, newest)
                        await asyncio.sleep(0.02)
            except (ZynkError, RpcConnectionError, OSError):
                await asyncio.sleep(0.1)

    def _judge(self, index: int, answer: dict[str, object], newest: int) -> int:
        size, root = answer["tree_size"], str(answer["root_hash"])
        assert isinstance(size, int)
        self.seen += 1
        if size < newest:
            self.faults.append(f"node {index} went back from {newest} to {size}")
        if self._root_by_size.setdefault(size, root) != root:
            self.faults.append(f"node {index} has another root for size {size}")
        return size


async def leaves_in_log(devnet: Devnet, index: int, stream: str) -> int:
    """As execution counted them."""
    async with RpcClient(devnet.nodes[index].url) as client:
        answer = await client.call("audit_stream", stream=stream)
    return int(answer["leaves_total"])


async def until_groups(clients: Iterable[Client], count: int) -> None:
    targets = [(client, client.groups + count) for client in clients]
    await until("leaves are taken", lambda: all(c.groups >= target for c, target in targets))


@pytest.mark.timeout(3600)
def test_each_leaf_that_was_taken_is_anchored_once_through_kills_and_a_lost_disk() -> None:
    rng = random.Random(SEED)
    print(f"ZYNK_SEED={SEED}")

    async def run() -> None:
        async with running_devnet() as devnet:
            stream = await make_stream(devnet, [0, 1])
            clients = [
                Client(devnet, index, stream, random.Random(rng.random())) for index in (0, 1)
            ]
            heads = Heads(devnet)
            await until_groups(clients, GROUPS_A_CYCLE_MIN)
            for cycle in range(KILLS):
                victim = cycle % 2 if rng.random() < 0.75 else rng.randrange(4)
                await asyncio.sleep(rng.uniform(0, 1.5))
                devnet.kill(victim)
                await asyncio.sleep(rng.uniform(0, 1))
                await devnet.start([victim])
                await until_groups(clients, GROUPS_A_CYCLE_MIN)
            for client in clients:
                await client.stop()
            for index, client in enumerate(clients):
                await check_receipts(devnet, index, stream, client.taken)
            await heads.stop()
            assert heads.faults == []
            count = sum(len(client.taken) for client in clients)
            in_log = await leaves_in_log(devnet, 0, stream)
            # The last group of a client may have been taken without its answer heard.
            assert count <= in_log <= count + 2 * GROUP_LEAVES
            print(
                f"{KILLS} kills, {count} leaves, {in_log} in the log, "
                f"{sum(client.retried for client in clients)} requests sent again, "
                f"{heads.seen} checkpoints seen"
            )
            await lose_the_disk(devnet, stream, clients[1].taken)

    asyncio.run(run())


async def lose_the_disk(devnet: Devnet, stream: str, taken: dict[bytes, bytes]) -> None:
    """Node 1 loses its audit store; its peers have the leaves."""
    await devnet.stop_node(1)
    home = devnet.nodes[1].home
    shutil.rmtree(home / cfg.DATA_FOLDER / AUDIT_FOLDER)
    await devnet.start([1])
    await until_height(devnet, await until_higher(devnet, 0, by=2), [1])
    await check_receipts(devnet, 1, stream, taken)
    assert "lost leaves are back" in (home / "node.log").read_text()
