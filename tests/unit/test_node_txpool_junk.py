"""Junk tx batches: few are kept, few are read a turn, and who made them is found out.

50,000 frames of one byte were read in one go: 1.4 s without a turn for anybody else, 9 MB of log,
and no fault on anyone's record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
import structlog.testing

from ledger.mempool import Mempool
from ledger.store import MemoryStore
from node import txpool as module
from node import wire
from node.offences import OFFENCES_MAX, Offences
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import FAUCET, key_of, open_chain, transfer
from tests.unit.node_fixture import FakeLink
from tests.unit.virtual_time import run_virtual

COUNT = 100_000
TO = bytes(range(32))
EMPTY = wire.encode_txs([])


class World:
    """A pool whose offences are counted as a node counts them."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.dropped: list[str] = []
        self.offences = Offences(
            clock=loop.time, on_drop=lambda peer, reason: self.dropped.append(peer)
        )
        self.signatures = SignaturePool(threads=1)
        self.pool = TxPool(
            chain=open_chain(MemoryStore()),
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, FakeLink()),
            topic="tx/test",
            on_pending=lambda: None,
            on_offence=self.offences.add,
        )

    async def drain(self) -> list[int]:
        """How many offences each turn of the loop brought, until the inbox is empty."""
        turns = []
        while self.pool.inbox_bytes:
            before = self.offences.total
            await asyncio.sleep(0)
            turns.append(self.offences.total - before)
        return turns

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        await self.pool.stop()
        self.signatures.close()


@pytest.mark.slow
@pytest.mark.parametrize("junk", [b"\x12", EMPTY, b"?", b""], ids=["cut", "empty", "tag", "none"])
def test_a_flood_of_tiny_batches_is_kept_small_read_slowly_and_ends_with_the_peer(
    junk: bytes,
) -> None:
    async def body() -> None:
        world = World()
        for _ in range(COUNT):
            world.pool.on_gossip("flooder", junk)
        kept = world.pool.inbox_bytes // (len(junk) + module.MESSAGE_OVERHEAD_BYTES)
        assert kept == module.INBOX_MESSAGES_MAX
        world.pool.start()
        with structlog.testing.capture_logs() as lines:
            turns = await world.drain()
        assert world.offences.total == kept, "each is a fault"
        assert max(turns) <= module.INBOX_MESSAGES_A_TURN
        assert len(lines) == 1, "one line a second"
        assert world.dropped == ["flooder"] * (kept // OFFENCES_MAX)
        await world.end()

    run_virtual(body())


def test_the_inbox_is_bounded_by_bytes_too() -> None:
    async def body() -> None:
        world = World()
        for _ in range(100):
            world.pool.on_gossip("a", bytes(1024 * 1024))
        assert world.pool.inbox_bytes > module.INBOX_BYTES_MAX - 2 * 1024 * 1024
        assert world.pool.inbox_bytes <= module.INBOX_BYTES_MAX
        await world.end()

    run_virtual(body())


def test_one_large_batch_is_admitted_in_slices() -> None:
    async def body() -> None:
        world = World()
        world.pool.on_gossip("a", wire.encode_txs([b"?"] * wire.IDS_MAX))
        world.pool.start()
        turns = []
        while world.offences.total < wire.IDS_MAX:
            before = world.offences.total
            await asyncio.sleep(0)
            turns.append(world.offences.total - before)
        assert max(turns) <= module.ADMIT_BATCH_TXS
        await world.end()

    run_virtual(body())


def test_forged_signatures_are_scored_and_what_may_be_honest_is_not() -> None:
    async def body() -> None:
        world = World()
        world.pool.start()
        good = transfer(FAUCET, 0, TO, 1)
        forged = [transfer(FAUCET, n, TO, 1).encoded[:-1] + b"\0" for n in range(1, 6)]
        gap, poor = transfer(FAUCET, 9, TO, 1), transfer(key_of(1), 0, TO, 1)
        honest = [good.encoded, gap.encoded, poor.encoded]
        world.pool.on_gossip("relay", wire.encode_txs(honest))
        world.pool.on_message("forger", wire.encode_txs(forged))
        await world.until(lambda: world.offences.total == len(forged))
        assert world.pool.mempool.ids() == [good.id]
        for _ in range(4):
            world.pool.on_message("forger", wire.encode_txs(forged))
        await world.until(lambda: world.dropped == ["forger"])
        await world.end()

    asyncio.run(body())  # signatures are checked in threads
