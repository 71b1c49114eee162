"""The state tree's rows in the store. Nobody else writes below `s/`.

    s/v | raw key                  the value
    s/h | tree key 32              sha256(value) 32
    s/m                            meta: version u8, height u64, time_ms u64, keys u64, root 32
    s/u | height u64 | 'e'         undo: time_ms u64, levels u8, entries u32, nodes u32,
                                   then an entry each, ascending: tree key 32 | old hash 32
                                   (sha256 of the old value; zeros: there was none)
    s/u | height u64 | 'n'         the numbers of the changed nodes of depth 0, 2, 4 .., u32
                                   each, ascending
    s/u | height u64 | 'h' | u16   their old hashes, 32 each, 128 a row
    s/u | height u64 | 'v'         a record an entry: end u32 each, then raw key and old value:
                                   key length u16 | key | value
    s/c | levels u8 | page u32     checkpoint (large trees): height u64 | 256 bits, 1 for a bucket
                                   with one leaf | the hashes of 256 buckets, 32 each

Integers are big-endian. Node numbers count as in a heap: the root is 1, the children of i are
2i and 2i + 1. An undo record undoes its height: old is what was at height - 1.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

from ledger.errors import InvalidInputError

VALUE = b"s/v"
VALUE_HASH = b"s/h"
META = b"s/m"
UNDO = b"s/u"
CHECKPOINT = b"s/c"

UNDO_ENTRIES = b"e"
UNDO_NODES = b"n"
UNDO_HASHES = b"h"
UNDO_VALUES = b"v"
UNDO_PAGE_HASHES = 128
CHECKPOINT_PAGE_BUCKETS = 256

META_VERSION = 1
META_BYTES = 1 + 8 + 8 + 8 + 32
UNDO_HEAD_BYTES = 8 + 1 + 4 + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the store's state is: written with each height, read at start."""

    height: int
    time_ms: int
    keys: int
    root: bytes


def encode_meta(meta: Meta) -> bytes:
    """The bytes of the meta row."""
    return b"".join(
        (
            META_VERSION.to_bytes(1, "big"),
            meta.height.to_bytes(8, "big"),
            meta.time_ms.to_bytes(8, "big"),
            meta.keys.to_bytes(8, "big"),
            meta.root,
        )
    )


def decode_meta(data: bytes) -> Meta:
    """The meta row from its bytes. Raises InvalidInputError if they are malformed."""
    if len(data) != META_BYTES or data[0] != META_VERSION:
        raise InvalidInputError(
            "the state's meta row is damaged or of another version",
            expected=f"version {META_VERSION}, {META_BYTES} B",
            got=f"version {data[:1].hex()}, {len(data)} B",
        )
    return Meta(
        height=int.from_bytes(data[1:9], "big"),
        time_ms=int.from_bytes(data[9:17], "big"),
        keys=int.from_bytes(data[17:25], "big"),
        root=data[25:],
    )


def undo_key(height: int, kind: bytes, page: int | None = None) -> bytes:
    """The row key of one part of the undo record of `height`."""
    suffix = b"" if page is None else page.to_bytes(2, "big")
    return UNDO + height.to_bytes(8, "big") + kind + suffix


def undo_keys(height: int, nodes: int) -> list[bytes]:
    """The row keys of the whole undo record of `height`, which has `nodes` changed nodes."""
    pages = -(-nodes // UNDO_PAGE_HASHES)
    return [
        *(undo_key(height, kind) for kind in (UNDO_ENTRIES, UNDO_NODES, UNDO_VALUES)),
        *(undo_key(height, UNDO_HASHES, page) for page in range(pages)),
    ]


def checkpoint_key(levels: int, page: int) -> bytes:
    """The row key of one page of the checkpoint of the bucket hashes."""
    return CHECKPOINT + levels.to_bytes(1, "big") + page.to_bytes(4, "big")


def encode_u32s(numbers: array[int]) -> bytes:
    """Big-endian u32 each."""
    if sys.byteorder == "little":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def decode_u32s(data: bytes) -> array[int]:
    """The inverse of `encode_u32s`. Raises InvalidInputError for a broken length."""
    if len(data) % 4:
        raise InvalidInputError("an undo row of the state is damaged", got=f"{len(data)} B")
    numbers = array("I", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
