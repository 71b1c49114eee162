"""Multiproofs against single proofs: the same verdict on every key, at the tip and in history; and
no changed byte passes."""

from __future__ import annotations

import os
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InvalidInputError, UsageError
from ledger.state import StateTree, state_key, verify_state_multiproof, verify_state_proof
from ledger.state.multiproof import KEYS_MAX, KeyPath, encode_multiproof
from ledger.state.proof import KIND_EMPTY
from ledger.store import Batch, MemoryStore

CASES = 2_000 if os.environ.get("ZYNK_SOAK") == "1" else 150


def _key(number: int) -> bytes:
    return state_key("t", number.to_bytes(2, "big"))


def _commit(tree: StateTree, store: MemoryStore, writes: dict[bytes, bytes | None]) -> None:
    batch = Batch()
    overlay = tree.compute(writes)
    tree.add_rows(overlay, batch, height=tree.height + 1, time_ms=1000 * (tree.height + 1))
    store.write(batch, sync=True)
    tree.adopt(overlay)


def _world(seed: int, keys: int, levels: int) -> tuple[StateTree, dict[int, dict[bytes, bytes]]]:
    """A tree of some heights, and the state after each."""
    rng, store = Random(seed), MemoryStore()
    tree = StateTree.open(store, top_levels=levels)
    state: dict[bytes, bytes] = {}
    states = {}
    for height in range(1, 5):
        writes: dict[bytes, bytes | None] = {
            _key(rng.randrange(2 * keys)): rng.choice((None, b"%d" % height, b"x"))
            for _ in range(keys // 2)
        }
        _commit(tree, store, writes)
        for key, value in writes.items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        states[height] = dict(state)
    return tree, states


@settings(max_examples=CASES, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    keys=st.sampled_from([2, 8, 60, 400]),
    levels=st.sampled_from([4, 6, 9]),
    asked=st.integers(1, 120),
)
def test_multiproof_shows_what_single_proofs_show(
    seed: int, keys: int, levels: int, asked: int
) -> None:
    tree, states = _world(seed, keys, levels)
    rng = Random(seed + 1)
    wanted = list({_key(rng.randrange(3 * keys)) for _ in range(asked)})
    for height, state in states.items():
        values, proof = tree.prove_many(height, wanted)
        root = tree.root_at(height)
        rows = dict(zip(wanted, values, strict=True))
        assert rows == {key: state.get(key) for key in wanted}
        verify_state_multiproof(root, rows, proof)
        single_bytes = 0
        for key in wanted:
            value, single, _ = tree.prove_at(height, key)
            verify_state_proof(root, key, value, single)
            single_bytes += len(single) + int.from_bytes(single[:2], "big")
        assert len(proof) <= single_bytes  # and at most one byte for each step down
        victim = rng.choice(wanted)
        for lie in (b"lie", None if rows[victim] is not None else b""):
            with pytest.raises(InvalidInputError):
                verify_state_multiproof(root, {**rows, victim: lie}, proof)
        fewer = {key: value for key, value in rows.items() if key != victim}
        if fewer and rows[victim] is not None:
            with pytest.raises(InvalidInputError):
                verify_state_multiproof(root, fewer, proof)


def test_every_flipped_cut_or_added_byte_is_refused() -> None:
    tree, _ = _world(5, 60, 6)
    for count in (1, 2, 7, 40):
        wanted = [_key(n) for n in range(count)]
        values, proof = tree.prove_many(4, wanted)
        rows = dict(zip(wanted, values, strict=True))
        verify_state_multiproof(tree.root, rows, proof)
        for at in range(len(proof)):
            for bit in (1, 2, 128):
                flipped = bytearray(proof)
                flipped[at] ^= bit
                with pytest.raises(InvalidInputError):
                    verify_state_multiproof(tree.root, rows, bytes(flipped))
            with pytest.raises(InvalidInputError):
                verify_state_multiproof(tree.root, rows, proof[:at])
        for changed in (proof + b"\0", b"\3" + proof):
            with pytest.raises(InvalidInputError):
                verify_state_multiproof(tree.root, rows, changed)
        with pytest.raises(InvalidInputError):
            verify_state_multiproof(bytes(32), rows, proof)
        with pytest.raises(InvalidInputError):
            verify_state_multiproof(tree.root[:31], rows, proof)


@settings(max_examples=CASES, deadline=None)
@given(
    proof=st.binary(max_size=200)
    | st.binary(max_size=600).map(lambda noise: bytes(x % 7 for x in noise))
)
def test_noise_is_refused_and_nothing_else(proof: bytes) -> None:
    rows = {_key(n): None if n % 2 else b"x" for n in range(5)}
    with pytest.raises(InvalidInputError):
        verify_state_multiproof(sha256(b"root").digest(), rows, proof)


def test_deepest_walk_does_not_depend_on_the_call_stack() -> None:
    """256 steps down and one too many."""
    rows: dict[bytes, bytes | None] = {_key(1): b"x"}
    deep = b"\4" * 256 + b"\1"
    with pytest.raises(InvalidInputError, match="another root"):
        verify_state_multiproof(bytes(32), rows, deep)
    with pytest.raises(InvalidInputError, match="malformed"):
        verify_state_multiproof(bytes(32), rows, b"\4" * 257 + b"\1")


def test_empty_tree_and_wrong_counts() -> None:
    tree = StateTree.open(MemoryStore())
    values, proof = tree.prove_many(0, [_key(1), _key(2)])
    assert (values, proof) == ([None, None], b"\0")
    verify_state_multiproof(tree.root, {_key(1): None, _key(2): None}, proof)
    with pytest.raises(UsageError):
        tree.prove_many(0, [])
    with pytest.raises(UsageError):
        tree.prove_many(0, [_key(1), _key(1)])
    path = KeyPath(bytes(32), KIND_EMPTY, b"", [])
    assert encode_multiproof([path]) == b"\0"
    too_many: dict[bytes, bytes | None] = {_key(n): None for n in range(KEYS_MAX + 1)}
    for rows in ({}, too_many):
        with pytest.raises(InvalidInputError, match="number of keys"):
            verify_state_multiproof(bytes(32), rows, b"\0")
