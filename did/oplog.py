"""The operation log of one DID: an RFC 6962 tree whose root is in the DID's record.

Execution holds the peaks (roots of the perfect subtrees, largest first) and appends in O(log n).
Everything else is in side rows, outside the state tree, provable under the root:

    d/o | identifier 32 | seq u64 BE                  entry: [seq, height, time_ms, operation bin]
    d/n | identifier 32 | level u8 | index u64 BE     hash of a perfect subtree, level >= 1
    d/x | identifier 32 | seq u64 BE                  seq u64 BE of the recovery that nullified it

Leaf data is the entry's bytes. seq counts every operation, nullified ones too, so it is the leaf
index. Rows are never overwritten with something else, so a reader of an older state root finds all
that root covers; it must ignore an `x` row whose recovery is later than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from did.operation import OPERATION_BYTES_MAX
from ledger import codec
from ledger.errors import UsageError
from ledger.merkle import compute_leaf_hash, compute_node_hash

ENTRY_BYTES_MAX = OPERATION_BYTES_MAX + 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An executed operation with the height and block time (Unix ms) that executed it."""

    seq: int
    height: int
    time_ms: int
    operation: bytes

    def encode(self) -> bytes:
        return codec.encode([self.seq, self.height, self.time_ms, self.operation])

    @classmethod
    def decode(cls, data: bytes) -> LogEntry:
        """Inverse of `encode`; the operation is not parsed. Raises InvalidInputError."""
        seq, height, time_ms, operation = codec.read_array(
            codec.decode(data, bytes_max=ENTRY_BYTES_MAX), 4, "operation log entry"
        )
        return cls(
            seq=codec.read_int(seq, "entry seq"),
            height=codec.read_int(height, "entry height"),
            time_ms=codec.read_int(time_ms, "entry time"),
            operation=codec.read_bytes(operation, "entry operation", maximum=OPERATION_BYTES_MAX),
        )


def entry_key(did: bytes, seq: int) -> bytes:
    return b"d/o" + did + seq.to_bytes(8, "big")


def node_key(did: bytes, level: int, index: int) -> bytes:
    return b"d/n" + did + bytes((level,)) + index.to_bytes(8, "big")


def nullified_key(did: bytes, seq: int) -> bytes:
    return b"d/x" + did + seq.to_bytes(8, "big")


def append_leaf(
    peaks: Sequence[bytes], size: int, leaf_hash: bytes
) -> tuple[tuple[bytes, ...], list[tuple[int, int, bytes]]]:
    """Append to a tree of `size` leaves. Returns the new peaks, and (level, index, hash) of each
    perfect subtree that the leaf completed."""
    left = list(peaks)
    if len(left) != size.bit_count():
        raise UsageError("peaks do not fit the size", got=f"{len(left)} peaks, {size} leaves")
    current, index, level = leaf_hash, size, 0
    completed: list[tuple[int, int, bytes]] = []
    while index & 1:
        current = compute_node_hash(left.pop(), current)
        index >>= 1
        level += 1
        completed.append((level, index, current))
    left.append(current)
    return tuple(left), completed


def compute_log_root(peaks: Sequence[bytes]) -> bytes:
    """RFC 6962 root of a tree that has a leaf, from its peaks."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = compute_node_hash(peak, root)
    return root


def compute_log_path(
    size: int, leaf_index: int, read_node: Callable[[int, int], bytes]
) -> list[bytes]:
    """Inclusion proof (siblings bottom up) of a leaf in a tree of `size` leaves; `read_node(level,
    index)` is the hash of a perfect subtree, level 0 being leaves. At most O(log^2 n) reads."""
    if not 0 <= leaf_index < size:
        raise UsageError("no such operation", expected=f"0..{size - 1}", got=str(leaf_index))
    path: list[bytes] = []
    start, count = 0, size
    while count > 1:
        split = 1 << (count - 1).bit_length() - 1
        if leaf_index < start + split:
            path.append(_compute_subtree(start + split, count - split, read_node))
            count = split
        else:
            path.append(_compute_subtree(start, split, read_node))
            start, count = start + split, count - split
    path.reverse()
    return path


def _compute_subtree(start: int, count: int, read_node: Callable[[int, int], bytes]) -> bytes:
    """Hash of the leaves start .. start+count-1, where start is a multiple of the power of two
    that spans them."""
    peaks = []
    while count:
        level = count.bit_length() - 1
        peaks.append(read_node(level, start >> level))
        start += 1 << level
        count -= 1 << level
    return compute_log_root(peaks)


def hash_entry(entry: bytes) -> bytes:
    """Leaf hash of an entry's bytes."""
    return compute_leaf_hash(entry)
