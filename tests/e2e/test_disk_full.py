"""A disk that takes no more, under load to that very node: it stops voting, says why, and nothing
that it acknowledged is lost once there is space again.

Twice: a file system without a free block (ENOSPC; a small tmpfs, which root alone may mount), and
the kernel's limit on the size of files (EFBIG), which needs no right.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from audit.leaf import hash_chunks
from bench.stream import make_stream
from ledger.errors import ZynkError
from node.devnet import Devnet
from rpc.client import RpcClient
from rpc.params import text_of_bytes
from tests.e2e.network import (
    Load,
    chain_hashes,
    check_receipts,
    final_heights,
    height_of,
    public_key_of,
    running_devnet,
    until,
    until_height,
    until_higher,
    until_status,
    until_voting,
    zynk,
)
from tests.e2e.observer import Observer
from tests.e2e.signed import DiskReader

pytestmark = pytest.mark.e2e

VICTIM = 3
DISK_BYTES = 64 << 20
LEAVES_PER_S = 20


class FileSizeLimit:
    """The kernel refuses each write of the node past byte 1 of a file."""

    errno = errno.EFBIG

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet

    @asynccontextmanager
    async def under(self) -> AsyncIterator[None]:
        yield

    def fill(self) -> None:
        process = self._devnet.nodes[VICTIM].process
        assert process is not None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self) -> None:
        """The limit ended with the process."""


class SmallDisk:
    """The node's home moves to a file system that a ballast file fills to the last byte."""

    errno = errno.ENOSPC

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet
        self._path = devnet.folder / "small-disk"
        self._ballast = self._path / "ballast"

    @asynccontextmanager
    async def under(self) -> AsyncIterator[None]:
        """The node runs with its home on the small disk until the block is left."""
        node = self._devnet.nodes[VICTIM]
        assert await self._devnet.stop_node(VICTIM) == 0
        self._path.mkdir()
        options = f"size={DISK_BYTES},mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "zynk-test", str(self._path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(f"no small disk for ENOSPC, which needs root: {mounted.stderr.strip()}")
        try:
            node.home = shutil.copytree(node.home, self._path / "home")
            await self._devnet.start([VICTIM])
            yield
        finally:
            await self._devnet.stop_node(VICTIM)
            subprocess.run(["umount", "-l", str(self._path)], check=True)

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        self._ballast.unlink()


class Leaves:
    """Hands leaves to one node at a steady rate. `taken` holds the multihash by leaf hash of those
    that the node accepted, `refused` what it said to the others."""

    def __init__(self, devnet: Devnet) -> None:
        self.taken: dict[bytes, bytes] = {}
        self.refused: list[str] = []
        self._devnet = devnet
        self.stream = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make a stream that the node may anchor to, then begin."""
        self.stream = await make_stream(self._devnet, [VICTIM])
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with RpcClient(self._devnet.nodes[VICTIM].url) as client:
            while True:
                multihash = hash_chunks([os.urandom(16)])
                try:
                    answer = await client.call(
                        "audit_submit", stream=self.stream, leaves=[text_of_bytes(multihash)]
                    )
                except ZynkError as error:
                    self.refused.append(str(error))
                else:
                    self.taken[bytes.fromhex(answer["leaves"][0]["leaf"])] = multihash
                await asyncio.sleep(1 / LEAVES_PER_S)


@pytest.mark.parametrize("kind", [SmallDisk, FileSizeLimit])
def test_a_full_disk_stops_the_vote_with_a_clear_error_and_loses_nothing(
    kind: type[SmallDisk | FileSizeLimit],
) -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            disk = kind(devnet)
            async with disk.under(), Observer.of(devnet) as observer:
                key = public_key_of(devnet, VICTIM)
                leaves = Leaves(devnet)
                await leaves.start()
                load = Load(devnet, nodes=[0, 1, 2, VICTIM])
                await load.start()
                await load.until_final(40)
                await until("leaves are taken", lambda: len(leaves.taken) >= 20)
                await observer.until_heard([key])

                disk.fill()
                stopped_at = await until_stopped(devnet, os.strerror(disk.errno))
                said = set(observer.book.of(key))
                await until_higher(devnet, 0, by=10)
                assert set(observer.book.of(key)) == said, "it votes no more"
                assert await height_of(devnet, VICTIM) == stopped_at
                await leaves.stop()
                await load.stop()
                acknowledged = dict(load.final)
                await devnet.stop_node(VICTIM)
                signed = DiskReader(devnet, observer.book)
                disk.free()
                signed.read(VICTIM)
                assert signed.faults == []

                await devnet.start([VICTIM])
                await until_height(devnet, await height_of(devnet, 0), [VICTIM])
                await until_voting(devnet, VICTIM)
                await observer.until_heard([key])
                observer.check()
                url = devnet.nodes[VICTIM].url
                assert [fault for fault in load.failures if url not in fault] == []
                assert await final_heights(devnet, VICTIM, acknowledged) == acknowledged
                heights = range(1, stopped_at + 1)
                hashes = await chain_hashes(devnet, 0, heights)
                assert await chain_hashes(devnet, VICTIM, heights) == hashes
                await check_receipts(devnet, VICTIM, leaves.stream, leaves.taken)
                print(
                    f"{len(acknowledged)} final txs, {len(leaves.taken)} leaves taken and "
                    f"{len(leaves.refused)} refused, stopped at height {stopped_at}"
                )

    asyncio.run(run())


async def until_stopped(devnet: Devnet, because: str) -> int:
    """Until the node has stopped voting; all that it tells about it. Returns its height."""
    status = await until_status(
        devnet, VICTIM, "the node stops voting", lambda s: not s["validator"]["voting"]
    )
    assert not status["ready"]
    url = devnet.nodes[VICTIM].url
    told = await asyncio.to_thread(zynk, "status", "--rpc", url)
    assert told.returncode == 0, told.stderr
    words = " ".join(told.stdout.split())
    assert re.search(rf"voting no: consensus stopped: .*{because}", words), told.stdout
    async with RpcClient(url) as client:
        assert (await client.call("chain_head"))["height"] == status["height"]
        code, body = await client.get("/ready")
        assert code == 503
        assert because.encode() in body
    return int(status["height"])
