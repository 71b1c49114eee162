"""State proofs of each kind, and every way to break them."""

from __future__ import annotations

from hashlib import sha256

import pytest

from ledger.errors import InvalidInputError, UsageError
from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.proof import EMPTY, PROOF_BYTES_MAX, encode_proof
from ledger.store import Batch, MemoryStore


def make_tree(keys: int, levels: int = 6) -> StateTree:
    store = MemoryStore()
    tree = StateTree.open(store, top_levels=levels)
    writes: dict[bytes, bytes | None] = {
        state_key("t", bytes([n])): b"value %d" % n for n in range(keys)
    }
    overlay = tree.compute(writes)
    batch = Batch()
    tree.add_rows(overlay, batch, height=1, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    return tree


def proofs_of_each_kind(tree: StateTree) -> dict[int, tuple[bytes, bytes | None, bytes]]:
    """kind -> (key, value, proof)."""
    found: dict[int, tuple[bytes, bytes | None, bytes]] = {}
    for n in range(256):
        for key in (state_key("t", bytes([n])), state_key("u", bytes([n]))):
            value, proof = tree.prove(key)
            found.setdefault(proof[2], (key, value, proof))
    return found


def test_state_key_keeps_domains_apart() -> None:
    assert state_key("did", b"\x00x") == b"did\x00\x00x"
    assert state_key("did", b"") != state_key("di", b"d")
    for domain in ("", "a\0b", "é", "x" * 33):
        with pytest.raises(InvalidInputError):
            state_key(domain, b"")
    with pytest.raises(InvalidInputError):
        state_key("a", bytes(513))


def test_the_empty_tree_proves_absence_at_depth_0() -> None:
    tree = StateTree.open(MemoryStore())
    assert (tree.height, tree.root) == (0, bytes(32))
    value, proof = tree.prove(b"any")
    assert (value, proof) == (None, b"\x00\x00\x00")
    verify_state_proof(tree.root, b"any", None, proof)
    assert tree.prove_at(0, b"any") == (None, b"\x00\x00\x00", bytes(32))


def test_one_key_is_the_root() -> None:
    tree = make_tree(1)
    key = state_key("t", b"\0")
    tree_key = sha256(key).digest()
    leaf = sha256(b"\0" + tree_key + sha256(b"value 0").digest()).digest()
    assert tree.root == leaf
    assert tree.prove(key) == (b"value 0", b"\x00\x00\x01")
    value, proof = tree.prove(b"other")
    assert (value, proof) == (
        None,
        b"\x00\x00\x02" + tree_key + sha256(b"value 0").digest(),
    )
    verify_state_proof(tree.root, b"other", None, proof)


@pytest.mark.parametrize("levels", [4, 6, 10])
def test_every_flipped_byte_of_a_proof_key_value_or_root_is_refused(levels: int) -> None:
    tree = make_tree(50, levels)
    kinds = proofs_of_each_kind(tree)
    assert sorted(kinds) == [0, 1, 2]
    for key, value, proof in kinds.values():
        verify_state_proof(tree.root, key, value, proof)
        for at in range(len(proof)):
            for flip in (1, 0x80, 0xFF):
                broken = proof[:at] + bytes([proof[at] ^ flip]) + proof[at + 1 :]
                with pytest.raises(InvalidInputError):
                    verify_state_proof(tree.root, key, value, broken)
        for at in range(len(value or b"")):
            assert value is not None
            broken = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
            with pytest.raises(InvalidInputError):
                verify_state_proof(tree.root, key, broken, proof)
        for at in range(32):
            broken = tree.root[:at] + bytes([tree.root[at] ^ 1]) + tree.root[at + 1 :]
            with pytest.raises(InvalidInputError):
                verify_state_proof(broken, key, value, proof)


def test_every_flipped_byte_of_a_key_is_refused_where_the_proof_speaks_of_one_key() -> None:
    tree = make_tree(50)
    key, value, proof = proofs_of_each_kind(tree)[1]
    for at in range(len(key)):
        broken = key[:at] + bytes([key[at] ^ 1]) + key[at + 1 :]
        with pytest.raises(InvalidInputError):
            verify_state_proof(tree.root, broken, value, proof)
    kinds = proofs_of_each_kind(tree)
    for present in range(50):  # a proof of absence never speaks of a key that is there
        for kind in (0, 2):
            _, _, absent = kinds[kind]
            with pytest.raises(InvalidInputError):
                verify_state_proof(tree.root, state_key("t", bytes([present])), None, absent)


def test_each_truncation_and_each_trailing_byte_is_refused() -> None:
    tree = make_tree(50)
    for key, value, proof in proofs_of_each_kind(tree).values():
        for size in range(len(proof)):
            with pytest.raises(InvalidInputError):
                verify_state_proof(tree.root, key, value, proof[:size])
        for extra in (b"\0", bytes(32), b"\xff" * 33):
            with pytest.raises(InvalidInputError):
                verify_state_proof(tree.root, key, value, proof + extra)


def test_a_proof_of_one_kind_does_not_pass_for_the_other() -> None:
    tree = make_tree(50)
    for key, value, proof in proofs_of_each_kind(tree).values():
        with pytest.raises(InvalidInputError, match="other kind"):
            verify_state_proof(tree.root, key, b"v" if value is None else None, proof)


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"\0\0",
        b"\xff" * (PROOF_BYTES_MAX + 1),
        (257).to_bytes(2, "big") + b"\0" + bytes(33),
        b"\0\0\3",
        b"\0\0\2" + bytes(63),
        b"\0\1\0\xff" + bytes(32),
        b"\0\1\0\x80" + bytes(32),
    ],
    ids=[
        "empty",
        "short",
        "oversize",
        "depth 257",
        "kind 3",
        "short other",
        "stray bits",
        "empty sibling spelled out",
    ],
)
def test_malformed_proofs_are_refused(proof: bytes) -> None:
    with pytest.raises(InvalidInputError):
        verify_state_proof(bytes(32), b"key", None, proof)


def test_a_root_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        verify_state_proof(b"", b"key", None, b"\0\0\0")


def test_depth_256_is_verified() -> None:
    key, value = b"deep", b"v"
    tree_key = sha256(key).digest()
    siblings = [sha256(bytes([n])).digest() if n % 3 else EMPTY for n in range(256)]
    current = sha256(b"\0" + tree_key + sha256(value).digest()).digest()
    for depth in range(255, -1, -1):
        right = tree_key[depth >> 3] & 0x80 >> (depth & 7)
        pair = siblings[depth] + current if right else current + siblings[depth]
        current = sha256(b"\1" + pair).digest()
    verify_state_proof(current, key, value, encode_proof(1, b"", siblings))


def test_misuse_of_commits_is_refused_and_changes_nothing() -> None:
    tree = make_tree(3)
    root = tree.root
    one, other = tree.compute({b"a\0": b"1"}), tree.compute({b"a\0": b"2"})
    child = tree.compute({b"b\0": b"1"}, one)
    with pytest.raises(UsageError):
        tree.adopt(one)
    with pytest.raises(UsageError, match="next height"):
        tree.add_rows(one, Batch(), height=3, time_ms=0)
    with pytest.raises(UsageError, match="parent"):
        tree.add_rows(child, Batch(), height=2, time_ms=0)
    tree.add_rows(one, Batch(), height=2, time_ms=0)
    with pytest.raises(UsageError):
        tree.adopt(other)
    assert (tree.height, tree.root) == (1, root)
    with pytest.raises(UsageError):
        tree.compute({b"k": bytes(2**24 + 1)})
