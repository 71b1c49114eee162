"""The whole-log check: rebuilds the log from its entries and compares all that is kept of it.

Nothing is believed but the entries, and those only as far as the headers go. One pass, with the
memory of one tile a level, however large the log is. The frontier is appended to by its own code,
tiles are filled by theirs, so that each is checked against the other as well.

    entries    each from 0 to the head's size is there and an anchor's record, heights never fall
    tiles      each row is the one that the entries give, and there are no others
    headers    each block that anchored has the log's size and root after it
    frontier   the row in the state tree, from which execution appends
    anchors    the state row of each (stream, submitter, seq) names its entry
    index      each entry is in its stream's index, and nothing else is
    signed     what this node signed last is this log at that size (if it signed any)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from audit.anchor import AnchorPlace, AnchorRecord, read_anchor_place
from audit.frontier import append_hashes, compute_frontier_root, encode_frontier, hash_entries
from audit.rows import ENTRY, INDEX_ANCHOR, TILE, number_at_end, u64
from audit.stream import Rows
from audit.tiles import TILE_BYTES, TILE_HASHES, compute_tile_levels, compute_tile_width
from audit.tree_store import tile_key
from ledger.codec import HASH_BYTES
from ledger.errors import InvalidInputError
from ledger.merkle import EMPTY_ROOT
from ledger.store import Reader

EXAMPLES_MAX = 3
GROUP_MAX = TILE_HASHES
"""Entries that are hashed together."""

LogHead = tuple[int, bytes]
"""(size, root)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a node keeps. `head_at` gives the log after a block; `frontier` is the state's row,
    `signed` what the log guard says (None: nothing was signed)."""

    store: Reader
    state: Rows
    head: LogHead
    head_at: Callable[[int], LogHead | None]
    frontier: bytes
    signed: LogHead | None


@dataclass(slots=True)
class Check:
    """One check: what it is about, how much it looked at, and what it found wrong."""

    name: str
    what: str
    count: int = 0
    faults: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return self.faults == 0

    @property
    def text(self) -> str:
        """In words."""
        if self.is_ok:
            return f"{self.what}: {self.count} checked"
        more = self.faults - len(self.examples)
        examples = "; ".join(self.examples) + (f"; and {more} more" if more else "")
        return f"{self.what}: {self.faults} wrong ({examples})"

    def expect(self, is_right: bool, fault: str) -> None:
        """Count one look."""
        self.count += 1
        if not is_right:
            self.faults += 1
            if len(self.examples) < EXAMPLES_MAX:
                self.examples.append(fault)


def check_log(kept: Kept, progress: Callable[[int], None] = lambda _: None) -> list[Check]:
    """All checks, in order. `progress` is told of entries done. Raises DurabilityError if the store
    can not be read."""
    checker = _Checker(kept)
    for group in _read_groups(kept, checker.entries):
        checker.take(group)
        progress(len(group))
    checker.finish()
    return checker.checks


@dataclass(frozen=True, slots=True)
class _Entry:
    index: int
    data: bytes
    record: AnchorRecord | None


def _read_groups(kept: Kept, check: Check) -> Iterator[list[_Entry]]:
    """Consecutive entries of one height, at most `GROUP_MAX`; what is missing is left out."""
    size, group = kept.head[0], list[_Entry]()
    wanted, height = 0, 0
    for key, data in kept.store.iterate(prefix=ENTRY):
        index = number_at_end(key)
        if index >= size or len(key) != len(ENTRY) + 8:
            check.expect(False, f"entry {index} is beyond the log's size {size}")
            continue
        if index > wanted:
            check.expect(False, f"entries {wanted}..{index - 1} are missing")
        wanted = index + 1
        record = _decode(data)
        is_later = record is not None and record.height >= height
        check.expect(
            is_later,
            f"entry {index} is no anchor's record"
            if record is None
            else f"entry {index} is of height {record.height}, after {height}",
        )
        if group and (len(group) == GROUP_MAX or record is None or record.height != height):
            yield group
            group = []
        height = height if record is None else record.height
        group.append(_Entry(index, data, record))
    if wanted < size:
        check.expect(False, f"entries {wanted}..{size - 1} are missing")
    if group:
        yield group


def _decode(data: bytes) -> AnchorRecord | None:
    try:
        return AnchorRecord.decode(data)
    except InvalidInputError:
        return None


class _Checker:
    """The log as rebuilt so far, and what was found."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._size = 0
        self._height = 0
        self._frontier: list[bytes] = []
        self._tiles: list[bytearray] = []
        """By level: the hashes of the tile that is being filled."""
        self._full: list[int] = []
        """By level: how many tiles were filled."""
        self.entries = Check("entries", "Entries are there, in order, and anchors' records")
        self._tile_rows = Check("tiles", "Tiles are those that the entries give")
        self._headers = Check("headers", "Headers have the rebuilt log's size and root")
        self._frontier_row = Check("frontier", "The state's frontier is the rebuilt log's")
        self._anchors = Check("anchors", "State rows of anchors name their entries")
        self._index = Check("index", "Each entry is in its stream's index, and nothing else is")
        self._signed = Check("signed", "What this node signed last is this log")

    @property
    def checks(self) -> list[Check]:
        return [
            self.entries,
            self._tile_rows,
            self._headers,
            self._frontier_row,
            self._anchors,
            self._index,
            self._signed,
        ]

    def take(self, group: list[_Entry]) -> None:
        """The next entries, of one height."""
        if self._height and group[0].record and group[0].record.height != self._height:
            self._compare_header(self._height)
        hashes = hash_entries(entry.data for entry in group)
        self._compare_signed(hashes)
        self._frontier = append_hashes(self._size, self._frontier, hashes)
        self._fill(0, b"".join(hashes))
        self._size += len(group)
        for entry in group:
            if entry.record is not None:
                self._height = entry.record.height
                self._compare_rows(entry.index, entry.record)

    def finish(self) -> None:
        """No entry is left."""
        kept = self._kept
        if self._height:
            self._compare_header(self._height)
        self._compare_head(kept.head, "the newest block")
        for level, tile in enumerate(self._tiles):
            if tile:
                self._compare_tile(level, self._full[level], bytes(tile))
        self._count_tiles()
        rows = sum(1 for _ in kept.store.iterate(prefix=INDEX_ANCHOR))
        self._index.expect(rows == self._size, f"{rows} rows for {self._size} entries")
        self._frontier_row.expect(
            kept.frontier == encode_frontier(self._size, self._frontier),
            f"not the frontier of the {self._size} entries here",
        )
        if kept.signed is not None and kept.signed[0] == 0:
            self._signed.expect(kept.signed[1] == EMPTY_ROOT, "another root at size 0")
        elif kept.signed is not None and kept.signed[0] > self._size:
            fault = f"it has {self._size} entries, and size {kept.signed[0]} was signed"
            self._signed.expect(False, fault)

    def _fill(self, level: int, hashes: bytes) -> None:
        """Append to the tiles of a level; each that is full is compared and goes one level up."""
        if level == len(self._tiles):
            self._tiles.append(bytearray())
            self._full.append(0)
        tile = self._tiles[level]
        tile += hashes
        while len(tile) >= TILE_BYTES:
            full = bytes(tile[:TILE_BYTES])
            del tile[:TILE_BYTES]
            self._compare_tile(level, self._full[level], full)
            self._full[level] += 1
            self._fill(level + 1, compute_tile_levels(full)[-1])

    def _compare_tile(self, level: int, number: int, expected: bytes) -> None:
        found = self._kept.store.get(tile_key(level, number))
        if found is None:
            fault = f"tile {level}/{number} is missing"
        elif len(found) != len(expected):
            hashes = len(expected) // HASH_BYTES
            fault = f"tile {level}/{number} has {len(found)} B for {hashes} hashes"
        else:
            fault = f"tile {level}/{number} differs"
        self._tile_rows.expect(found == expected, fault)

    def _count_tiles(self) -> None:
        """No row is there but those compared."""
        size = self._size
        for key, _ in self._kept.store.iterate(prefix=TILE):
            level, number = key[len(TILE)], number_at_end(key)
            if len(key) != len(TILE) + 9 or not compute_tile_width(size, level, number):
                self._tile_rows.expect(False, f"tile {level}/{number} is beyond the log")

    def _compare_header(self, height: int) -> None:
        head = self._kept.head_at(height)
        if head is not None:
            self._compare_head(head, f"block {height}")

    def _compare_head(self, head: LogHead, where: str) -> None:
        size, root = head
        if size != self._size:
            self._headers.expect(False, f"{where} has size {size}, the entries give {self._size}")
        else:
            is_right = root == compute_frontier_root(self._frontier)
            self._headers.expect(is_right, f"{where} has another root")

    def _compare_signed(self, hashes: list[bytes]) -> None:
        """If the size that was signed last is reached with these next entries."""
        signed = self._kept.signed
        if signed is not None and self._size < signed[0] <= self._size + len(hashes):
            part = append_hashes(self._size, self._frontier, hashes[: signed[0] - self._size])
            is_right = signed[1] == compute_frontier_root(part)
            self._signed.expect(is_right, f"another root at size {signed[0]}")

    def _compare_rows(self, index: int, record: AnchorRecord) -> None:
        self._anchors.expect(
            self._is_placed(index, record),
            f"that of entry {index} (seq {record.seq}) is missing or another",
        )
        key = INDEX_ANCHOR + record.stream + u64(index)
        self._index.expect(self._kept.store.get(key) is not None, f"entry {index} is not in it")

    def _is_placed(self, index: int, record: AnchorRecord) -> bool:
        try:
            place = read_anchor_place(self._kept.state, record.stream, record.submitter, record.seq)
        except InvalidInputError:
            return False
        expected = AnchorPlace(leaf_index=index, count=record.count, batch_root=record.batch_root)
        return place == expected
