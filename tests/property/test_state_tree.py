"""The state tree against a naive twin that builds the whole tree recursively."""

from __future__ import annotations

import os
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InvalidInputError, UsageError
from ledger.state import Overlay, StateTree, state_key, verify_state_proof
from ledger.store import Batch, MemoryStore, Store

State = dict[bytes, bytes]
Writes = dict[bytes, bytes | None]


def naive_root(state: State) -> bytes:
    """The root by the definition alone: recursion over all leaves, bit by bit."""
    leaves = {
        sha256(key).digest(): sha256(b"\0" + sha256(key).digest() + sha256(value).digest()).digest()
        for key, value in state.items()
    }

    def subtree(keys: list[bytes], depth: int) -> bytes:
        if not keys:
            return bytes(32)
        if len(keys) == 1:
            return leaves[keys[0]]
        bits = {key: int.from_bytes(key, "big") >> (255 - depth) & 1 for key in keys}
        left = subtree([key for key in keys if not bits[key]], depth + 1)
        right = subtree([key for key in keys if bits[key]], depth + 1)
        return sha256(b"\1" + left + right).digest()

    return subtree(sorted(leaves), 0)


def apply_writes(state: State, writes: Writes) -> State:
    result = dict(state)
    for key, value in writes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def commit(tree: StateTree, store: Store, overlay: Overlay, height: int) -> None:
    batch = Batch()
    tree.add_rows(overlay, batch, height=height, time_ms=height * 1000)
    store.write(batch, sync=True)
    tree.adopt(overlay)


def check_tip(tree: StateTree, state: State, keys: list[bytes]) -> None:
    assert tree.root == naive_root(state)
    assert tree.keys == len(state)
    assert dict(tree.iterate(b"")) == state
    for key in keys:
        value, proof = tree.prove(key)
        assert value == state.get(key) == tree.get(key)
        verify_state_proof(tree.root, key, value, proof)


KEYS = [state_key("k", bytes([n])) for n in range(24)]
writes_strategy = st.dictionaries(
    st.sampled_from(KEYS), st.none() | st.binary(max_size=3), max_size=8
)


EXAMPLES = 2000 if os.environ.get("ZYNK_SOAK") else 60


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    blocks=st.lists(
        st.tuples(writes_strategy, writes_strategy, writes_strategy, st.booleans()), max_size=8
    ),
    levels=st.sampled_from([4, 5, 7]),
)
def test_tree_agrees_with_the_twin_through_overlays_reopens_and_history(
    blocks: list[tuple[Writes, Writes, Writes, bool]], levels: int
) -> None:
    store = MemoryStore()
    tree = StateTree.open(store, top_levels=levels)
    states: list[State] = [{}]
    for height, (winner, loser, child, reopen) in enumerate(blocks, 1):
        state = states[-1]
        overlay = tree.compute(winner)
        lost = tree.compute(loser)
        grandchild = tree.compute(child, overlay)
        after = apply_writes(state, winner)
        assert overlay.root == naive_root(after)
        assert lost.root == naive_root(apply_writes(state, loser))
        assert grandchild.root == naive_root(apply_writes(after, child))
        assert all(grandchild.get(key) == apply_writes(after, child).get(key) for key in KEYS)
        commit(tree, store, overlay, height)
        with pytest.raises(UsageError):
            lost.get(KEYS[0])
        states.append(after)
        if reopen:
            tree = StateTree.open(store, top_levels=Random(height).choice([4, 6, 8]))
            assert (tree.height, tree.root) == (height, overlay.root)
        else:
            assert grandchild.get(KEYS[3]) == apply_writes(after, child).get(KEYS[3])
        check_tip(tree, after, KEYS)
    for height, state in enumerate(states):
        expected_root = naive_root(state)
        for key in KEYS:
            value, proof, root = tree.prove_at(height, key)
            assert root == expected_root
            assert value == state.get(key) == tree.get_at(height, key)
            verify_state_proof(root, key, value, proof)


@pytest.mark.slow
def test_a_long_random_history_agrees_with_the_twin() -> None:
    rng = Random(7)
    store = MemoryStore()
    tree = StateTree.open(store, history_blocks=20, history_ms=0)
    keys = [state_key("account", rng.randbytes(4)) for _ in range(600)]
    states: list[State] = [{}]
    for height in range(1, 41):
        writes: Writes = {
            key: None if rng.random() < 0.3 else rng.randbytes(8) for key in rng.sample(keys, 60)
        }
        overlay = tree.compute(writes)
        commit(tree, store, overlay, height)
        states.append(apply_writes(states[-1], writes))
        if height % 7 == 0:
            tree = StateTree.open(
                store, history_blocks=20, history_ms=0, top_levels=rng.choice([4, 8, 10])
            )
        check_tip(tree, states[-1], rng.sample(keys, 20))
    assert tree.lowest_height == 20
    roots = [naive_root(state) for state in states]
    for height in range(20, 41):
        for key in rng.sample(keys, 12):
            value, proof, root = tree.prove_at(height, key)
            assert root == roots[height]
            assert value == states[height].get(key)
            verify_state_proof(root, key, value, proof)
    with pytest.raises(InvalidInputError, match="heights 20 to 40"):
        tree.prove_at(19, keys[0])
