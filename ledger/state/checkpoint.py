"""Checkpoints of the bucket hashes, so that a large tree starts without reading all its rows.

A tree with more leaves than stay in RAM writes its lowest level, page by page (256 buckets), with
the heights it commits anyway: each height has its turn of the pages, and those changed since they
were last written are written again, as they were before that height. So no page is further behind
than half of the kept history, and at start the undo records tell which buckets to read again.

A checkpoint is only ever a shortcut: if its pages are incomplete or don't lead to the root, the
rows are read instead.
"""

from __future__ import annotations

from ledger.state import rows
from ledger.state.bucket import fold
from ledger.state.history import History
from ledger.state.rows import CHECKPOINT_PAGE_BUCKETS
from ledger.state.top import Load, Top, build_heap
from ledger.store import Batch, Reader

PAGE_SHIFT = CHECKPOINT_PAGE_BUCKETS.bit_length() - 1
FLAG_BYTES = CHECKPOINT_PAGE_BUCKETS // 8
PAGE_BYTES = 8 + FLAG_BYTES + 32 * CHECKPOINT_PAGE_BUCKETS
TURNS_MAX = 128


class CheckpointWriter:
    """Which pages are behind, and whose turn it is."""

    __slots__ = ("_behind", "_levels", "_turns")

    def __init__(self, *, levels: int, history_blocks: int) -> None:
        self._turns = max(1, min(history_blocks // 2, TURNS_MAX))
        self._levels = levels
        self._behind = bytearray()
        self.restart(levels)

    def restart(self, levels: int) -> None:
        """All pages are to be written, for another number of levels."""
        self._levels = levels
        self._behind = bytearray(b"\1" * ((1 << levels) >> PAGE_SHIFT))

    def set_behind(self, behind: bytearray) -> None:
        """Take over which pages are behind, from `read_checkpoint`."""
        self._behind = behind

    def touch(self, buckets: dict[int, bytes]) -> None:
        """These buckets have changed."""
        behind = self._behind
        if behind:
            for number in buckets:
                behind[number >> PAGE_SHIFT] = 1

    def add_rows(self, batch: Batch, top: Top, height: int) -> None:
        """Add the pages whose turn it is at `height`; `top` is still as it was before."""
        if top.levels != self._levels:
            self.restart(top.levels)
        count = len(self._behind)
        turn = height % self._turns
        first, last = turn * count // self._turns, (turn + 1) * count // self._turns
        for page in range(first, last):
            if self._behind[page]:
                self._behind[page] = 0
                batch.put(rows.checkpoint_key(top.levels, page), _encode(top, page, height - 1))
                batch.delete(rows.checkpoint_key(top.levels - 1, page >> 1))


def _encode(top: Top, page: int, height: int) -> bytes:
    first = page << PAGE_SHIFT
    flags = "".join(map(str, top.singles[first : first + CHECKPOINT_PAGE_BUCKETS]))
    at = 32 * ((1 << top.levels) + first)
    hashes = top.heap[at : at + 32 * CHECKPOINT_PAGE_BUCKETS]
    return height.to_bytes(8, "big") + int(flags, 2).to_bytes(FLAG_BYTES, "big") + hashes


def read_checkpoint(
    store: Reader, *, history: History, tip: int, load: Load, keys_in_ram_max: int
) -> tuple[Top, bytearray] | None:
    """The RAM of the tree at height `tip`, and which pages are behind; None if there is none.

    The caller checks the root. Buckets are read from the store when they are needed.
    """
    pages: list[bytes] = []
    levels = 0
    for key, page in store.iterate(prefix=rows.CHECKPOINT):
        at = len(rows.CHECKPOINT)
        if key[at] != levels:
            pages.clear()  # what is left of fewer levels
            levels = key[at]
        if int.from_bytes(key[at + 1 :], "big") != len(pages) or len(page) != PAGE_BYTES:
            return None
        pages.append(page)
    if not pages or len(pages) != (1 << levels) >> PAGE_SHIFT:
        return None
    hashes = bytearray().join([page[8 + FLAG_BYTES :] for page in pages])
    flags = b"".join([page[8 : 8 + FLAG_BYTES] for page in pages])
    singles = bytearray(format(int.from_bytes(flags, "big"), f"0{8 * len(flags)}b"), "ascii")
    singles = singles.translate(bytes.maketrans(b"01", b"\0\1"))
    written = [int.from_bytes(page[:8], "big") for page in pages]
    if max(written) > tip:
        return None
    behind = bytearray(len(pages))
    for number in sorted(_changed_buckets(written, levels, history)):
        bucket = load(levels, number)
        hashes[32 * number : 32 * number + 32] = fold(bucket, levels)
        singles[number] = len(bucket) == 64
        behind[number >> PAGE_SHIFT] = 1
    top = Top(
        levels=levels,
        heap=build_heap(hashes, singles),
        buckets=[None] * (1 << levels),
        singles=singles,
        load=load,
        keys_in_ram_max=keys_in_ram_max,
    )
    return top, behind


def _changed_buckets(written: list[int], levels: int, history: History) -> set[int]:
    """The buckets changed, as far as the records go back, after their page was written."""
    changed: set[int] = set()
    for record in history.records:
        for first8 in record.first8:
            bucket = first8 >> (64 - levels)
            if written[bucket >> PAGE_SHIFT] < record.height:
                changed.add(bucket)
    return changed
