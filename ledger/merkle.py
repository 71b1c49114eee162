"""RFC 6962 Merkle trees over byte strings (RFC 6962 section 2.1, RFC 9162 section 2.1.3).

leaf = sha256(0x00 || data), node = sha256(0x01 || left || right), empty tree = sha256("").
Inclusion proofs are sibling hashes from leaf to root. This module holds whole lists in memory and
serves small trees (a block's results, a batch of audit leaves); the audit log has tiles of its own
over the same hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ledger.codec import HASH_BYTES
from ledger.errors import InvalidInputError, UsageError

EMPTY_ROOT = hashlib.sha256(b"").digest()
PATH_HASHES_MAX = 64


def compute_leaf_hash(data: bytes) -> bytes:
    """sha256(0x00 || data)."""
    return hashlib.sha256(b"\0" + data).digest()


def compute_node_hash(left: bytes, right: bytes) -> bytes:
    """sha256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def compute_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root hash of a tree of `leaf_hashes` (already hashed leaves, 32 B each)."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _compute_level_above(level)
    return level[0]


def compute_inclusion_proof(leaf_hashes: Sequence[bytes], leaf_index: int) -> list[bytes]:
    """Sibling hashes of leaf `leaf_index`, bottom up. Raises UsageError outside the tree."""
    if not 0 <= leaf_index < len(leaf_hashes):
        raise UsageError("no such leaf", expected=f"0..{len(leaf_hashes) - 1}", got=str(leaf_index))
    path: list[bytes] = []
    level = list(leaf_hashes)
    index = leaf_index
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _compute_level_above(level)
        index //= 2
    return path


def verify_inclusion_proof(
    root_hash: bytes, tree_size: int, leaf_index: int, leaf_hash: bytes, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.3.2. Raises InvalidInputError if the leaf is not shown to be there."""
    if not 0 <= leaf_index < tree_size:
        raise InvalidInputError(
            "leaf index is outside the tree", expected=f"< {tree_size}", got=str(leaf_index)
        )
    if len(path) > PATH_HASHES_MAX or any(len(item) != HASH_BYTES for item in path):
        raise InvalidInputError(
            "inclusion proof is malformed", expected="at most 64 hashes of 32 B"
        )
    index, last, current = leaf_index, tree_size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            raise InvalidInputError("inclusion proof is too long")
        if index & 1 or index == last:
            current = compute_node_hash(sibling, current)
            while not index & 1 and index:
                index >>= 1
                last >>= 1
        else:
            current = compute_node_hash(current, sibling)
        index >>= 1
        last >>= 1
    if last != 0:
        raise InvalidInputError("inclusion proof is too short")
    if current != root_hash:
        raise InvalidInputError(
            "inclusion proof leads to another root", expected=root_hash.hex(), got=current.hex()
        )


def _compute_level_above(level: Sequence[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    above = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
    if len(level) & 1:
        above.append(level[-1])
    return above


def verify_consistency_proof(
    old_root: bytes, old_size: int, new_root: bytes, new_size: int, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2. Raises InvalidInputError if the tree of `old_size` is not shown to
    be the beginning of that of `new_size`. Sizes are at least 1."""
    if not 0 < old_size <= new_size:
        raise InvalidInputError("no such tree sizes", expected=f"1..{new_size}", got=str(old_size))
    if len(path) > PATH_HASHES_MAX or any(len(item) != HASH_BYTES for item in path):
        raise InvalidInputError(
            "consistency proof is malformed", expected="at most 64 hashes of 32 B"
        )
    if old_size == new_size:
        if path or old_root != new_root:
            raise InvalidInputError("trees of one size have one root, and no path between them")
        return
    hashes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not hashes:
        raise InvalidInputError("consistency proof is empty")
    index, last = old_size - 1, new_size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise InvalidInputError("consistency proof is too long")
        if index & 1 or index == last:
            old, new = compute_node_hash(sibling, old), compute_node_hash(sibling, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = compute_node_hash(new, sibling)
        index, last = index >> 1, last >> 1
    if (old, new, last) != (old_root, new_root, 0):
        raise InvalidInputError("consistency proof does not lead to both roots")
