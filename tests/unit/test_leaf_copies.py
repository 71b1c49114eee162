"""Leaf lists go to peers before their anchor, and come back to a node that lost its disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from audit import copies as copies_module
from audit.copies import LeafList, keep_sign_bytes
from audit.leaf import decode_stream_text, encode_leaves
from audit.rows import COPY
from ledger.errors import InvalidInputError
from ledger.store import CrashStore, MemoryStore, Store
from node import copies as module
from node import leaf_recovery, wire
from node.copies import LeafCopies
from p2p.link import P2PLink
from tests.unit.anchoring_world import ANCHOR, AnchoringWorld
from tests.unit.chain_fixture import CHAIN_ID, key_of
from tests.unit.node_fixture import FakeLink
from tests.unit.test_node_anchoring import CountingStore, assert_receipted, multihash, submit

HOME = "home"


class Peer:
    """Another node as far as leaf lists go: its own disk, the same chain."""

    def __init__(self, world: AnchoringWorld, store: Store | None = None) -> None:
        self.store = store or MemoryStore()
        self.link = FakeLink((HOME,))
        self.copies = LeafCopies(
            chain=world.chain,
            store=self.store,
            link=cast(P2PLink, self.link),
            key=key_of(9),
            copies=0,
            on_change=lambda: None,
            on_failure=lambda reason: None,
        )

    def has_lists(self) -> int:
        return len(list(self.store.iterate(prefix=COPY)))


def connect(world: AnchoringWorld, peers: dict[str, Peer]) -> None:
    """Frames of channel 4 arrive a turn of the loop later; those of `HOME` at the peers."""
    loop = asyncio.get_running_loop()

    def send_home(name: str) -> Callable[[str, int, bytes], None]:
        def send(_: str, channel: int, payload: bytes) -> None:
            assert channel == wire.CHANNEL_LOG
            loop.call_soon(world.anchoring.on_message, name, payload)

        return send

    def send(name: str, channel: int, payload: bytes) -> None:
        if channel == wire.CHANNEL_LOG and name in peers:
            loop.call_soon(peers[name].copies.on_message, HOME, payload)

    world.link.on_send = send
    for name, peer in peers.items():
        peer.link.on_send = send_home(name)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(cast(Any, test()))


def signed_list(stream: bytes, *numbers: int, key: Any = ANCHOR) -> LeafList:
    leaves = encode_leaves(stream, [multihash(n) for n in numbers])
    return LeafList.signed(key, chain_id=CHAIN_ID, stream=stream, leaves=leaves)


def keep_frame(leaf_list: LeafList) -> bytes:
    return bytes([wire.TAG_KEEP]) + leaf_list.encode()


@pytest.mark.slow
def test_an_anchor_is_signed_only_once_two_peers_have_synced_its_leaves() -> None:
    async def test() -> None:
        world = AnchoringWorld(peers=("a", "b", "c"))
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        peers = {name: Peer(world, CrashStore()) for name in "ab"}
        connect(world, {"a": peers["a"]})
        [leaf] = await submit(world, stream, 1)
        await asyncio.sleep(0.5)
        assert peers["a"].has_lists() == 1
        assert len(world.pool.mempool) == 0, "one copy is not two"
        assert world.anchoring.status(leaf)["status"] == "batched"
        connect(world, peers)
        await world.until_pending()
        for peer in peers.values():
            assert isinstance(peer.store, CrashStore)
            survived = Peer(world, peer.store.crash())
            assert survived.has_lists() == 1, "what it said it has is synced"
        world.commit()
        assert_receipted(world, stream, leaf, 1)
        await world.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANSWER_S", 0.1)
        run(test)


@pytest.mark.slow
def test_a_batch_that_waits_for_its_copies_is_read_once_however_much_is_submitted() -> None:
    async def test() -> None:
        store = CountingStore()
        world = AnchoringWorld(store=store, peers=("a", "b"))
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        await submit(world, stream, 1)
        await asyncio.sleep(0.4)  # its batch is closed, and both peers are asked
        assert len([sent for sent in world.link.sent if sent[1] == wire.CHANNEL_LOG]) == 2
        before = store.batch_reads
        for number in range(2, 12):
            await submit(world, stream, number)
        assert store.batch_reads == before
        await world.stop()

    run(test)


@pytest.mark.slow
def test_a_node_asks_no_more_copies_than_it_has_peers() -> None:
    async def test() -> None:
        world = AnchoringWorld(peers=("a",), copies=2)
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        connect(world, {"a": Peer(world)})
        await submit(world, stream, 1)
        await world.until_pending()
        await world.stop()

    run(test)


@pytest.mark.slow
def test_only_a_peer_that_was_asked_can_say_that_it_has_a_list() -> None:
    async def test() -> None:
        world = AnchoringWorld(peers=("a",), copies=1)
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        await submit(world, stream, 1)
        await asyncio.sleep(0.4)
        [(_, _, frame)] = [sent for sent in world.link.sent if sent[1] == wire.CHANNEL_LOG]
        root = LeafList.decode(frame[1:]).compute_root()
        said = wire.encode_ids(wire.TAG_KEPT, [root])
        world.anchoring.on_message("stranger", said)
        world.anchoring.on_message("a", wire.encode_ids(wire.TAG_KEPT, [bytes(32)]))
        await asyncio.sleep(0.1)
        assert len(world.pool.mempool) == 0
        world.anchoring.on_message("a", said)
        await world.until_pending()
        await world.stop()

    run(test)


@pytest.mark.slow
def test_a_node_with_a_new_disk_gets_its_leaves_back_and_issues_their_receipts() -> None:
    async def test() -> None:
        world = AnchoringWorld(peers=("a", "b"))
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        peers = {name: Peer(world) for name in "ab"}
        connect(world, peers)
        leaves = await submit(world, stream, 1, 2)
        await world.until_pending()
        world.commit()
        other = await submit(world, stream, 3)
        await world.until_pending()
        await world.stop()  # the second anchor was sent, and becomes final after the loss
        again = AnchoringWorld(world.chain_store, MemoryStore(), peers=("a", "b"))
        connect(again, peers)
        again.anchoring.start()
        for leaf in (*leaves, *other):
            assert again.anchoring.status(leaf)["status"] == "unknown"
        [tx] = world.pool.mempool.candidates(bytes_max=10**6, count_max=9)
        assert isinstance((await again.pool.submit([tx.encoded]))[0], bytes)
        again.commit()
        await asyncio.sleep(0.3)
        for leaf, number in zip((*leaves, *other), (1, 2, 3), strict=True):
            assert_receipted(again, stream, leaf, number)
        more = await submit(again, stream, 4)
        await again.until_pending()
        again.commit()
        assert_receipted(again, stream, more[0], 4)
        await again.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaf_recovery, "ROUND_S", 0.05)
        run(test)


@pytest.mark.slow
def test_a_list_with_another_root_brings_nothing_back() -> None:
    async def test() -> None:
        world = AnchoringWorld(peers=("a",))
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        connect(world, {"a": Peer(world)})
        [leaf] = await submit(world, stream, 1)
        await world.until_pending()
        world.commit()
        await world.stop()
        again = AnchoringWorld(world.chain_store, MemoryStore(), peers=("a",))
        again.anchoring.start()
        for _ in range(10):
            lie = signed_list(decode_stream_text(stream), 7)
            again.anchoring.on_message("a", bytes([wire.TAG_LIST]) + lie.encode())
            await asyncio.sleep(0.01)
        assert again.anchoring.status(leaf)["status"] == "unknown"
        await again.stop()

    run(test)


def test_a_list_is_kept_for_a_submitter_alone_and_a_forged_one_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies_module, "WAITING_MAX", 2)

    async def test() -> None:
        world = AnchoringWorld()
        stream = decode_stream_text(await world.make_stream())
        peer = Peer(world)
        good = signed_list(stream, 1)
        forged = LeafList(
            stream=good.stream,
            submitter=good.submitter,
            leaves=good.leaves,
            signature=ANCHOR.sign(keep_sign_bytes("another-chain", good.compute_root())),
        )
        for bad in (
            keep_frame(forged),
            keep_frame(good)[:-1],
            b"\x44",
            wire.encode_ids(wire.TAG_WANT_LISTS, [bytes(32)] * (module.WANTED_MAX + 1)),
        ):
            with pytest.raises(InvalidInputError):
                peer.copies.on_message(HOME, bad)
        peer.copies.on_message(HOME, keep_frame(signed_list(stream, 1, key=key_of(5))))
        peer.copies.on_message(HOME, keep_frame(signed_list(bytes(32), 1)))
        await asyncio.sleep(0.05)
        assert peer.has_lists() == 0
        for number in (1, 2, 3, 1):
            peer.copies.on_message(HOME, keep_frame(signed_list(stream, number)))
            await asyncio.sleep(0.02)
        assert peer.has_lists() == 2, "a third would wait beside two"
        kept = [payload for _, _, payload in peer.link.sent]
        assert [wire.decode_ids(payload[1:])[0] for payload in kept] == [
            signed_list(stream, number).compute_root() for number in (1, 2, 1)
        ], "one that is here already is said to be"
        peer.copies.stop()
        await world.stop()

    run(test)


@pytest.mark.slow
def test_a_list_whose_anchor_never_comes_is_dropped_and_an_anchored_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies_module, "WAIT_HEIGHTS", 3)
    monkeypatch.setattr(leaf_recovery, "ROUND_S", 0.02)

    async def test() -> None:
        world = AnchoringWorld(store=CrashStore())
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        roots = {n: signed_list(decode_stream_text(stream), n).compute_root() for n in (1, 2)}
        for number in roots:  # the node keeps lists of a twin that has its anchor key
            frame = keep_frame(signed_list(decode_stream_text(stream), number))
            world.anchoring.on_message("twin", frame)
        await asyncio.sleep(0.05)
        await submit(world, stream, 1)
        await world.until_pending()
        world.commit()
        await world.anchoring.stop()
        assert isinstance(world.store, CrashStore)
        again = AnchoringWorld(world.chain_store, world.store.crash())  # "anchored" was not synced
        again.anchoring.start()
        for _ in range(6):
            again.commit()
            await asyncio.sleep(0.05)
        kept = {key[-32:] for key, _ in again.store.iterate(prefix=COPY)}
        assert kept == {roots[1]}
        await again.stop()

    run(test)
