"""Fast loading of a whole state into a store that has none: genesis, snapshots, benchmarks.

Rows go in by large unsynced batches, without undo records; then the tree is built once, level by
level, and the meta row is written synced, which makes everything before it durable. Until then
the store counts as unfinished: `StateTree.open` refuses it, and a new load clears it first.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from ledger.errors import InvalidInputError, UsageError
from ledger.state import rows
from ledger.state.proof import EMPTY
from ledger.state.rows import Meta, encode_meta
from ledger.state.tree import StateTree
from ledger.store import Batch, Store

BATCH_KEYS = 10_000


def bulk_load(
    store: Store, values: Iterable[tuple[bytes, bytes]], *, height: int, time_ms: int
) -> StateTree:
    """Load (raw key, value) rows as the state at `height`, and open it with default options.

    Keys are distinct, in any order. Raises UsageError if the store has a state already,
    InvalidInputError if a key comes twice (then the store has no state).
    """
    loader = BulkLoader(store)
    loader.add(values)
    return loader.finish(height=height, time_ms=time_ms)


class BulkLoader:
    """A load in progress. UsageError if the store has a state; what a broken load left is gone."""

    def __init__(self, store: Store) -> None:
        clear_unfinished(store)
        self._store = store
        self._batch = Batch()
        self.keys = 0

    def add(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Write (raw key, value) rows, unsynced."""
        value_prefix, hash_prefix, put = rows.VALUE, rows.VALUE_HASH, self._batch.put
        count = self.keys
        for key, value in values:
            put(value_prefix + key, value)
            put(hash_prefix + sha256(key).digest(), sha256(value).digest())
            count += 1
            if count % BATCH_KEYS == 0:
                self._flush()
                put = self._batch.put
        self.keys = count

    def _flush(self) -> None:
        self._store.write(self._batch, sync=False)
        self._batch = Batch()

    def finish(
        self, *, height: int, time_ms: int, root: bytes | None = None, keys: int | None = None
    ) -> StateTree:
        """Build the tree, write its meta row synced, and open it.

        Raises InvalidInputError, with all rows cleared again, if a key came twice or if the given
        root or number of keys comes out differently.
        """
        self._flush()
        meta = Meta(height=height, time_ms=time_ms, keys=self.keys, root=EMPTY)
        tree = StateTree.load(self._store, meta)
        expected = (self.keys if keys is None else keys, tree.root if root is None else root)
        if tree.keys != self.keys or (tree.keys, tree.root) != expected:
            clear_unfinished(self._store)
            raise InvalidInputError(
                "the loaded state is not the one expected, or a key came twice",
                expected=f"{expected[0]} keys, root {expected[1].hex()}",
                got=f"{tree.keys} keys of {self.keys} rows, root {tree.root.hex()}",
            )
        batch = Batch()
        meta = Meta(height=height, time_ms=time_ms, keys=tree.keys, root=tree.root)
        batch.put(rows.META, encode_meta(meta))
        self._store.write(batch, sync=True)
        return tree


def clear_unfinished(store: Store) -> None:
    """Remove what an interrupted load left. UsageError if the store has a whole state."""
    if store.get(rows.META) is not None:
        raise UsageError("the store has a state; it is not cleared")
    batch = Batch()
    for prefix in (rows.VALUE, rows.VALUE_HASH, rows.UNDO, rows.CHECKPOINT):
        for key, _ in store.iterate(prefix=prefix):
            batch.delete(key)
            if len(batch) == BATCH_KEYS:
                store.write(batch, sync=False)
                batch = Batch()
    if len(batch):
        store.write(batch, sync=False)
