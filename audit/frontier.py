"""The frontier of the global log: all that appending needs, as bytes in the state tree.

    frontier = size u64 big-endian | the roots of the perfect subtrees of the log, 32 B each,
               one for each bit set in size, from the largest (and leftmost) to the smallest
    b""      = the empty log

Appending works level by level: a level's new nodes, with the frontier's pending left node in front
if there is one, pair up into the next level's. That is one pass of two hashes an entry, with no
work per entry beyond them. Root: the subtrees folded from the smallest (RFC 6962 section 2.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ledger.codec import HASH_BYTES
from ledger.errors import InvalidInputError
from ledger.merkle import EMPTY_ROOT, compute_node_hash

SIZE_BYTES = 8
SIZE_MAX = 2**63 - 1


def decode_frontier(data: bytes) -> tuple[int, list[bytes]]:
    """(size, subtree roots largest first). Raises InvalidInputError."""
    if not data:
        return 0, []
    size = int.from_bytes(data[:SIZE_BYTES], "big")
    expected = SIZE_BYTES + HASH_BYTES * size.bit_count()
    if len(data) != expected or not 0 < size <= SIZE_MAX:
        raise InvalidInputError(
            "frontier is malformed", expected=f"{expected} B for size {size}", got=f"{len(data)} B"
        )
    return size, [data[i : i + HASH_BYTES] for i in range(SIZE_BYTES, len(data), HASH_BYTES)]


def encode_frontier(size: int, hashes: list[bytes]) -> bytes:
    """Inverse of `decode_frontier`."""
    return size.to_bytes(SIZE_BYTES, "big") + b"".join(hashes) if size else b""


def append_hashes(size: int, hashes: list[bytes], leaf_hashes: list[bytes]) -> list[bytes]:
    """The subtree roots of the log of `size + len(leaf_hashes)` entries, largest first."""
    sha256 = hashlib.sha256
    pending = list(hashes)  # popped from its end: smallest subtree first
    grown: list[bytes] = []  # smallest first
    level, rest = list(leaf_hashes), size
    while level or rest:
        if rest & 1:
            level.insert(0, pending.pop())
        if len(level) & 1:
            grown.append(level.pop())
        level = [sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        rest >>= 1
    grown.reverse()
    return grown


def compute_frontier_root(hashes: list[bytes]) -> bytes:
    """Root hash of the log whose perfect subtrees have these roots, largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = compute_node_hash(left, root)
    return root


def hash_entries(entries: Iterable[bytes]) -> list[bytes]:
    """RFC 6962 leaf hashes of entries."""
    sha256 = hashlib.sha256
    return [sha256(b"\0" + entry).digest() for entry in entries]


class FrontierLog:
    """`ledger.execution.AuditLog` over frontier bytes; holds no state of its own."""

    def append(self, frontier: bytes, entries: list[bytes]) -> bytes:
        """The frontier after appending. Raises InvalidInputError for a malformed one."""
        size, hashes = decode_frontier(frontier)
        grown = append_hashes(size, hashes, hash_entries(entries))
        return encode_frontier(size + len(entries), grown)

    def size_and_root(self, frontier: bytes) -> tuple[int, bytes]:
        """Tree size and RFC 6962 root hash. Raises InvalidInputError for malformed bytes."""
        size, hashes = decode_frontier(frontier)
        return size, compute_frontier_root(hashes)
