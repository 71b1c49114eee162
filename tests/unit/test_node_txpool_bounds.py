"""What a peer or a client can make the tx pool do is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ledger.errors import InvalidInputError
from ledger.mempool import MempoolLimits
from ledger.tx import Tx
from node import txpool as module
from node import wire
from node.tx_waits import WAITERS_MAX, Dropped, Fate
from tests.unit.chain_fixture import FAUCET, key_of, transfer
from tests.unit.test_node_txpool import TO, Pool, run
from tests.unit.virtual_time import run_virtual

ROOMY = MempoolLimits(account_txs_max=10_000)


def test_waits_over_the_limit_are_left_out_and_those_for_the_same_tx_are_shared() -> None:
    async def test(world: Pool) -> None:
        kept = bytes([1]) * 32
        other = asyncio.create_task(world.pool.wait_final([kept], 60))
        full = [i.to_bytes(32, "big") for i in range(WAITERS_MAX - 2)]
        many = asyncio.create_task(world.pool.wait_final(full, 60))
        await asyncio.sleep(0.01)
        assert world.pool.waiting == WAITERS_MAX - 1
        over = asyncio.create_task(world.pool.wait_final([b"a" * 32, b"b" * 32, kept], 0.01))
        await asyncio.sleep(0)
        assert world.pool.waiting == WAITERS_MAX
        assert await over == {}
        assert world.pool.waiting == WAITERS_MAX - 1
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        assert world.pool.waiting == 1, "the other caller's"
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert world.pool.waiting == 0

    run(test)


async def fate_after(world: Pool, tx: Tx, event: Callable[[], Awaitable[object]]) -> Fate:
    """What a wait for a pending tx comes to when `event` happens; a minute is far too late."""
    assert await world.pool.submit([tx.encoded]) == [tx.id]
    waiting = asyncio.create_task(world.pool.wait_final([tx.id], 60))
    await asyncio.sleep(0)
    await event()
    async with asyncio.timeout(5):
        return (await waiting)[tx.id]


def test_who_waits_for_a_tx_is_told_when_it_is_replaced() -> None:
    async def test(world: Pool) -> None:
        cheap = transfer(FAUCET, 0, TO, 1)
        dear = transfer(FAUCET, 0, TO, 2, fee=10 * cheap.fee)
        fate = await fate_after(world, cheap, lambda: world.pool.submit([dear.encoded]))
        assert fate == Dropped(reason="mempool/replaced")

    run(test)


def test_who_waits_for_a_tx_is_told_when_it_is_evicted() -> None:
    async def test(world: Pool) -> None:
        async def fund() -> None:
            world.commit([transfer(FAUCET, 0, key_of(1).public_key, 10**9)])

        await fund()
        cheap = transfer(FAUCET, 1, TO, 1)
        dear = transfer(key_of(1), 0, TO, 1, fee=10 * cheap.fee)
        fate = await fate_after(world, cheap, lambda: world.pool.submit([dear.encoded]))
        assert fate == Dropped(reason="mempool/evicted")

    run(test, MempoolLimits(count_max=1))


def test_who_waits_for_a_tx_is_told_when_it_expires_or_its_nonce_is_used() -> None:
    async def test(world: Pool) -> None:
        async def commit(*txs: Tx) -> None:
            world.commit(list(txs))

        short = transfer(FAUCET, 0, TO, 1, valid_until=1)
        assert await fate_after(world, short, commit) == Dropped(reason="mempool/expired")
        mine, other = transfer(FAUCET, 0, TO, 1), transfer(FAUCET, 0, TO, 2)
        fate = await fate_after(world, mine, lambda: commit(other))
        assert fate == Dropped(reason="mempool/nonce-used")

    run(test)


def test_who_waits_for_a_tx_is_told_when_the_node_can_not_execute_it() -> None:
    async def test(world: Pool) -> None:
        tx = transfer(FAUCET, 0, TO, 1)

        async def bar() -> None:
            world.pool.bar(tx.id)

        assert await fate_after(world, tx, bar) == Dropped(reason="tx/not-executable")

    run(test)


def test_thousands_of_refused_txs_of_one_call_let_others_run_in_between() -> None:
    async def test(world: Pool) -> None:
        submitting = asyncio.create_task(world.pool.submit([b"?"] * 4096))
        turns = 0
        while not submitting.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 4096 // module.ADMIT_BATCH_TXS
        assert len(submitting.result()) == 4096

    run(test)


@pytest.mark.slow
def test_a_want_is_answered_once_for_each_id_and_up_to_a_megabyte() -> None:
    """4,096 times the id of one large tx made 256 MB of answers."""

    async def test(world: Pool) -> None:
        txs = [transfer(FAUCET, n, TO, 1, memo=bytes(200)) for n in range(5000)]
        for start in range(0, len(txs), 1000):
            await world.pool.submit([tx.encoded for tx in txs[start : start + 1000]])
        world.link.sent.clear()  # offers, if submitting took long
        world.pool.on_message("a", wire.encode_ids(wire.TAG_WANT, [txs[0].id] * wire.IDS_MAX))
        assert [payload for _, _, payload in world.link.sent] == [wire.encode_txs([txs[0].encoded])]
        world.link.sent.clear()
        ids = [tx.id for tx in txs[: wire.IDS_MAX]]
        assert wire.IDS_MAX * len(txs[0].encoded) > module.WANT_ANSWER_BYTES_MAX
        world.pool.on_message("a", wire.encode_ids(wire.TAG_WANT, ids))
        sent = [tx for _, _, p in world.link.sent for tx in wire.decode_txs(p[1:])]
        assert sent == [tx.encoded for tx in txs[: len(sent)]]
        total = sum(map(len, sent))
        assert module.WANT_ANSWER_BYTES_MAX - 1000 < total <= module.WANT_ANSWER_BYTES_MAX
        world.link.sent.clear()
        world.link.accepts = False
        world.pool.on_message("a", wire.encode_ids(wire.TAG_WANT, ids))
        assert not world.link.sent

    run(test, ROOMY)


@pytest.mark.slow
def test_an_inbox_full_of_junk_lets_others_run_in_between() -> None:
    """Nothing yielded: eight megabytes of it held the loop for many seconds."""

    async def test(world: Pool) -> None:
        junk = wire.encode_txs([b"?"] * wire.IDS_MAX)
        for _ in range(20):
            world.pool.on_gossip("a", junk)
        turns = 0
        while world.pool.inbox_bytes:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 15
        assert world.pool.refused_total >= 15 * wire.IDS_MAX
        tx = transfer(FAUCET, 0, TO, 1)
        assert await world.pool.submit([tx.encoded]) == [tx.id]

    run(test)


@pytest.mark.slow
def test_txs_behind_many_old_ones_are_offered_too() -> None:
    """Only the oldest 2,048 ever were: txs that stay pending kept the rest from repair."""

    async def body() -> None:
        world = Pool(MempoolLimits(account_txs_max=10_000))
        count = module.OFFER_IDS_MAX + 500
        txs = [transfer(FAUCET, n, TO, 1) for n in range(count)]
        for pair in range(0, count, 2):  # two at a time are verified without a thread
            await world.pool.submit([tx.encoded for tx in txs[pair : pair + 2]])
        world.pool.start()
        await asyncio.sleep(module.OFFER_AGE_S + 4.5 * module.OFFER_INTERVAL_S)
        offered: dict[str, set[bytes]] = {"a": set(), "b": set()}
        for peer, _, payload in world.link.sent:
            offered[peer].update(wire.decode_ids(payload[1:]))
        assert offered["a"] == offered["b"] == {tx.id for tx in txs}
        await world.pool.stop()
        world.signatures.close()

    run_virtual(body())


def test_a_replaced_tx_is_forgotten_and_its_successor_passed_on() -> None:
    async def test(world: Pool) -> None:
        cheap = transfer(FAUCET, 0, TO, 1)
        dear = transfer(FAUCET, 0, TO, 2, fee=10 * cheap.fee)
        assert await world.pool.submit([cheap.encoded]) == [cheap.id]
        assert await world.pool.submit([dear.encoded]) == [dear.id]
        assert world.pool.find(cheap.id) is None
        assert world.pool.find(dear.id) == dear.encoded
        [underpriced] = await world.pool.submit([cheap.encoded])
        assert isinstance(underpriced, InvalidInputError)
        await asyncio.sleep(2 * module.GOSSIP_INTERVAL_S)
        gossiped = [tx for _, p in world.link.published for tx in wire.decode_txs(p[1:])]
        assert gossiped == [cheap.encoded, dear.encoded]

    run(test)


def test_one_bad_tx_spoils_none_of_its_batch() -> None:
    async def test(world: Pool) -> None:
        good = [transfer(FAUCET, n, TO, 1) for n in range(3)]
        poor = transfer(key_of(1), 0, TO, 1)
        forged = transfer(FAUCET, 3, TO, 1).encoded[:-1] + b"\0"
        batch = [good[0].encoded, b"", poor.encoded, good[1].encoded, forged, good[2].encoded]
        outcomes = await world.pool.submit(batch)
        assert [o for o in outcomes if isinstance(o, bytes)] == [tx.id for tx in good]
        assert [isinstance(o, Exception) for o in outcomes] == [
            False, True, True, False, True, False
        ]  # fmt: skip
        assert world.pool.refused_total == 3

    run(test)
