"""A reader's own copy of the global log: entries from anybody, believed once their root is final.

Rows are those of the node's log (`audit.tree_store`), and one more:

    a/m/f        the frontier of the entries that were verified

Entries are appended ahead of the frontier and count only when the root of a final header is theirs.
Whoever sent false ones has written rows past the frontier, which the next attempt writes again:
tiles of a smaller size are prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence

from audit.frontier import FrontierLog
from audit.rows import COPY_FRONTIER
from audit.tree_store import LogTree, commit_rows
from ledger.errors import InvalidInputError
from ledger.store import Batch, Store

_LOG = FrontierLog()


class LogCopy:
    """`size` entries are verified; `root` and `entry` answer for them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tree = LogTree(store)
        self._frontier = store.get(COPY_FRONTIER) or b""
        self._ahead = self._frontier
        self.size = _LOG.size_and_root(self._frontier)[0]

    @property
    def ahead(self) -> int:
        """Entries that are here, verified or not."""
        return _LOG.size_and_root(self._ahead)[0]

    def append(self, entries: Sequence[bytes]) -> None:
        """Take in the entries after `ahead`, unverified."""
        rows = Batch()
        for key, row in commit_rows(self._store, self.ahead, entries):
            rows.put(key, row)
        self._store.write(rows, sync=False)
        self._ahead = _LOG.append(self._ahead, list(entries))

    def verify(self, root: bytes) -> None:
        """All entries that are here count from now on if they have this root. Raises
        InvalidInputError if not; those that were not verified are forgotten."""
        size, found = _LOG.size_and_root(self._ahead)
        if found != root:
            self.forget()
            raise InvalidInputError(
                f"the entries do not lead to the root of the log of {size}",
                expected=root.hex(),
                got=found.hex(),
            )
        rows = Batch()
        rows.put(COPY_FRONTIER, self._ahead)
        self._store.write(rows, sync=True)
        self._frontier, self.size = self._ahead, size

    def forget(self) -> None:
        """Drop what is not verified."""
        self._ahead = self._frontier

    def root(self, size: int) -> bytes:
        """Root of the first `size` verified entries."""
        assert size <= self.size, "callers have checked"
        return self._tree.root(size)

    def entry(self, index: int) -> bytes:
        """A verified entry."""
        entry = self._tree.entry(index) if index < self.size else None
        assert entry is not None, "verified entries are here"
        return entry

    def consistency_proof(self, size: int) -> list[bytes]:
        """From `size` to the verified size (RFC 6962); none from the empty log."""
        return self._tree.consistency_proof(size, self.size) if size else []
