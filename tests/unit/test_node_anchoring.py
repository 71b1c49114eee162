"""Leaves from submission to a receipt that holds, over restarts and refusals, on a real chain."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from audit.anchor import BATCH_LEAVES_MAX
from audit.leaf import decode_stream_text
from audit.rows import BATCH
from audit.verify import verify_receipt
from ledger.errors import DurabilityError, InvalidInputError
from ledger.store import CrashStore, MemoryStore, Store
from node import anchoring as module
from rpc.errors import RpcCode, RpcError
from rpc.params import bytes_of_text
from tests.unit.anchoring_world import ANCHOR, AnchoringWorld
from tests.unit.chain_fixture import CHAIN_ID, GENESIS

World = AnchoringWorld


class CountingStore(MemoryStore):
    """Counts how often a batch is read."""

    batch_reads = 0

    def get(self, key: bytes) -> bytes | None:
        self.batch_reads += key.startswith(BATCH)
        return super().get(key)


def multihash(number: int) -> bytes:
    return b"\x12\x20" + hashlib.sha256(b"content %d" % number).digest()


def run(test: Callable[[World], Awaitable[World | None]], store: Store | None = None) -> None:
    """`test` may return another world to be stopped, after a restart."""

    async def body() -> None:
        world = World(store=store)
        world.anchoring.start()
        try:
            last = await test(world)
        finally:
            await world.stop()
        if last is not None:
            await last.stop()

    asyncio.run(body())


async def submit(world: World, stream: str, *numbers: int) -> list[bytes]:
    """The leaves' hashes."""
    answer = await world.anchoring.submit(stream, [multihash(n) for n in numbers], None)
    leaves: list[dict[str, Any]] = answer["leaves"]
    assert [leaf["status"] for leaf in leaves] == ["accepted"] * len(numbers)
    return [bytes.fromhex(leaf["leaf"]) for leaf in leaves]


def assert_receipted(world: World, stream: str, leaf: bytes, number: int) -> None:
    answer = world.anchoring.receipt(leaf)
    verdict = verify_receipt(
        bytes_of_text(answer["receipt"]),
        multihash=multihash(number),
        trusted=GENESIS.validators,
        chain_id=CHAIN_ID,
        stream=decode_stream_text(stream),
    )
    assert verdict.is_ok, verdict


@pytest.mark.slow
def test_a_leaf_is_accepted_batched_anchored_and_receipted() -> None:
    async def test(world: World) -> None:
        await world.fund()
        stream = await world.make_stream()
        first, second = await submit(world, stream, 1, 2)
        with pytest.raises(RpcError, match="no receipt yet") as caught:
            world.anchoring.receipt(first)
        assert caught.value.code == RpcCode.NOT_READY
        await world.until_pending()
        assert world.anchoring.status(first)["status"] == "batched"
        commit = world.commit()
        status = world.anchoring.status(first)
        assert (status["status"], status["height"]) == ("receipted", commit.height)
        assert_receipted(world, stream, first, 1)
        assert_receipted(world, stream, second, 2)
        with pytest.raises(RpcError) as caught:
            world.anchoring.receipt(bytes(32))
        assert caught.value.code == RpcCode.NOT_FOUND
        assert world.anchoring.status(bytes(32))["status"] == "unknown"

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("is_final_meanwhile", [False, True])
def test_a_restart_sends_the_same_anchor_again_and_anchors_nothing_twice(
    is_final_meanwhile: bool,
) -> None:
    async def test(world: World) -> World:
        await world.fund()
        stream = await world.make_stream()
        [leaf] = await submit(world, stream, 1)
        await world.until_pending()
        [tx] = world.pool.mempool.candidates(bytes_max=10**6, count_max=9)
        await world.anchoring.stop()
        if is_final_meanwhile:
            world.commit()  # it is stopped and does not hear of it
        again = World(world.chain_store, world.store)
        again.anchoring.start()
        if not is_final_meanwhile:
            await again.until_pending()
            assert again.pool.find(tx.id) == tx.encoded
        again.commit()
        assert_receipted(again, stream, leaf, 1)
        assert again.chain.head is not None
        assert again.chain.head.audit_size == 1
        return again

    run(test)


@pytest.mark.slow
def test_leaves_accepted_before_a_crash_are_anchored_after_it() -> None:
    async def test(world: World) -> World:
        await world.fund()
        stream = await world.make_stream()
        [leaf] = await submit(world, stream, 1)
        assert isinstance(world.store, CrashStore)
        survived = world.store.crash()  # before the batch closed
        again = World(world.chain_store, survived)
        again.anchoring.start()
        await again.until_pending()
        again.commit()
        assert_receipted(again, stream, leaf, 1)
        return again

    run(test, CrashStore())


@pytest.mark.slow
def test_an_anchor_that_can_not_be_paid_waits_and_is_sent_again() -> None:
    async def test(world: World) -> None:
        stream = await world.make_stream()
        [leaf] = await submit(world, stream, 1)
        await asyncio.sleep(0.4)
        assert len(world.pool.mempool) == 0, "the account is empty"
        assert world.anchoring.status(leaf)["status"] == "batched"
        await world.fund()
        await asyncio.sleep(module.RESEND_INTERVAL_S)
        await world.until_pending()
        world.commit()
        assert_receipted(world, stream, leaf, 1)

    run(test)


def test_what_can_never_be_anchored_is_refused_at_the_door() -> None:
    async def test(world: World) -> None:
        theirs = await world.make_stream(submitter=bytes(32))
        with pytest.raises(InvalidInputError, match="may not anchor") as caught:
            await world.anchoring.submit(theirs, [multihash(1)], None)
        assert ANCHOR.public_key.hex() in caught.value.got
        unknown = theirs[:-1] + ("2" if theirs[-1] != "2" else "3")
        for stream in (unknown, "no stream", ""):
            with pytest.raises(InvalidInputError):
                await world.anchoring.submit(stream, [multihash(1)], None)
        with pytest.raises(InvalidInputError, match="no leaves"):
            await world.anchoring.submit(theirs, [], None)

    run(test)


def test_a_bad_request_spoils_none_that_shares_its_write() -> None:
    async def test(world: World) -> None:
        stream = await world.make_stream()
        submit_ = world.anchoring.submit
        outcomes: list[Any] = await asyncio.gather(
            submit_(stream, [multihash(1)], "request-1"),
            submit_(stream, [multihash(2)], "request-1"),  # another content under the same id
            submit_(stream, [multihash(3)], None),
            return_exceptions=True,
        )
        good, bad, also_good = outcomes
        assert isinstance(bad, InvalidInputError)
        assert isinstance(good, dict)
        assert isinstance(also_good, dict)
        assert await submit_(stream, [multihash(1)], "request-1") == good, "said again"

    run(test)


def test_a_client_that_leaves_costs_the_others_nothing() -> None:
    async def test(world: World) -> None:
        stream = await world.make_stream()
        gone = asyncio.create_task(world.anchoring.submit(stream, [multihash(1)], None))
        stays = asyncio.create_task(world.anchoring.submit(stream, [multihash(2)], None))
        await asyncio.sleep(0)
        gone.cancel()
        assert len((await stays)["leaves"]) == 1

    run(test)


@pytest.mark.slow
def test_too_many_waiting_submissions_are_refused_with_a_retry() -> None:
    async def test(world: World) -> None:
        stream = await world.make_stream()
        calls = [
            asyncio.create_task(world.anchoring.submit(stream, [multihash(n)], None))
            for n in range(module.SUBMISSIONS_MAX + 1)
        ]
        await asyncio.sleep(0)
        await world.anchoring.stop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        [refused] = [o for o in outcomes if isinstance(o, RpcError)]
        assert refused.reason == "audit/busy"
        assert refused.retry

    run(test)


@pytest.mark.slow
def test_telling_where_many_leaves_are_reads_their_batch_once() -> None:
    """Each leaf read its batch: 4,096 submissions at a time held the node up for ten seconds."""
    store = CountingStore()

    async def test(world: World) -> None:
        await world.fund()
        stream = await world.make_stream()
        calls = [submit(world, stream, n) for n in range(BATCH_LEAVES_MAX - 1)]
        leaves = [leaf for [leaf] in await asyncio.gather(*calls)]
        await world.until_pending()
        store.batch_reads = 0
        states = {world.anchoring.status(leaf)["status"] for leaf in leaves}
        assert (states, store.batch_reads) == ({"batched"}, 1)
        world.commit()
        states = {world.anchoring.status(leaf)["status"] for leaf in leaves}
        assert states == {"receipted"}, "what a block changes is seen at once"

    run(test, store)


def test_a_failed_write_is_told_to_the_client_and_stops_the_pipeline() -> None:
    store = CrashStore()

    async def test(world: World) -> None:
        stream = await world.make_stream()
        store.fail_after(0)
        with pytest.raises(DurabilityError):
            await world.anchoring.submit(stream, [multihash(1)], None)
        assert len(world.failures) == 1
        assert "audit store" in world.failures[0]
        world.commit()  # the chain goes on

    run(test, store)
