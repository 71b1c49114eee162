"""Admission, gossip in batches, repair, waiting: with a real chain and mempool, and a fake link."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from ledger.chain import Chain
from ledger.errors import InvalidInputError, ZynkError
from ledger.mempool import Mempool, MempoolLimits
from ledger.store import MemoryStore
from ledger.tx import Tx
from node import txpool as module
from node import wire
from node.signature_pool import SignaturePool
from node.tx_waits import Dropped, Final, TxWaits
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    FAUCET,
    GENESIS_TIME_MS,
    PROPOSER,
    certify,
    key_of,
    open_chain,
    transfer,
)
from tests.unit.node_fixture import FakeLink

TO = bytes(range(32))


class Pool:
    """A TxPool with its surroundings."""

    def __init__(self, limits: MempoolLimits | None = None) -> None:
        self.chain: Chain = open_chain(MemoryStore())
        self.link = FakeLink(peers=("a", "b"))
        self.signatures = SignaturePool(threads=1)
        self.woken = 0
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(limits),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    def commit(self, txs: list[Tx]) -> None:
        block = self.chain.build(
            view=1,
            facts=self.chain.plain_facts(PROPOSER),
            time_ms=GENESIS_TIME_MS + 1000 * (self.chain.height + 1),
            candidates=txs,
        )
        self.pool.on_commit(self.chain.commit(block, certify(block)))


def run(test: Callable[[Pool], Awaitable[None]], limits: MempoolLimits | None = None) -> None:
    async def body() -> None:
        world = Pool(limits)
        world.pool.start()
        try:
            await test(world)
        finally:
            await world.pool.stop()
            world.signatures.close()

    asyncio.run(body())


def test_a_tx_is_admitted_once_and_submitting_it_again_is_harmless() -> None:
    async def test(world: Pool) -> None:
        tx = transfer(FAUCET, 0, TO, 1)
        assert await world.pool.submit([tx.encoded]) == [tx.id]
        assert await world.pool.submit([tx.encoded]) == [tx.id]
        assert len(world.pool.mempool) == 1
        assert world.woken == 1
        world.commit([tx])
        assert await world.pool.submit([tx.encoded]) == [tx.id], "final txs too"
        assert len(world.pool.mempool) == 0

    run(test)


def test_each_bad_tx_is_refused_by_itself_and_the_good_ones_stay() -> None:
    async def test(world: Pool) -> None:
        good, gap = transfer(FAUCET, 0, TO, 1), transfer(FAUCET, 7, TO, 1)
        forged = bytearray(transfer(FAUCET, 1, TO, 1).encoded)
        forged[-1] ^= 1
        other_chain = transfer(FAUCET, 1, TO, 1, chain_id="other")
        poor = transfer(key_of(1), 0, TO, 1)
        outcomes = await world.pool.submit(
            [b"", bytes(forged), gap.encoded, other_chain.encoded, poor.encoded, good.encoded]
        )
        assert outcomes[-1] == good.id
        errors = [outcome for outcome in outcomes if isinstance(outcome, ZynkError)]
        assert len(errors) == 5
        assert "signature" in errors[1].message
        assert [error.retry for error in errors] == [False, False, True, False, True]
        assert world.pool.mempool.ids() == [good.id]
        assert world.pool.refused_total == 5

    run(test)


def test_a_used_nonce_is_refused_before_its_signature_is_checked() -> None:
    async def test(world: Pool) -> None:
        world.commit([transfer(FAUCET, 0, TO, 1)])
        used = bytearray(transfer(FAUCET, 0, TO, 2).encoded)
        used[-1] ^= 1
        (outcome,) = await world.pool.submit([bytes(used)])
        assert isinstance(outcome, InvalidInputError)
        assert "nonce" in outcome.message

    run(test)


def test_own_txs_are_gossiped_at_once_and_then_gathered() -> None:
    async def test(world: Pool) -> None:
        txs = [transfer(FAUCET, nonce, TO, 1) for nonce in range(5)]
        for tx in txs:
            await world.pool.submit([tx.encoded])
        assert len(world.link.published) == 1, "the first goes at once"
        await asyncio.sleep(module.GOSSIP_INTERVAL_S * 1.5)
        assert len(world.link.published) == 2, "the rest in one batch"
        gossiped = [
            tx for _, payload in world.link.published for tx in wire.decode_txs(payload[1:])
        ]
        assert gossiped == [tx.encoded for tx in txs]

    run(test)


def test_gossiped_txs_are_admitted_and_not_gossiped_again() -> None:
    async def test(world: Pool) -> None:
        txs = [transfer(FAUCET, nonce, TO, 1) for nonce in range(3)]
        world.pool.on_gossip("a", wire.encode_txs([tx.encoded for tx in txs]))
        world.pool.on_gossip("a", b"\x12\xff")  # no batch: logged and dropped
        world.pool.on_gossip("a", b"?")
        await asyncio.sleep(0.05)
        assert len(world.pool.mempool) == 3
        assert not world.link.published

    run(test)


def test_the_inbox_is_bounded() -> None:
    async def test(world: Pool) -> None:
        payload = wire.encode_txs([bytes(60_000)] * 8)
        for _ in range(100):
            world.pool.on_gossip("a", payload)
        assert world.pool.inbox_bytes <= module.INBOX_BYTES_MAX
        await asyncio.sleep(0.2)
        assert world.pool.inbox_bytes == 0

    run(test)


def test_an_offer_is_answered_with_what_is_missing_and_a_want_with_txs() -> None:
    async def test(world: Pool) -> None:
        mine, theirs = transfer(FAUCET, 0, TO, 1), transfer(FAUCET, 1, TO, 1)
        await world.pool.submit([mine.encoded])
        world.pool.on_message("a", wire.encode_ids(wire.TAG_OFFER, [mine.id, theirs.id]))
        peer, channel, payload = world.link.sent.pop()
        assert (peer, channel) == ("a", wire.CHANNEL_TX)
        assert payload == wire.encode_ids(wire.TAG_WANT, [theirs.id])
        world.pool.on_message("b", wire.encode_ids(wire.TAG_WANT, [mine.id, theirs.id]))
        assert world.link.sent.pop()[2] == wire.encode_txs([mine.encoded])
        world.pool.on_message("a", wire.encode_txs([theirs.encoded]))
        await asyncio.sleep(0.05)
        assert theirs.id in world.pool.mempool
        for bad in (b"\x10\x00", b"\x99", b"\x11"):
            with pytest.raises(InvalidInputError):
                world.pool.on_message("a", bad)

    run(test)


@pytest.mark.slow
def test_txs_that_wait_long_are_offered_to_one_peer_after_the_other() -> None:
    async def test(world: Pool) -> None:
        tx = transfer(FAUCET, 0, TO, 1)
        await world.pool.submit([tx.encoded])
        await asyncio.sleep(module.OFFER_AGE_S + 2.5 * module.OFFER_INTERVAL_S)
        offer = wire.encode_ids(wire.TAG_OFFER, [tx.id])
        assert {peer for peer, _, payload in world.link.sent if payload == offer} == {"a", "b"}
        world.commit([tx])
        world.link.sent.clear()
        await asyncio.sleep(1.5 * module.OFFER_INTERVAL_S)
        assert not world.link.sent

    run(test)


def test_waiting_ends_with_finality_or_with_time_and_leaves_nothing_behind() -> None:
    async def test(world: Pool) -> None:
        tx, never = transfer(FAUCET, 0, TO, 1), transfer(FAUCET, 1, TO, 1)
        await world.pool.submit([tx.encoded])
        both = asyncio.create_task(world.pool.wait_final([tx.id, never.id], 0.2))
        same = asyncio.create_task(world.pool.wait_final([tx.id], 5))
        await asyncio.sleep(0.01)
        world.commit([tx])
        assert await same == {tx.id: Final(height=1, index=0)}
        assert await both == {tx.id: Final(height=1, index=0)}
        assert await world.pool.wait_final([tx.id, tx.id], 5) == {tx.id: Final(height=1, index=0)}
        cancelled = asyncio.create_task(world.pool.wait_final([never.id], 5))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert world.pool.waiting == 0

    run(test)


def test_a_block_of_pending_txs_needs_no_second_check_and_a_forged_tx_is_found() -> None:
    async def test(world: Pool) -> None:
        pending, unseen = transfer(FAUCET, 0, TO, 1), transfer(FAUCET, 1, TO, 1)
        await world.pool.submit([pending.encoded])
        assert world.pool.pending_txs([pending.id]) == [pending]
        assert world.pool.pending_txs([pending.id, unseen.id]) is None
        assert await world.pool.verified_txs([pending.encoded, unseen.encoded]) == [pending, unseen]
        forged = bytearray(unseen.encoded)
        forged[-1] ^= 1
        with pytest.raises(InvalidInputError, match="signature"):
            await world.pool.verified_txs([pending.encoded, bytes(forged)])

    run(test)


def test_a_background_loop_that_fails_starts_again() -> None:
    async def body() -> None:
        runs = 0

        async def work() -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise RuntimeError("a bug")
            await asyncio.sleep(60)

        task = asyncio.create_task(module.keep_going(work))
        for _ in range(100):
            if runs == 2:
                break
            await asyncio.sleep(0.05)
        assert runs == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(body())


def test_who_begins_to_wait_after_a_tx_was_dropped_waits_for_its_next_fate() -> None:
    async def test() -> None:
        waits, tx_id = TxWaits(lambda _: None), bytes(32)
        before = asyncio.create_task(waits.wait([tx_id], 5))
        await asyncio.sleep(0)
        waits.tell(tx_id, Dropped(reason="mempool/evicted"))
        after = asyncio.create_task(waits.wait([tx_id], 5))  # it was taken in again at once
        assert await before == {tx_id: Dropped(reason="mempool/evicted")}
        waits.tell(tx_id, Final(height=2, index=0))
        assert await after == {tx_id: Final(height=2, index=0)}
        assert len(waits) == 0

    asyncio.run(test())
