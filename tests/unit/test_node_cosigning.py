"""Validators cosign the log's head: the same heads without agreeing on any, never two roots for a
size, never back; what is published verifies offline; nobody can make a node publish or pass on
what is not so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint
from audit.cosign import read_cosigners
from audit.cosignatures import SignedHead, decode_heads, encode_heads, sign_head
from ledger import codec
from ledger.errors import DurabilityError, InvalidInputError, UsageError
from ledger.merkle import EMPTY_ROOT
from node import wire
from node.cosigning import GRACE_S, MESSAGES_BURST, REPAIR_S, SLOT_MS
from node.log_guard import ContradictionError, LogGuard
from tests.unit.chain_fixture import CHAIN_ID, NETWORK
from tests.unit.cosigning_world import ORIGIN, CosigningNode, CosigningWorld
from tests.unit.virtual_time import run_virtual

Test = Callable[[CosigningWorld], Awaitable[None]]
SLOT_S = SLOT_MS / 1000
ALL = 4 * NETWORK.document.to_state().validators.validators[0].power


def run(folder: Path, test: Test, links: tuple[str, ...] = ()) -> None:
    async def body() -> None:
        world = CosigningWorld(folder, links)
        try:
            await test(world)
        finally:
            await world.stop()

    run_virtual(body())


def head_of(
    node: CosigningNode, index: int, size: int, root: bytes, *, time_s: int | None = None
) -> SignedHead:
    """What validator `index` would sign."""
    known = read_cosigners(node.chain.tree, node.chain.validators, CHAIN_ID)
    pair = NETWORK.nodes[index].cosign_key
    cosigner = known.find_key(pair.public_key)
    assert cosigner is not None
    checkpoint = Checkpoint(origin=ORIGIN, tree_size=size, root_hash=root)
    now_s = node.world.wall_ms() // 1000
    return sign_head(checkpoint, cosigner, pair, now_s if time_s is None else time_s)


def message(*heads: SignedHead) -> bytes:
    return bytes([wire.TAG_HEADS]) + encode_heads(heads)


def test_a_quiet_chain_ends_up_signed_by_all(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        nodes = world.start()
        await asyncio.sleep(0.3)
        size = world.commit(3)
        await asyncio.sleep(2 * SLOT_S)
        for node in nodes:
            found = node.verified()
            assert (found.checkpoint.tree_size, found.power) == (size, ALL)
            assert found.has_quorum
            assert node.guard.size == size
        assert not world.offences

    run(tmp_path, test)


def test_validators_of_a_busy_chain_sign_the_same_heads(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        nodes = world.start()
        for _ in range(80):
            await asyncio.sleep(0.1)
            world.commit()
        for node in nodes:
            assert node.verified().has_quorum
            sizes = node.published
            assert 6 <= len(sizes) <= 10  # one a slot
            assert sizes == sorted(set(sizes))
        assert len({tuple(node.published) for node in nodes}) == 1
        assert not world.offences

    run(tmp_path, test)


def test_a_checkpoint_without_quorum_is_published_late_and_completed_later(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        a, b = world.start("ab")
        world.commit()
        await asyncio.sleep(2 * SLOT_S)  # the first one waits for nobody
        first = a.verified().checkpoint.tree_size
        size = world.commit()
        await asyncio.sleep(GRACE_S / 2)
        assert a.verified().checkpoint.tree_size == first
        await asyncio.sleep(SLOT_S + GRACE_S)
        found = a.verified()
        assert (found.checkpoint.tree_size, found.power, found.has_quorum) == (
            size,
            ALL // 2,
            False,
        )
        world.add("c", 2).start()
        await asyncio.sleep(2 * SLOT_S)
        for node in (a, b, world.nodes["c"]):
            found = node.verified()
            assert (found.checkpoint.tree_size, found.has_quorum) == (size, True)

    run(tmp_path, test)


def test_an_observer_publishes_what_validators_cosigned_through_a_chain_of_peers(
    tmp_path: Path,
) -> None:
    async def test(world: CosigningWorld) -> None:
        *_, observer = world.start("abcdo")
        world.commit()
        await asyncio.sleep(3 * SLOT_S)
        assert observer.verified().power == ALL
        size = world.commit()
        await asyncio.sleep(3 * SLOT_S)
        assert (observer.verified().checkpoint.tree_size, observer.verified().power) == (size, ALL)
        for node in world.nodes.values():  # each head goes over a link once, or meets itself
            sent = [
                (peer, head.operator, head.tree_size)
                for peer, _, payload in node.link.sent
                for head in decode_heads(payload[1:])
            ]
            assert len(sent) == len(set(sent))
        assert not world.offences

    run(tmp_path, test, links=("ab", "bc", "cd", "do"))


def test_a_newcomer_to_a_quiet_chain_learns_the_cosignatures(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        world.start()
        world.commit()
        await asyncio.sleep(100)
        observer = world.add("o", None)
        observer.start()
        await asyncio.sleep(2 * SLOT_S)
        assert observer.verified().power == ALL

    run(tmp_path, test)


def test_what_a_peer_lost_is_sent_again(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        nodes = world.start()
        deaf = nodes[0]
        deaf.is_up = False
        size = world.commit()
        block, certificate = world.blocks[-1]
        deaf.cosigning.on_commit(deaf.chain.commit(block, certificate))
        await asyncio.sleep(3 * SLOT_S)
        assert deaf.verified().power == ALL // 4
        deaf.is_up = True
        await asyncio.sleep(REPAIR_S)
        assert (deaf.verified().checkpoint.tree_size, deaf.verified().power) == (size, ALL)

    run(tmp_path, test)


# --- what is never signed ---


def test_a_guard_ahead_of_the_log_keeps_the_node_silent_until_it_is_there(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        node = world.add("a", 0)
        root_of_three = bytes(32)
        node.guard.advance(3, root_of_three)  # the store is not the one that was signed from
        node.start()
        world.commit(2)
        await asyncio.sleep(3 * SLOT_S)
        assert node.cosigning.published is None
        assert "contradicts" in node.cosigning.reason
        world.commit(2)  # larger, but not a continuation
        await asyncio.sleep(3 * SLOT_S)
        assert node.cosigning.published is None
        assert not node.link.sent
        assert (node.guard.size, node.guard.root) == (3, root_of_three)

    run(tmp_path, test)


def test_a_node_that_caught_up_with_its_guard_signs_again(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        world.start("bcd")
        size = world.commit(3)
        await asyncio.sleep(2 * SLOT_S)
        root = world.nodes["b"].log_tree.root(size)
        node = world.add("a", 0)
        node.guard.advance(size, root)
        node.is_up = True
        node.cosigning.start()  # with an empty store
        await asyncio.sleep(2 * SLOT_S)
        assert node.cosigning.published is None
        await node.stop()
        node = world.add("a", 0)
        node.start()
        await asyncio.sleep(2 * SLOT_S)
        assert node.verified().has_quorum

    run(tmp_path, test)


def test_nothing_is_signed_unless_the_guard_was_written(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        async def full_disk(work: Callable[[], None]) -> None:
            raise DurabilityError("file could not be written", got="no space left")

        world.run_blocking = full_disk
        (node,) = world.start("a")
        world.commit()
        await asyncio.sleep(3 * SLOT_S)
        assert node.cosigning.published is None
        assert "no space left" in node.cosigning.reason
        assert not any(head for _, _, p in node.link.sent for head in decode_heads(p[1:]))

    run(tmp_path, test)


def test_a_crash_between_guard_and_signature_loses_nothing(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        async def crash(work: Callable[[], None]) -> None:
            work()
            raise asyncio.CancelledError

        world.run_blocking = crash
        (node,) = world.start("a")
        size = world.commit()
        await asyncio.sleep(3 * SLOT_S)
        assert node.cosigning.published is None
        await node.stop()
        world.run_blocking = lambda work: _done(work)
        again = world.add("a", 0)
        assert again.guard.size == size
        again.start()
        await asyncio.sleep(2 * SLOT_S)
        assert again.verified().checkpoint.tree_size == size

    run(tmp_path, test)


async def _done(work: Callable[[], None]) -> None:
    work()


def test_guard_never_lets_a_second_root_or_a_smaller_size_through(tmp_path: Path) -> None:
    path = tmp_path / "guard" / "log.guard"
    guard = LogGuard.create(path, ORIGIN)
    guard.advance(0, EMPTY_ROOT)
    guard.advance(5, b"r" * 32)
    for size, root in ((5, b"s" * 32), (4, b"r" * 32), (0, EMPTY_ROOT)):
        with pytest.raises(ContradictionError):
            guard.advance(size, root)
    again = LogGuard.open(path, ORIGIN)
    again.advance(5, b"r" * 32)
    with pytest.raises(ContradictionError):
        again.advance(4, b"r" * 32)
    again.advance(6, b"t" * 32)
    assert LogGuard.open(path, ORIGIN).size == 6


def test_guard_that_is_lost_or_damaged_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.guard"
    with pytest.raises(UsageError):
        LogGuard.open(path, ORIGIN)
    LogGuard.create(path, ORIGIN)
    with pytest.raises(UsageError):
        LogGuard.create(path, ORIGIN)
    with pytest.raises(InvalidInputError, match="another log"):
        LogGuard.open(path, "zynk.log/other")
    data = path.read_bytes()
    for bad in (b"", data[:-1], data + b"\0", codec.encode(["log-guard/1", ORIGIN, 1, b"x"])):
        path.write_bytes(bad)
        with pytest.raises(InvalidInputError):
            LogGuard.open(path, ORIGIN)


# --- what others send ---


def test_false_heads_are_refused_and_not_passed_on(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        a, _ = world.start("ab")
        size = world.commit()
        await asyncio.sleep(2 * SLOT_S)
        root = a.log_tree.root(size)
        good = head_of(a, 2, size, root)
        a.link.sent.clear()
        for bad in (
            replace(good, signature=bytes(64)),
            replace(good, time_s=good.time_s + 1),
            replace(good, root_hash=bytes(32)),
            replace(good, operator=NETWORK.nodes[3].operator_key.public_key),
        ):
            with pytest.raises(InvalidInputError, match="not valid"):
                a.cosigning.on_message("b", message(bad))
        stranger = replace(good, operator=bytes(32))
        early = head_of(a, 2, size, root, time_s=good.time_s + 3600)
        a.cosigning.on_message("b", message(stranger, early))
        await asyncio.sleep(1)
        assert a.verified().power == ALL // 2
        assert not a.link.sent
        a.cosigning.on_message("b", message(good))
        assert a.verified().power == 3 * ALL // 4

    run(tmp_path, test)


def test_a_validator_that_shows_another_log_is_noticed(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        a, _ = world.start("ab")
        size = world.commit(2)
        await asyncio.sleep(2 * SLOT_S)
        for lie in (head_of(a, 2, size, bytes(32)), head_of(a, 1, size - 1, bytes(32))):
            expected = lie.tree_size == size
            if expected:
                with pytest.raises(InvalidInputError, match="another log"):
                    a.cosigning.on_message("b", message(lie))
            else:  # older than what it has signed here: no news
                a.cosigning.on_message("b", message(lie))
        assert a.cosigning.split_views_total == 1
        ahead = head_of(a, 2, size + 1, bytes(32))
        a.cosigning.on_message("b", message(ahead))
        world.commit()
        assert a.cosigning.split_views_total == 2
        await asyncio.sleep(2 * SLOT_S)
        assert a.verified().power == ALL // 2

    run(tmp_path, test)


def test_a_head_ahead_of_the_log_counts_once_the_log_is_there(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        a, b = world.start("ab")
        world.commit()
        await asyncio.sleep(2 * SLOT_S)
        b.is_up = False
        size = world.commit()
        b.is_up = True
        root = a.log_tree.root(size)
        b.cosigning.on_message("a", message(head_of(a, 2, size, root), head_of(a, 3, size, root)))
        block, certificate = world.blocks[-1]
        b.cosigning.on_commit(b.chain.commit(block, certificate))
        await asyncio.sleep(2 * SLOT_S)
        assert (b.verified().checkpoint.tree_size, b.verified().power) == (size, ALL)

    run(tmp_path, test)


def test_peers_may_not_flood_with_heads(tmp_path: Path) -> None:
    async def test(world: CosigningWorld) -> None:
        a, _ = world.start("ab")
        world.commit()
        await asyncio.sleep(2 * SLOT_S)
        own = message(head_of(a, 1, 1, a.log_tree.root(1)))
        refused = 0
        for _ in range(MESSAGES_BURST + 5):
            try:
                a.cosigning.on_message("b", own)
            except InvalidInputError as error:
                refused += "too many signed heads" in str(error)
        assert 5 <= refused <= 7  # b has sent one or two by itself
        for bad in (
            b"\x31",
            bytes([wire.TAG_HEADS]),
            own + b"\0",
            message(*[head_of(a, 1, 1, bytes(32))] * 257),
        ):
            await asyncio.sleep(1)
            with pytest.raises(InvalidInputError):
                a.cosigning.on_message("b", bad)
        a.cosigning.on_message("nobody", own)  # no peer (any more): nothing happens

    run(tmp_path, test)


@pytest.mark.parametrize("cut", range(5))
def test_signed_heads_are_read_as_they_were_written(cut: int) -> None:
    head = SignedHead(
        operator=b"o" * 32, tree_size=7, root_hash=b"r" * 32, time_s=9, signature=b"s" * 64
    )
    other = replace(head, operator=b"p" * 32)
    assert decode_heads(encode_heads([head, other])) == [head, other]
    with pytest.raises(InvalidInputError, match="twice"):
        decode_heads(encode_heads([head, replace(head, tree_size=8)]))
    value = head.to_value()
    for bad in (value[:cut] + value[cut + 1 :], [*value[:cut], "x", *value[cut + 1 :]]):
        with pytest.raises(InvalidInputError):
            decode_heads(codec.encode([bad]))
