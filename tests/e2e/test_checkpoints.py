"""Checkpoints of real nodes: cosigned by all, read by a client in Go, verified offline; through
kills under load no node ever shows two roots for a size or goes back, and all sign again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from audit.leaf import hash_chunks
from audit.tree_store import tile_key
from bench.stream import make_stream
from ledger.errors import ZynkError
from ledger.store import Batch, LevelStore
from node import config as cfg
from node.api_log import read_published
from node.devnet import Devnet
from rpc.client import RpcClient
from rpc.params import text_of_bytes
from tests.e2e.go_log_client import build_client, read_log
from tests.e2e.network import LIMIT_S, genesis_of, running_devnet, until, zynk

pytestmark = pytest.mark.e2e
SEED = int(os.environ.get("ZYNK_SEED", random.randrange(2**32)))
LEAVES_PER_S = 10
KILLS = 3 if os.environ.get("ZYNK_SOAK") == "1" else 1
POLL_S = 0.1


class Anchors:
    """Hands leaves to node 0 until it is stopped."""

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet
        self._stream = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stream = await make_stream(self._devnet, [0])
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with RpcClient(self._devnet.nodes[0].url) as client:
            while True:
                leaf = text_of_bytes(hash_chunks([os.urandom(16)]))
                await client.call("audit_submit", stream=self._stream, leaves=[leaf])
                await asyncio.sleep(1 / LEAVES_PER_S)


class Watch:
    """Reads /checkpoint of every node, and remembers."""

    def __init__(self, devnet: Devnet) -> None:
        self.root_by_size: dict[int, str] = {}
        self.sizes: list[list[int]] = [[] for _ in devnet.nodes]
        self.faults: list[str] = []
        self._devnet = devnet

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watch]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def size(self, index: int) -> int:
        return self.sizes[index][-1] if self.sizes[index] else 0

    async def _run(self) -> None:
        while True:
            await asyncio.gather(*(self._read(index) for index in range(len(self.sizes))))
            await asyncio.sleep(POLL_S)

    async def _read(self, index: int) -> None:
        try:
            async with RpcClient(self._devnet.nodes[index].url, timeout_s=2) as client:
                status, body = await client.get("/checkpoint")
        except ZynkError:
            return
        if status != 200:
            return
        _, size_text, root = body.decode().split("\n")[:3]
        size = int(size_text)
        if self.root_by_size.setdefault(size, root) != root:
            self.faults.append(f"node {index} shows a second root for size {size}")
        if size < self.size(index):
            self.faults.append(f"node {index} went back from {self.size(index)} to {size}")
        self.sizes[index].append(size)


async def until_grown(watch: Watch, index: int, what: str) -> None:
    """Until the node publishes a log of 4 entries more than node 0 does now."""
    before = watch.size(0)
    await until(what, lambda: watch.size(index) > before + 3)


async def published(devnet: Devnet, index: int) -> dict[str, object]:
    async with RpcClient(devnet.nodes[index].url) as client:
        answer: dict[str, object] = (await client.call("audit_checkpoint"))["published"]
        return answer


async def until_cosigned_by_all(devnet: Devnet, size_min: int) -> list[dict[str, object]]:
    """Until each node publishes a log of at least so many entries that all have cosigned."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        found = [await published(devnet, index) for index in range(len(devnet.nodes))]
        if all(
            answer
            and int(str(answer["tree_size"])) >= size_min
            and answer["power"] == answer["total_power"]
            for answer in found
        ):
            return found
        if time.monotonic() > deadline:
            raise ZynkError("all cosign", got=str([f and f["power"] for f in found]))
        await asyncio.sleep(POLL_S)


@pytest.mark.timeout(600)
def test_checkpoints_are_cosigned_read_by_go_and_never_go_back_through_kills(
    tmp_path: Path,
) -> None:
    rng = random.Random(SEED)
    print(f"ZYNK_SEED={SEED}")

    async def run() -> None:
        async with running_devnet() as devnet, Watch(devnet).running() as watch:
            anchors = Anchors(devnet)
            await anchors.start()
            try:
                await until("a first checkpoint", lambda: watch.size(1) > 0)
                for _ in range(KILLS):
                    victim = rng.randrange(1, 4)
                    await asyncio.sleep(rng.uniform(0.5, 1.5))
                    devnet.kill(victim)
                    await until_grown(watch, 0, "three of four go on")
                    await devnet.start([victim])
                    await until_grown(watch, victim, "it signs again")
            finally:
                await anchors.stop()
            answers = await until_cosigned_by_all(devnet, watch.size(0))
            assert watch.faults == []
            genesis = genesis_of(devnet)
            for answer in answers:
                found = read_published(answer, genesis.validators, genesis.chain_id)
                assert found.cosigned.has_quorum
                assert found.cosigned.power == genesis.validators.total_power
            await read_with_go(devnet, answers, tmp_path)
            await devnet.stop()
            for node in devnet.nodes:
                check_stopped(node.home, watch.size(0))

    asyncio.run(run())


def check_stopped(home: Path, size_min: int) -> None:
    """The whole log of a node that is not running, by the command; then with one tile spoilt."""
    checked = zynk("audit", "fsck", "--home", str(home), "--json")
    assert checked.returncode == 0, checked.stderr + checked.stdout
    told = json.loads(checked.stdout)
    assert told["tree_size"] >= size_min
    assert all(check["ok"] for check in told["checks"])
    store = LevelStore.open(home / cfg.CHAIN_FOLDER)
    tile = store.get(tile_key(0, 0))
    assert tile is not None
    batch = Batch()
    batch.put(tile_key(0, 0), bytes([tile[0] ^ 1]) + tile[1:])
    store.write(batch, sync=True)
    store.close()
    damaged = zynk("audit", "fsck", "--home", str(home))
    assert damaged.returncode == 4
    assert [line[:6] for line in damaged.stdout.splitlines()].count("FAILED") == 1
    assert "tile 0/0 differs" in damaged.stdout


async def read_with_go(devnet: Devnet, answers: list[dict[str, object]], folder: Path) -> None:
    client = build_client(folder)
    for node, answer in zip(devnet.nodes, answers, strict=True):
        cosigners = answer["cosigners"]
        assert isinstance(cosigners, list)
        keys = [str(cosigner["key"]) for cosigner in cosigners]
        found = await read_log(client, node.url, str(answer["log_key"]), keys)
        assert found["size"] >= int(str(answer["tree_size"]))
        assert len(found["signers"]) == 5
        assert found["unknown"] == 0
