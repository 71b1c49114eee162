"""A large tree starts from its checkpoint with the right root, or does without it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.bulk import bulk_load
from ledger.store import Batch, MemoryStore

KEYS = 8000
HISTORY_BLOCKS = 8


class WatchedStore(MemoryStore):
    """A memory store that knows how often all value hashes were read."""

    def __init__(self) -> None:
        super().__init__()
        self.full_reads = 0

    def iterate(
        self, *, prefix: bytes, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self.full_reads += prefix == b"s/h"
        return super().iterate(prefix=prefix, start=start, reverse=reverse)


def open_tree(store: WatchedStore) -> StateTree:
    return StateTree.open(
        store, history_blocks=HISTORY_BLOCKS, history_ms=0, keys_in_ram_max=KEYS // 10
    )


def key_at(number: int) -> bytes:
    return state_key("k", number.to_bytes(4, "big"))


def commit(store: WatchedStore, tree: StateTree, rng: Random) -> None:
    overlay = tree.compute(
        {key_at(rng.randrange(2 * KEYS)): rng.choice([b"", b"x", None]) for _ in range(30)}
    )
    batch = Batch()
    tree.add_rows(overlay, batch, height=tree.height + 1, time_ms=tree.time_ms + 1000)
    store.write(batch, sync=True)
    tree.adopt(overlay)


def starts_from_checkpoint(store: WatchedStore) -> tuple[StateTree, bool]:
    before = store.full_reads
    tree = open_tree(store)
    return tree, store.full_reads == before


@pytest.mark.slow
def test_a_large_tree_starts_from_its_checkpoint_with_the_right_root() -> None:
    rng = Random(11)
    store = WatchedStore()
    bulk_load(store, [(key_at(n), b"v") for n in range(KEYS)], height=1, time_ms=0)
    tree, used = starts_from_checkpoint(store)
    assert not used
    used_count = 0
    for _ in range(40):
        commit(store, tree, rng)
        root, height, keys = tree.root, tree.height, tree.keys
        if rng.random() < 0.5:
            tree, used = starts_from_checkpoint(store)
            used_count += used
        assert (tree.root, tree.height, tree.keys) == (root, height, keys)
    assert used_count > 10
    tree, used = starts_from_checkpoint(store)
    assert used
    plain = StateTree.open(store, history_blocks=HISTORY_BLOCKS, history_ms=0)
    for key in [key_at(n) for n in range(0, 2 * KEYS, 97)]:
        for height in range(tree.lowest_height, tree.height + 1):
            assert tree.prove_at(height, key) == plain.prove_at(height, key)
        value, proof = tree.prove(key)
        verify_state_proof(tree.root, key, value, proof)


@pytest.mark.slow
def test_a_damaged_or_stale_checkpoint_is_not_used() -> None:
    rng = Random(12)
    store = WatchedStore()
    bulk_load(store, [(key_at(n), b"v") for n in range(KEYS)], height=1, time_ms=0)
    tree = open_tree(store)
    for _ in range(6):
        commit(store, tree, rng)
    assert starts_from_checkpoint(store)[1]
    pages = list(store.iterate(prefix=b"s/c"))
    assert len(pages) == 8
    for damaged in (
        {pages[3][0]: None},
        {pages[3][0]: pages[3][1][:-1]},
        {pages[3][0]: bytes([pages[3][1][0] ^ 1]) + pages[3][1][1:]},
        {pages[3][0]: pages[3][1][:-1] + bytes([pages[3][1][-1] ^ 1])},
    ):
        batch = Batch()
        for key, value in damaged.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        store.write(batch, sync=True)
        found, used = starts_from_checkpoint(store)
        assert (found.root, used) == (tree.root, False)
        mend = Batch()
        mend.put(*pages[3])
        store.write(mend, sync=True)
    # The tree goes on for longer than its history without writing checkpoints: pages are stale.
    plain = StateTree.open(store, history_blocks=HISTORY_BLOCKS, history_ms=0)
    for _ in range(HISTORY_BLOCKS + 4):
        commit(store, plain, rng)
    found, used = starts_from_checkpoint(store)
    assert (found.root, used) == (plain.root, False)
