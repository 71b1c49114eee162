"""A reader's copy of the log, and the proof that a checkpoint contradicts the chain."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from audit.checkpoint import Checkpoint, compute_origin, log_note_key, sign_note
from audit.log_copy import LogCopy
from audit.split_view import SplitView
from audit.tiles import format_tile_path
from ledger.errors import InvalidInputError
from ledger.finality import verify_finality
from ledger.merkle import EMPTY_ROOT
from ledger.store import MemoryStore
from node.monitor import split_bundle
from tests.unit.anchoring_world import AnchoringWorld
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, key_of
from tests.unit.test_node_anchoring import submit

LIAR = key_of(60)
KEY = log_note_key(CHAIN_ID, LIAR.public_key)
FALSE_ROOT = hashlib.sha256(b"another log").digest()


class Log:
    """The log of a chain with five anchors, and a verified copy of it."""

    def __init__(self, world: AnchoringWorld, copy: LogCopy) -> None:
        self.world = world
        self.copy = copy

    def split_view(self, size: int, root: bytes = FALSE_ROOT, **changes: object) -> SplitView:
        origin = str(changes.pop("origin", compute_origin(CHAIN_ID)))
        body = Checkpoint(origin=origin, tree_size=size, root_hash=root).body()
        fields: dict[str, object] = {
            "note": sign_note(body, compute_origin(CHAIN_ID), LIAR),
            "key": KEY,
            "root": self.copy.root(min(size, self.copy.size)),
            "path": tuple(self.copy.consistency_proof(min(size, self.copy.size))),
            "finality": self.world.chain.finality(self.world.chain.height),
        }
        return SplitView(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def log() -> Log:
    async def make() -> Log:
        world = AnchoringWorld()
        world.anchoring.start()
        await world.fund()
        stream = await world.make_stream()
        for number in range(5):
            await submit(world, stream, number)
            await world.until_pending()
            world.commit()
        await world.stop()
        copy = LogCopy(MemoryStore())
        copy.append(entries_of(world))
        assert world.chain.head is not None
        copy.verify(world.chain.head.audit_root)
        return Log(world, copy)

    return asyncio.run(make())


def entries_of(world: AnchoringWorld) -> list[bytes]:
    found: list[bytes] = []
    while (entry := world.log_tree.entry(len(found))) is not None:
        found.append(entry)
    return found


def test_a_false_checkpoint_of_any_size_is_proven_false(log: Log) -> None:
    assert log.copy.size == 5
    for size in range(6):
        proof = SplitView.decode(log.split_view(size).encode())
        header = verify_finality(proof.finality, GENESIS.validators, CHAIN_ID)
        found = proof.verify(header)
        assert (found.tree_size, found.root_hash) == (size, FALSE_ROOT)


@pytest.mark.parametrize(
    ("size", "match", "change"),
    [
        (3, "agrees with the chain", lambda log: {"root": log.copy.root(3)}),
        (0, "agrees with the chain", lambda log: {"root": EMPTY_ROOT}),
        (6, "ahead of the header", lambda log: {}),
        (3, "another log", lambda log: {"origin": "zynk.log/other"}),
        (3, "does not lead", lambda log: {"claimed": log.copy.root(2)}),
        (3, "empty|long|lead", lambda log: {"path": ()}),
        (0, "one root and no proof", lambda log: {"claimed": FALSE_ROOT}),
        (5, "one root", lambda log: {"claimed": log.copy.root(2)}),
        (
            3,
            "not signed",
            lambda log: {"key": log_note_key(CHAIN_ID, key_of(61).public_key)},
        ),
    ],
)
def test_what_proves_nothing_is_refused(
    log: Log, size: int, match: str, change: Callable[[Log], dict[str, object]]
) -> None:
    changes = change(log)
    root = changes.pop("root", FALSE_ROOT)
    assert isinstance(root, bytes)
    if "claimed" in changes:
        changes["root"] = changes.pop("claimed")
        proof = log.split_view(size, root)
        proof = SplitView(
            note=proof.note,
            key=proof.key,
            root=changes["root"],  # type: ignore[arg-type]
            path=proof.path,
            finality=proof.finality,
        )
    else:
        proof = log.split_view(size, root, **changes)
    with pytest.raises(InvalidInputError, match=match):
        proof.verify(proof.finality.header)


def test_entries_that_lead_to_another_root_are_forgotten_and_the_true_ones_taken(log: Log) -> None:
    head = log.world.chain.head
    assert head is not None
    store = MemoryStore()
    copy = LogCopy(store)
    entries = entries_of(log.world)
    copy.append(entries[:2])
    first_root = log.copy.root(2)
    copy.verify(first_root)
    for false in ([*entries[2:4], b"false"], [*entries[2:], entries[0]], [b"x" * 40]):
        copy.append(false)
        with pytest.raises(InvalidInputError, match="do not lead"):
            copy.verify(head.audit_root)
        assert (copy.size, copy.ahead, copy.root(2)) == (2, 2, first_root)
    again = LogCopy(store)
    assert again.size == 2
    again.append(entries[2:3])
    again.append(entries[3:])
    again.verify(head.audit_root)
    assert (again.size, again.root(5), again.entry(4)) == (5, head.audit_root, entries[4])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "000"), (7, "007"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")],
)
def test_tile_numbers_are_written_as_the_specification_says(number: int, text: str) -> None:
    assert format_tile_path("entries", number) == f"tile/entries/{text}"


def test_a_bundle_is_split_by_its_lengths() -> None:
    assert list(split_bundle(b"\0\2ab\0\0\0\1c")) == [b"ab", b"", b"c"]
    for short in (b"\0", b"\0\2a", b"\0\1a\0"):
        with pytest.raises(InvalidInputError, match="too early"):
            list(split_bundle(short))
