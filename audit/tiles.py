"""Tile arithmetic: where a node of the log's tree lies (C2SP tlog-tiles, section "Merkle Tree").

A tile of level L and number N holds the hashes of up to 256 perfect subtrees of 256^L entries
each: entry N*256 + i of that level in place i. Only perfect subtrees have a place, so a tile only
ever grows at its end, and a tile as of an older size is a prefix of the tile now. A node of height
h (a perfect subtree of 2^h entries) is computed from tile level h // 8.

    entries 0..255       tile (0, 0)      its root is place 0 of tile (1, 0)
    entry 256            tile (0, 1)      place 0
    log of 70,000        tiles (0, 0..273), (1, 0) with 256 places, (1, 1) with 17, (2, 0) with 1

A path of an inclusion or consistency proof is a list of ranges of entries, each the leaves of one
subtree in RFC 6962's recursive definition; they are arithmetic, without hashes.
"""

from __future__ import annotations

import hashlib

from ledger.codec import HASH_BYTES
from ledger.errors import UsageError

TILE_HEIGHT = 8
TILE_HASHES = 256
TILE_BYTES = TILE_HASHES * HASH_BYTES
PAIR_BYTES = 2 * HASH_BYTES
LEVELS_MAX = 8

Range = tuple[int, int]
"""Entries [start, end)."""


def compute_tile_width(size: int, level: int, number: int) -> int:
    """Hashes in tile (level, number) of a log of `size` entries; 0 if there is no such tile."""
    return max(0, min(TILE_HASHES, (size >> TILE_HEIGHT * level) - number * TILE_HASHES))


def compute_tile_levels(tile: bytes) -> tuple[bytes, ...]:
    """The nodes inside a tile: at h, the joined roots of its perfect subtrees of 2^h places."""
    sha256 = hashlib.sha256
    levels = [tile]
    while len(levels[-1]) >= PAIR_BYTES:
        below = levels[-1]
        starts = range(0, len(below) - PAIR_BYTES + 1, PAIR_BYTES)
        above = [sha256(b"\1" + below[start : start + PAIR_BYTES]).digest() for start in starts]
        levels.append(b"".join(above))
    return tuple(levels)


def split_perfect(start: int, end: int) -> list[tuple[int, int]]:
    """The perfect subtrees that make up [start, end), as (height, index at that height), left to
    right. `start` is a multiple of the largest power of two below `end - start`."""
    found = []
    while start < end:
        height = (end - start).bit_length() - 1
        found.append((height, start >> height))
        start += 1 << height
    return found


def compute_inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees of PATH(index, D[size]), bottom up (RFC 6962 section 2.1.1).

    Raises UsageError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise UsageError("no such log entry", expected=f"0..{size - 1}", got=str(index))
    ranges: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _largest_power_below(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    ranges.reverse()
    return ranges


def compute_consistency_ranges(old_size: int, new_size: int) -> list[Range]:
    """The subtrees of PROOF(old_size, D[new_size]), in its order (RFC 6962 section 2.1.2).

    Empty for equal sizes. Raises UsageError unless 0 < old_size <= new_size.
    """
    if not 0 < old_size <= new_size:
        raise UsageError("no such sizes", expected=f"1..{new_size}", got=str(old_size))
    ranges: list[Range] = []
    start, end, is_known = 0, new_size, True
    while old_size != end:
        middle = start + _largest_power_below(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, is_known = middle, False
    if not is_known:
        ranges.append((start, end))
    ranges.reverse()
    return ranges


def format_tile_path(level: int | str, number: int, width: int = TILE_HASHES) -> str:
    """C2SP path: `tile/0/x001/234`, partial ones with `.p/<width>`; level `entries` for data."""
    parts = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        parts.append(f"x{number % 1000:03d}")
    suffix = "" if width == TILE_HASHES else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(parts))}{suffix}"


def _largest_power_below(count: int) -> int:
    """The largest power of two smaller than `count` (count >= 2)."""
    return 1 << (count - 1).bit_length() - 1
