"""A tree that grows level by level, or keeps few leaves in RAM, is the same tree."""

from __future__ import annotations

from random import Random

import pytest

from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.top import GROW_AT_ONCE_BUCKETS, KEYS_PER_BUCKET_MAX
from ledger.store import Batch, MemoryStore


def key_at(number: int) -> bytes:
    return state_key("k", number.to_bytes(4, "big"))


def commit(tree: StateTree, store: MemoryStore, writes: dict[bytes, bytes | None]) -> None:
    waiting = tree.compute({key_at(10**6): b"child"}, tree.compute({}))
    overlay = tree.compute(writes)
    child = tree.compute({key_at(10**6): b"child"}, overlay)
    batch = Batch()
    tree.add_rows(overlay, batch, height=tree.height + 1, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    # A child computed before a level was added still commits to the same root.
    assert child.root == tree.compute({key_at(10**6): b"child"}).root
    assert child.root != waiting.root
    levels = tree.levels
    batch = Batch()
    tree.add_rows(child, batch, height=tree.height + 1, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(child)
    assert tree.levels >= levels
    undo = tree.compute({key_at(10**6): None})
    batch = Batch()
    tree.add_rows(undo, batch, height=tree.height + 1, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(undo)
    assert tree.root == overlay.root


@pytest.mark.slow
@pytest.mark.parametrize("keys_in_ram_max", [10**6, 3000])
def test_growing_step_by_step_gives_the_tree_built_at_once(keys_in_ram_max: int) -> None:
    rng = Random(keys_in_ram_max)
    store = MemoryStore()
    tree = StateTree.open(store, keys_in_ram_max=keys_in_ram_max)
    # One more level than is grown at once, so that the last one is grown by steps.
    goal = KEYS_PER_BUCKET_MAX * GROW_AT_ONCE_BUCKETS * 2 + 500
    state: dict[bytes, bytes] = {}
    roots = {0: tree.root}
    levels = {tree.levels}
    sizes = [1, 2, 5, 40, 100, 900, goal - 2000, *[300] * 16]
    for size in sizes:
        writes: dict[bytes, bytes | None] = {
            key_at(rng.randrange(goal)): rng.randbytes(2) for _ in range(size // 2)
        }
        writes |= {key_at(len(state) + n): b"new" for n in range(size)}
        writes |= dict.fromkeys(rng.sample(sorted(state), min(len(state), 5)))
        commit(tree, store, writes)
        state |= {key: value for key, value in writes.items() if value is not None}
        state = {key: value for key, value in state.items() if writes.get(key, b"") is not None}
        roots[tree.height] = tree.root
        levels.add(tree.levels)
        assert tree.keys == len(state)
    assert max(levels) - 1 > (GROW_AT_ONCE_BUCKETS - 1).bit_length()
    assert len(levels) > 4
    again = StateTree.open(store, top_levels=6, keys_in_ram_max=keys_in_ram_max)
    assert (again.root, again.keys) == (tree.root, len(state))
    keys = [*rng.sample(sorted(state), 150), *[key_at(2 * 10**6 + n) for n in range(50)]]
    for key in keys:
        value, proof = tree.prove(key)
        assert (value, proof) == again.prove(key)
        assert value == state.get(key)
        verify_state_proof(tree.root, key, value, proof)
    for height, root in roots.items():
        for key in keys[::10]:
            value, proof, past_root = tree.prove_at(height, key)
            assert past_root == root
            assert (value, proof, past_root) == again.prove_at(height, key)
            verify_state_proof(root, key, value, proof)
