"""The global log in the store: hash tiles and entries, and proofs from them.

`commit_rows` gives the rows that a height adds; the chain puts them in the height's own batch, so
log, state and block are durable together or not at all. The right-most tile of each level is
written again, longer, as the log grows: a tile of an older size is its prefix, so that any size
that ever was can be proven, with no second row for partial tiles.

`LogTree` reads. Nothing is loaded at start: a proof takes O(log n) row reads. Tiles are kept with
their inner nodes in a bounded cache by (level, number, width), under which they never change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from audit.frontier import compute_frontier_root, hash_entries
from audit.rows import ENTRY, TILE, u16, u64
from audit.tiles import (
    LEVELS_MAX,
    TILE_BYTES,
    TILE_HASHES,
    TILE_HEIGHT,
    compute_consistency_ranges,
    compute_inclusion_ranges,
    compute_tile_levels,
    compute_tile_width,
    split_perfect,
)
from ledger.codec import HASH_BYTES
from ledger.errors import DurabilityError, UsageError
from ledger.store import Reader

TILES_CACHED_MAX = 512
RAGGED_CACHED_MAX = 1024
ENTRY_BYTES_MAX = 2**16 - 1
"""An entry bundle of C2SP tlog-tiles gives lengths as u16."""


def tile_key(level: int, number: int) -> bytes:
    """Row key of a hash tile."""
    return TILE + bytes((level,)) + u64(number)


def entry_key(index: int) -> bytes:
    """Row key of a log entry."""
    return ENTRY + u64(index)


def commit_rows(
    store: Reader, old_size: int, entries: Sequence[bytes]
) -> list[tuple[bytes, bytes]]:
    """The rows to write with the height that appends `entries` to a log of `old_size`.

    Raises DurabilityError if the store lacks the right edge of the log, UsageError for an entry
    that is too long.
    """
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise UsageError("log entry is too long", expected=f"at most {ENTRY_BYTES_MAX} B")
    rows = [(entry_key(old_size + i), entry) for i, entry in enumerate(entries)]
    hashes = b"".join(hash_entries(entries))
    for level in range(LEVELS_MAX):
        if not hashes:
            break
        first = old_size >> TILE_HEIGHT * level
        number, place = divmod(first, TILE_HASHES)
        left = _read_tile(store, level, number, place) if place else b""
        joined = left + hashes
        roots = []
        for start in range(0, len(joined), TILE_BYTES):
            tile = joined[start : start + TILE_BYTES]
            rows.append((tile_key(level, number), tile))
            number += 1
            if len(tile) == TILE_BYTES:
                roots.append(compute_tile_levels(tile)[-1])
        hashes = b"".join(roots)
    return rows


def _read_tile(store: Reader, level: int, number: int, width: int) -> bytes:
    tile = store.get(tile_key(level, number))
    if tile is None or len(tile) < width * HASH_BYTES:
        have = 0 if tile is None else len(tile) // HASH_BYTES
        raise DurabilityError(
            f"the audit log lacks tile {level}/{number}",
            expected=f"{width} hashes",
            got=f"{have}",
        )
    return tile[: width * HASH_BYTES]


class LogTree:
    """Roots and proofs of the log for any size that the store holds."""

    def __init__(self, store: Reader) -> None:
        self._store = store
        self._tiles: OrderedDict[tuple[int, int, int], tuple[bytes, ...]] = OrderedDict()
        self._ragged: dict[
            tuple[int, int], bytes
        ] = {}  # right edges; every proof of a size has one

    def entry(self, index: int) -> bytes | None:
        """The entry, or None if there is none (or no more)."""
        return self._store.get(entry_key(index))

    def tile(self, level: int, number: int, size: int) -> bytes:
        """Tile bytes as of `size` (partial if it was); b"" if it does not exist at that size."""
        width = compute_tile_width(size, level, number)
        return _read_tile(self._store, level, number, width) if width else b""

    def entries(self, number: int, size: int) -> list[bytes]:
        """The entries of bundle `number` (256 each) as of `size`."""
        start = number * TILE_HASHES
        count = max(0, min(size - start, TILE_HASHES))
        found = self._read_entries(start, count)
        if len(found) < count:
            raise DurabilityError("the audit log lacks an entry", got=str(start + len(found)))
        return found

    def entry_bundle(self, number: int, width: int) -> bytes | None:
        """C2SP tlog-tiles: the first `width` entries of bundle `number`, each behind its length as
        u16; None unless all are here."""
        found = self._read_entries(number * TILE_HASHES, width)
        if len(found) < width:
            return None
        return b"".join([u16(len(e)) + e for e in found])

    def _read_entries(self, start: int, count: int) -> list[bytes]:
        """At most `count` entries from `start` on, up to the first that is not here."""
        rows = self._store.iterate(prefix=ENTRY, start=entry_key(start))
        return [
            entry
            for index, (key, entry) in enumerate(islice(rows, count), start)
            if key == entry_key(index)
        ]

    def root(self, size: int) -> bytes:
        """RFC 6962 root hash of the first `size` entries."""
        return self._range_hash(0, size, size)

    def frontier_hashes(self, size: int) -> list[bytes]:
        """The roots of the perfect subtrees of the first `size` entries, largest first."""
        return [self._node(h, i, size) for h, i in split_perfect(0, size)]

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """RFC 6962 audit path of entry `index` in the tree of `size`. Raises UsageError."""
        ranges = compute_inclusion_ranges(index, size)
        return [self._range_hash(start, end, size) for start, end in ranges]

    def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 6962 consistency proof from `old_size` to `new_size`. Raises UsageError."""
        ranges = compute_consistency_ranges(old_size, new_size)
        return [self._range_hash(start, end, new_size) for start, end in ranges]

    def _range_hash(self, start: int, end: int, size: int) -> bytes:
        width = end - start
        if width & (width - 1) == 0 and width:  # a perfect subtree: one node
            height = width.bit_length() - 1
            return self._node(height, start >> height, size)
        found = self._ragged.get((start, end))
        if found is None:
            nodes = [self._node(h, i, size) for h, i in split_perfect(start, end)]
            found = compute_frontier_root(nodes)
            if len(self._ragged) >= RAGGED_CACHED_MAX:
                self._ragged.clear()
            self._ragged[start, end] = found
        return found

    def _node(self, height: int, index: int, size: int) -> bytes:
        """Root of the perfect subtree number `index` of 2^height entries."""
        level, inner = divmod(height, TILE_HEIGHT)
        number, place = divmod(index, TILE_HASHES >> inner)
        width = compute_tile_width(size, level, number)
        key = (level, number, width)
        levels = self._tiles.get(key)
        if levels is None:
            levels = compute_tile_levels(_read_tile(self._store, level, number, width))
            self._tiles[key] = levels
            if len(self._tiles) > TILES_CACHED_MAX:
                self._tiles.popitem(last=False)
        else:
            self._tiles.move_to_end(key)
        return levels[inner][place * HASH_BYTES : (place + 1) * HASH_BYTES]
