"""Buckets: the leaves under one node of the lowest RAM level, as one sorted byte string.

A bucket is `key 32 | leaf hash 32` for each leaf, ascending by key. All functions are pure.
"""

from __future__ import annotations

from hashlib import sha256

from ledger.state.proof import EMPTY, KIND_EMPTY, KIND_INCLUSION, KIND_OTHER

RECORD_BYTES = 64


def leaf_hash(tree_key: bytes, value_hash: bytes) -> bytes:
    """The hash of a leaf, 32 bytes."""
    return sha256(b"\0" + tree_key + value_hash).digest()


def node_hash(left: bytes, right: bytes, *, is_leaf: bool) -> bytes:
    """The hash over two children; `is_leaf`: the one that is not empty is a single leaf."""
    if is_leaf:
        return right if left == EMPTY else left
    if left == right == EMPTY:
        return EMPTY
    return sha256(b"\1" + left + right).digest()


def fold(bucket: bytes, depth: int) -> bytes:
    """The hash of the subtree at `depth` that holds exactly the leaves of `bucket`."""
    size = len(bucket)
    if size == 64:
        return bucket[32:]
    return _fold(bucket, 0, size, depth) if size else EMPTY


def _fold(bucket: bytes, low: int, high: int, depth: int) -> bytes:
    """`fold` of at least two leaves, those at bytes low .. high."""
    byte, mask = low + (depth >> 3), 0x80 >> (depth & 7)
    middle = low
    while middle < high and not bucket[byte] & mask:
        middle += 64
        byte += 64
    size = middle - low
    if size == 64:
        left = bucket[low + 32 : middle]
    else:
        left = _fold(bucket, low, middle, depth + 1) if size else EMPTY
    size = high - middle
    if size == 64:
        right = bucket[middle + 32 : high]
    else:
        right = _fold(bucket, middle, high, depth + 1) if size else EMPTY
    return sha256(b"\1" + left + right).digest()


def split_at(bucket: bytes, depth: int) -> int:
    """The byte offset of the first leaf whose key has bit `depth` set."""
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    middle = 0
    while middle < len(bucket) and not bucket[middle + byte] & mask:
        middle += 64
    return middle


def find(bucket: bytes, tree_key: bytes) -> int:
    """The byte offset of the record of `tree_key`, or -1."""
    at = bucket.find(tree_key)
    while at > 0 and at & 63:  # found across two records: not a key
        at = bucket.find(tree_key, at + 1)
    return at


def put(bucket: bytes, tree_key: bytes, leaf: bytes) -> bytes:
    """`bucket` with the leaf added or replaced."""
    at = find(bucket, tree_key)
    if at >= 0:
        return bucket[: at + 32] + leaf + bucket[at + 64 :]
    at = 0
    size = len(bucket)
    while at < size and bucket[at : at + 32] < tree_key:
        at += 64
    return bucket[:at] + tree_key + leaf + bucket[at:]


def remove(bucket: bytes, tree_key: bytes) -> bytes:
    """`bucket` without the leaf of `tree_key`, which may be absent."""
    at = find(bucket, tree_key)
    return bucket if at < 0 else bucket[:at] + bucket[at + 64 :]


def descend(bucket: bytes, depth: int, tree_key: bytes) -> tuple[int, bytes, list[bytes]]:
    """Where the path of `tree_key` ends below `depth`: (kind, other key or b"", siblings).

    Siblings are top to bottom, from depth + 1 on, empty ones included.
    """
    siblings: list[bytes] = []
    while len(bucket) > RECORD_BYTES:
        middle = split_at(bucket, depth)
        left, right = bucket[:middle], bucket[middle:]
        if tree_key[depth >> 3] & 0x80 >> (depth & 7):
            left, right = right, left
        depth += 1
        siblings.append(fold(right, depth))
        bucket = left
    if not bucket:
        return KIND_EMPTY, b"", siblings
    if bucket[:32] == tree_key:
        return KIND_INCLUSION, b"", siblings
    return KIND_OTHER, bucket[:32], siblings
