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
from ledger.state.rows import Meta, encode_meta
from ledger.state.tree import StateTree
from ledger.store import Batch, Store

BATCH_ROWS = 20_000


def bulk_load(
    store: Store,
    values: Iterable[tuple[bytes, bytes]],
    *,
    height: int,
    time_ms: int,
    root: bytes | None = None,
) -> StateTree:
    """Load (raw key, value) rows as the state at `height`, and open it with default options.

    Keys are distinct, in any order; ascending by sha256 of the key is fastest. Raises UsageError
    if the store has a state already; InvalidInputError if a key comes twice, or if `root` is given
    and comes out differently (the rows are cleared again).
    """
    if store.get(rows.META) is not None:
        raise UsageError("the store has a state already")
    clear_unfinished(store)
    keys = _write_values(store, values)
    tree = StateTree.load(store, Meta(height=height, time_ms=time_ms, keys=keys, root=b""))
    if (root is not None and tree.root != root) or tree.keys != keys:
        clear_unfinished(store)
        if tree.keys != keys:
            raise InvalidInputError(
                "a state key comes twice", expected=f"{keys} keys", got=str(tree.keys)
            )
        raise InvalidInputError(
            "the loaded state has another root", expected=(root or b"").hex(), got=tree.root.hex()
        )
    batch = Batch()
    meta = Meta(height=height, time_ms=time_ms, keys=keys, root=tree.root)
    batch.put(rows.META, encode_meta(meta))
    store.write(batch, sync=True)
    return tree


def _write_values(store: Store, values: Iterable[tuple[bytes, bytes]]) -> int:
    """Write values and value hashes, unsynced; how many."""
    count = 0
    batch = Batch()
    value_prefix, hash_prefix, put = rows.VALUE, rows.VALUE_HASH, batch.put
    for key, value in values:
        put(value_prefix + key, value)
        put(hash_prefix + sha256(key).digest(), sha256(value).digest())
        count += 1
        if count % BATCH_ROWS == 0:
            store.write(batch, sync=False)
            batch = Batch()
            put = batch.put
    store.write(batch, sync=False)
    return count


def clear_unfinished(store: Store) -> None:
    """Remove what an interrupted load left. UsageError if the store has a whole state."""
    if store.get(rows.META) is not None:
        raise UsageError("the store has a state; it is not cleared")
    batch = Batch()
    for prefix in (rows.VALUE, rows.VALUE_HASH, rows.UNDO, rows.CHECKPOINT):
        for key, _ in store.iterate(prefix=prefix):
            batch.delete(key)
            if len(batch) == BATCH_ROWS:
                store.write(batch, sync=False)
                batch = Batch()
    if len(batch):
        store.write(batch, sync=False)
