"""The log as the HTTP routes of C2SP tlog-tiles serve it (`rpc.tiles.LogSource`).

Tiles of every size that ever was are prefixes of those now, so each partial tile that a checkpoint
of any node could need is here, without a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from audit.tiles import LEVELS_MAX, TILE_HASHES, compute_tile_width
from audit.tree_store import LogTree
from ledger.chain_reader import ChainReader
from ledger.codec import HASH_BYTES
from rpc.errors import not_ready


class LogFiles:
    """`published` gives the newest signed checkpoint, None while there is none."""

    def __init__(
        self, chain: ChainReader, log_tree: LogTree, published: Callable[[], str | None]
    ) -> None:
        self._chain = chain
        self._log = log_tree
        self._published = published

    def checkpoint(self) -> bytes:
        note = self._published()
        if note is None:
            raise not_ready("no checkpoint is signed yet", reason="audit/no-checkpoint")
        return note.encode()

    def tile(self, level: int, number: int, width: int) -> bytes | None:
        size = self._size
        if level >= LEVELS_MAX or width > compute_tile_width(size, level, number):
            return None
        return self._log.tile(level, number, size)[: width * HASH_BYTES]

    def entry_bundle(self, number: int, width: int) -> bytes | None:
        if number * TILE_HASHES + width > self._size:
            return None
        return self._log.entry_bundle(number, width)

    @property
    def _size(self) -> int:
        head = self._chain.head
        return 0 if head is None else head.audit_size
