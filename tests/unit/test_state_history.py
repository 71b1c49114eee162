"""What an undo record keeps of the nodes, and what follows from it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.history import read_record
from ledger.store import Batch, MemoryStore


def key_at(number: int) -> bytes:
    return state_key("k", number.to_bytes(4, "big"))


def commit(store: MemoryStore, tree: StateTree, writes: dict[bytes, bytes | None]) -> set[int]:
    """Commit `writes` as the next height; the numbers of the nodes that changed."""
    overlay = tree.compute(writes)
    changed = set(overlay.delta.nodes)
    batch = Batch()
    tree.add_rows(overlay, batch, height=tree.height + 1, time_ms=tree.time_ms + 1000)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    return changed


@pytest.mark.parametrize("levels", [6, 7])
def test_an_undo_record_keeps_the_changed_nodes_of_even_depth_alone(levels: int) -> None:
    store = MemoryStore()
    tree = StateTree.open(store, top_levels=levels)
    commit(store, tree, {key_at(n): b"old" for n in range(200)})
    changed = commit(store, tree, {key_at(n): b"new" for n in range(0, 300, 7)})
    record = read_record(store, 2)
    assert record is not None
    assert list(record.nodes) == sorted(n for n in changed if (n.bit_length() - 1) % 2 == 0)
    assert 0 < len(record.nodes) < len(changed)


@pytest.mark.parametrize("levels", [4, 5, 6, 7])
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_past_with_few_leaves_is_proved_from_records_of_half_the_nodes(
    levels: int, kept: int
) -> None:
    """With empty subtrees and lone leaves, where a node is not just the hash of its children."""
    store = MemoryStore()
    tree = StateTree.open(store, top_levels=levels)
    keys = sorted((key_at(n) for n in range(40)), key=lambda key: sha256(key).digest())
    commit(store, tree, dict.fromkeys(keys[:kept], b"old"))
    root = tree.root
    commit(store, tree, dict.fromkeys(keys, b"new"))
    commit(store, tree, dict.fromkeys(keys[::2]))
    for at, key in enumerate(keys):
        value, proof, found = tree.prove_at(1, key)
        assert (value, found) == (b"old" if at < kept else None, root)
        verify_state_proof(root, key, value, proof)
    assert tree.root_at(1) == root
