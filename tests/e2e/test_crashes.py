"""kill -9 under load: of one validator at random, of all four at once; a disk that takes no more.

The full counts (20 and 10 cycles) run in `./dev soak`; `./dev test` runs a twentieth.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import resource
import time

import pytest

from ledger.errors import ZynkError
from node.devnet import Devnet
from rpc.client import RpcClient
from tests.e2e.network import Load, running_devnet
from tests.e2e.observer import Observer

pytestmark = pytest.mark.e2e

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SEED = int(os.environ.get("ZYNK_SEED", "1"))
SLOW_HEIGHT_S = 2.0


class HeightClock:
    """Notes when a node finalises each height."""

    def __init__(self, url: str) -> None:
        self.times: list[float] = []
        self._url = url

    async def run(self) -> None:
        async with RpcClient(self._url) as client, client.subscribe("blocks") as events:
            async for _ in events:
                self.times.append(time.monotonic())

    def gaps_within(self, start: float, end: float) -> list[float]:
        """Seconds between consecutive heights while the load ran."""
        inside = [t for t in self.times if start <= t <= end]
        return [b - a for a, b in itertools.pairwise(inside)]


async def wait_voting(devnet: Devnet, index: int, timeout_s: float = 30.0) -> None:
    """Until the node votes again. Raises ZynkError with its own reason."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = await devnet.status(index)
        if status["validator"]["voting"]:
            return
        if time.monotonic() > deadline:
            raise ZynkError("the node does not vote", got=status["validator"]["reason"])
        await asyncio.sleep(0.1)


async def chain_hashes(devnet: Devnet, index: int, heights: range) -> list[str]:
    """Block hashes of a node."""
    async with RpcClient(devnet.nodes[index].url) as client:
        return [
            str((await client.call("chain_header", block=height))["hash"]) for height in heights
        ]


@pytest.mark.timeout(3600)
def test_one_validator_killed_at_random_comes_back_each_time() -> None:
    cycles = 20 if IS_SOAK else 2
    rng = random.Random(SEED)

    async def run() -> None:
        gaps: list[float] = []
        async with (
            running_devnet() as devnet,
            Observer(devnet, devnet.folder / "observer") as observer,
        ):
            for _ in range(cycles):
                victim = rng.randrange(4)
                alive = [index for index in range(4) if index != victim]
                load = Load(devnet, nodes=alive)
                await load.start()
                clock = HeightClock(devnet.nodes[alive[0]].url)
                watching = asyncio.create_task(clock.run())
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                devnet.kill(victim)
                down = time.monotonic()
                await asyncio.sleep(rng.uniform(3, 6))
                gaps += clock.gaps_within(down, time.monotonic())
                target = int((await devnet.status(alive[0]))["height"])
                await devnet.start([victim])
                await devnet.wait_height(target, [victim])
                await wait_voting(devnet, victim)
                await load.stop()
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                assert load.failures == [], f"ZYNK_SEED={SEED}"
            assert observer.conflicts == [], f"ZYNK_SEED={SEED}"
            assert observer.count > 100
            fast = sum(gap < SLOW_HEIGHT_S for gap in gaps)
            print(f"heights while one is down: {len(gaps)}, under 2 s: {fast}")
            assert fast >= 0.95 * len(gaps), (f"ZYNK_SEED={SEED}", sorted(gaps)[-10:])

    asyncio.run(run())


@pytest.mark.timeout(3600)
def test_all_four_killed_at_once_keep_every_final_tx_and_never_sign_twice() -> None:
    cycles = 10 if IS_SOAK else 2
    rng = random.Random(SEED + 1)

    async def run() -> None:
        final: dict[str, int] = {}
        async with (
            running_devnet() as devnet,
            Observer(devnet, devnet.folder / "observer") as observer,
        ):
            for _ in range(cycles):
                load = Load(devnet, nodes=[0, 1, 2, 3])
                await load.start()
                await asyncio.sleep(rng.uniform(1, 3))
                for index in range(4):
                    devnet.kill(index)
                await load.stop()
                final.update(load.final)
                reported = max(final.values())
                await devnet.start()
                await devnet.wait_height(reported)
            async with RpcClient(devnet.nodes[0].url) as client:
                for tx_id, height in final.items():
                    assert (await client.call("tx_get", tx_id=tx_id))["height"] == height
            top = min([int((await devnet.status(i))["height"]) for i in range(4)])
            chains = [await chain_hashes(devnet, i, range(1, top + 1)) for i in range(4)]
            assert chains[0] == chains[1] == chains[2] == chains[3]
            assert observer.conflicts == [], f"ZYNK_SEED={SEED}"
            assert len(final) > 20 * cycles
            print(f"{cycles} cycles, {top} heights, {len(final)} final txs, {observer.count} votes")

    asyncio.run(run())


def test_a_disk_that_takes_no_more_stops_the_vote_and_loses_nothing() -> None:
    """The kernel refuses every write past 1 byte of file size (EFBIG), as a full disk would."""

    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            await asyncio.sleep(1)
            process = devnet.nodes[3].process
            assert process is not None
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            await asyncio.sleep(3)
            status = await devnet.status(3)
            assert not status["ready"]
            assert not status["validator"]["voting"]
            assert "write failed" in status["validator"]["reason"]
            stopped_at = int(status["height"])
            async with RpcClient(devnet.nodes[3].url) as client:
                assert (await client.call("chain_head"))["height"] == stopped_at
            assert int((await devnet.status(0))["height"]) > stopped_at
            await devnet.stop_node(3)
            await devnet.start([3])
            await devnet.wait_height(int((await devnet.status(0))["height"]), [3])
            await wait_voting(devnet, 3)
            await load.stop()
            assert load.failures == []
            heights = range(1, stopped_at + 1)
            assert await chain_hashes(devnet, 3, heights) == await chain_hashes(devnet, 0, heights)

    asyncio.run(run())
