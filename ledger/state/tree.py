"""The authenticated state tree: reads, candidate overlays, commits, proofs.

A height is committed in three steps, so that it shares one synced batch with the rest of a block:
    overlay = tree.compute(writes)                  pure; may be done for many candidates
    tree.add_rows(overlay, batch, height=, time_ms=)    the caller writes the batch, synced
    tree.adopt(overlay)                             RAM follows; overlay.root is the tip's root
Between `add_rows` and `adopt` reads still answer for the old tip, whether the batch is written
yet or not. A failed write is a DurabilityError: throw the tree away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from ledger.errors import InvalidInputError, UsageError
from ledger.state import rows
from ledger.state.bucket import descend
from ledger.state.checkpoint import CheckpointWriter, read_checkpoint
from ledger.state.history import History, PastView, UndoRecord, add_undo_rows, read_record
from ledger.state.multiproof import KeyPath, encode_multiproof
from ledger.state.overlay import (
    Change,
    Delta,
    Overlay,
    TopReader,
    compute_delta,
    prepare_changes,
)
from ledger.state.proof import EMPTY, KIND_EMPTY, KIND_OTHER, encode_proof
from ledger.state.rows import Meta, decode_meta, encode_meta
from ledger.state.top import KEYS_IN_RAM_MAX, Top, bucket_of_rows, build_top, choose_levels
from ledger.store import Batch, Store, View

HISTORY_BLOCKS = 256
HISTORY_MS = 120_000
VALUE_BYTES_MAX = 2**24
RECENT_MAX = 16_384  # values kept after a read: execution reads what add_rows must undo
RECENT_VALUE_BYTES_MAX = 2048


@dataclass(slots=True)
class _Pending:
    """A height whose rows were handed out, until it is adopted."""

    overlay: Overlay
    height: int
    time_ms: int
    record: UndoRecord | None
    expired: list[UndoRecord]
    old_values: dict[bytes, bytes | None] = field(default_factory=dict)
    old_hashes: dict[bytes, bytes] = field(default_factory=dict)


class _Nodes(Protocol):
    """Where a proof reads from: the tip's RAM, or a past view."""

    levels: int

    def node(self, number: int) -> bytes: ...
    def bucket(self, number: int) -> bytes: ...


class StateTree:
    """The state at the tip, and behind it the kept history."""

    def __init__(self, store: Store, *, meta: Meta, top: Top, history: History) -> None:
        """Use `open`."""
        self._store = store
        self._top = top
        self._history = history
        self._base = 0  # counts adoptions: an overlay knows by it whether it fits the tip
        self._tip: Overlay | None = None
        self._pending: _Pending | None = None
        self._fresh = False
        self._grows = True
        self._checkpoint: CheckpointWriter | None = None
        self._recent: dict[bytes, bytes | None] = {}  # values read at the tip
        self.height = meta.height
        self.time_ms = meta.time_ms
        self.keys = meta.keys
        self.root = top.root

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        history_blocks: int = HISTORY_BLOCKS,
        history_ms: int = HISTORY_MS,
        top_levels: int | None = None,
        keys_in_ram_max: int = KEYS_IN_RAM_MAX,
    ) -> StateTree:
        """Load the tree that `store` holds; an empty store gives height 0 and a root of zeros.

        History answers for `history_blocks` heights below the tip and for `history_ms` of block
        time, whichever is more. `top_levels` fixes the levels in RAM (default: by the number of
        keys, and growing with it). Leaves beyond `keys_in_ram_max` (some 100 B each) are read
        from the store when needed. Raises InvalidInputError if the rows don't give the root that
        the meta row names.
        """
        data = store.get(rows.META)
        meta = None if data is None else decode_meta(data)
        tree = cls.load(
            store,
            meta or Meta(height=0, time_ms=0, keys=0, root=EMPTY),
            history_blocks=history_blocks,
            history_ms=history_ms,
            top_levels=top_levels,
            keys_in_ram_max=keys_in_ram_max,
        )
        tree._fresh = meta is None
        if meta is None and tree.keys:
            raise InvalidInputError("the state was not loaded to its end; load it again")
        if meta is not None and (tree.root, tree.keys) != (meta.root, meta.keys):
            raise InvalidInputError(
                "the state's rows don't match its root; restore a backup or sync again",
                expected=f"{meta.keys} keys, root {meta.root.hex()}",
                got=f"{tree.keys} keys, root {tree.root.hex()}",
            )
        return tree

    @classmethod
    def load(
        cls,
        store: Store,
        meta: Meta,
        *,
        history_blocks: int = HISTORY_BLOCKS,
        history_ms: int = HISTORY_MS,
        top_levels: int | None = None,
        keys_in_ram_max: int = KEYS_IN_RAM_MAX,
    ) -> StateTree:
        """Build the tree of the rows in `store`, whatever root and number of keys they give."""
        history = History(blocks=history_blocks, span_ms=history_ms)
        height = meta.height
        while (record := read_record(store, height)) is not None:
            history.records.appendleft(record)
            height -= 1

        def load(levels: int, number: int) -> bytes:
            return bucket_of_rows(_bucket_rows(store, levels, number))

        writer = None
        if meta.keys > keys_in_ram_max:
            writer = CheckpointWriter(levels=0, history_blocks=history_blocks)
            found = read_checkpoint(
                store,
                history=history,
                tip=meta.height,
                load=load,
                keys_in_ram_max=keys_in_ram_max,
            )
            if found is not None and found[0].root == meta.root:
                tree = cls(store, meta=meta, top=found[0], history=history)
                writer.restart(tree.levels)
                writer.set_behind(found[1])
                tree._checkpoint, tree._grows = writer, top_levels is None
                return tree
        levels = choose_levels(meta.keys) if top_levels is None else top_levels
        top, keys = build_top(
            _value_hash_rows(store), levels=levels, load=load, keys_in_ram_max=keys_in_ram_max
        )
        tree = cls(store, meta=meta, top=top, history=history)
        tree.keys = keys
        tree._checkpoint, tree._grows = writer, top_levels is None
        return tree

    # --- reading at the tip ---

    def get(self, key: bytes) -> bytes | None:
        """The value of raw `key` at the tip, or None."""
        pending = self._pending
        if pending is not None and key in pending.old_values:
            return pending.old_values[key]
        recent = self._recent
        if key in recent:
            return recent[key]
        value = self._store.get(rows.VALUE + key)
        if value is None or len(value) <= RECENT_VALUE_BYTES_MAX:
            if len(recent) >= RECENT_MAX:
                recent.clear()
            recent[key] = value
        return value

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(raw key, value) of all keys that begin with `prefix`, in key order, at the tip."""
        cut = len(rows.VALUE)
        found = self._store.iterate(prefix=rows.VALUE + prefix)
        if self._pending is None:
            return ((key[cut:], value) for key, value in found)
        merged: dict[bytes, bytes | None] = {key[cut:]: value for key, value in found}
        olds = self._pending.old_values.items()
        merged.update({key: old for key, old in olds if key.startswith(prefix)})
        return iter([(key, value) for key, value in sorted(merged.items()) if value is not None])

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        """(value, proof bytes) of raw `key` at the tip."""
        tree_key = sha256(key).digest()
        kind, other, siblings = _path(self._top, tree_key)
        if kind == KIND_OTHER:
            return None, encode_proof(kind, other + self._value_hash(other), siblings)
        value = None if kind == KIND_EMPTY else self.get(key)
        return value, encode_proof(kind, b"", siblings)

    def _value_hash(self, tree_key: bytes) -> bytes:
        if self._pending is not None and tree_key in self._pending.old_hashes:
            return self._pending.old_hashes[tree_key]
        found = self._store.get(rows.VALUE_HASH + tree_key)
        if found is None:
            raise InvalidInputError("a value hash of the state is missing", got=tree_key.hex())
        return found

    # --- the tip as a whole ---

    @property
    def levels(self) -> int:
        """How many levels are kept in RAM as single hashes."""
        return self._top.levels

    def subtrees(self, depth: int) -> list[tuple[bytes, bool]]:
        """(hash, whether it is one leaf) of all 2^depth subtrees; depth at most `levels`."""
        first = 1 << depth
        reader = TopReader(self._top, [])
        numbers = range(first, 2 * first)
        hashes = [(number, reader.node(number)) for number in numbers]
        return [(h, h != EMPTY and reader.is_single(number)) for number, h in hashes]

    def view(self) -> View:
        """A frozen view of the store at the tip. UsageError between add_rows and adopt."""
        if self._pending is not None:
            raise UsageError("no view of the state amid a commit", retry=True)
        return self._store.view()

    # --- reading in history ---

    @property
    def lowest_height(self) -> int:
        """The lowest height that `get_at` and `prove_at` answer for."""
        return self._history.lowest(self.height)

    def root_at(self, height: int) -> bytes:
        """The root at `height`. InvalidInputError if history doesn't reach it."""
        return self._past(height, EMPTY).node(1)

    def get_at(self, height: int, key: bytes) -> bytes | None:
        """The value of raw `key` at `height`. InvalidInputError if history doesn't reach it."""
        return self._value_in(self._past(height, sha256(key).digest()), key)

    def prove_at(self, height: int, key: bytes) -> tuple[bytes | None, bytes, bytes]:
        """(value, proof bytes, root) of raw `key` at `height`.

        Raises InvalidInputError, naming the kept range, if history doesn't reach `height`.
        """
        tree_key = sha256(key).digest()
        past = self._past(height, tree_key)
        kind, other, siblings = _path(past, tree_key)
        root = past.node(1)
        if kind == KIND_OTHER:
            entry = past.old_entry(other)
            other_hash = entry[2] if entry else self._value_hash(other)
            return None, encode_proof(kind, other + other_hash, siblings), root
        value = None if kind == KIND_EMPTY else self._value_in(past, key)
        return value, encode_proof(kind, b"", siblings), root

    def prove_many(self, height: int, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """(values, multiproof) of different raw `keys` at the tip or at a kept `height`.

        Raises InvalidInputError as `prove_at` does.
        """
        values: list[bytes | None] = []
        paths = []
        for key in keys:
            tree_key = sha256(key).digest()
            past = None if height == self.height else self._past(height, tree_key)
            kind, other, siblings = _path(self._top if past is None else past, tree_key)
            if kind == KIND_OTHER:
                entry = None if past is None else past.old_entry(other)
                other += entry[2] if entry else self._value_hash(other)
            values.append(self.get(key) if past is None else self._value_in(past, key))
            paths.append(KeyPath(tree_key, kind, other, siblings))
        return values, encode_multiproof(paths)

    def _past(self, height: int, tree_key: bytes) -> PastView:
        lowest = self.lowest_height
        if not lowest <= height <= self.height:
            raise InvalidInputError(
                "the state at this height is not kept",
                expected=f"heights {lowest} to {self.height}",
                got=str(height),
            )
        records = self._history.above(height)
        return PastView(store=self._store, top=self._top, records=records, tree_key=tree_key)

    def _value_in(self, past: PastView, key: bytes) -> bytes | None:
        entry = past.old_entry(sha256(key).digest())
        if entry is None:
            return self.get(key)
        record, position, _ = entry
        return past.old_value(record, position)

    # --- candidates and commits ---

    def compute(
        self, writes: Mapping[bytes, bytes | None], parent: Overlay | None = None
    ) -> Overlay:
        """The state after `writes` (None deletes) over `parent`, or over the tip. Pure."""
        self._check_base(parent)
        for key, value in writes.items():
            if value is not None and len(value) > VALUE_BYTES_MAX:
                raise UsageError("a state value is too long", got=f"{len(value)} B at {key!r}")
        overlay = Overlay(parent=parent, base=self._base, values=dict(writes), read=self._read)
        self._fill(overlay, prepare_changes(overlay.values))
        return overlay

    def add_rows(self, overlay: Overlay, batch: Batch, *, height: int, time_ms: int) -> None:
        """Add all rows that make `overlay` the state at `height` (block time `time_ms`).

        `height` is the next one, or any if the store has no state yet. UsageError otherwise, or
        if the overlay's parent is not the tip.
        """
        self._check_on_tip(overlay)
        if not self._fresh and height != self.height + 1:
            raise UsageError("not the next height", expected=str(self.height + 1), got=str(height))
        pending = _Pending(overlay, height, time_ms, None, [])
        if self._pending is not None:  # offered before, not adopted: its rows are still to go
            pending.expired = self._pending.expired
            self._pending = None
        for number in overlay.delta.buckets:
            self._top.bucket(number)  # in RAM, so that none is read from rows written ahead
        changes = overlay.changes
        for change in changes:
            old = pending.old_values[change.key] = self.get(change.key)
            pending.old_hashes[change.tree_key] = EMPTY if old is None else sha256(old).digest()
        for _, key, value, _ in changes:
            if value is None:
                batch.delete(rows.VALUE + key)
            else:
                batch.put(rows.VALUE + key, value)
        for tree_key, _, _, value_hash in changes:
            if value_hash is None:
                batch.delete(rows.VALUE_HASH + tree_key)
            else:
                batch.put(rows.VALUE_HASH + tree_key, value_hash)
        if height == self.height + 1:
            pending.record = add_undo_rows(
                batch,
                top=self._top,
                height=height,
                time_ms=time_ms,
                changed_nodes=sorted(overlay.delta.nodes),
                changes=changes,
                old_values=pending.old_values,
                old_hashes=pending.old_hashes,
            )
        expired = self._history.expired(height=height, time_ms=time_ms)
        self._history.drop(expired)
        pending.expired += expired
        for record in pending.expired:
            for row in rows.undo_keys(record.height, len(record.nodes)):
                batch.delete(row)
        if self._checkpoint is None and self.keys > self._top.keys_in_ram_max:
            self._checkpoint = CheckpointWriter(
                levels=self._top.levels, history_blocks=self._history.blocks
            )
        if self._checkpoint is not None:
            self._checkpoint.add_rows(batch, self._top, height)
        meta = Meta(height=height, time_ms=time_ms, keys=overlay.keys, root=overlay.root)
        batch.put(rows.META, encode_meta(meta))
        self._pending = pending

    def adopt(self, overlay: Overlay) -> None:
        """Make `overlay` the tip, once the batch with its rows is synced. UsageError otherwise."""
        pending = self._pending
        if pending is None or pending.overlay is not overlay:
            raise UsageError("adopt without add_rows of this overlay")
        if self._checkpoint is not None:
            self._checkpoint.touch(overlay.delta.buckets)
        self._top.update(overlay.delta.nodes, overlay.delta.buckets)
        if self._grows:
            self._top.grow(overlay.keys)
        if pending.record is not None:
            self._history.records.append(pending.record)
        recent = self._recent
        for _, key, value, _ in overlay.changes:
            if key in recent:
                if value is None or len(value) <= RECENT_VALUE_BYTES_MAX:
                    recent[key] = value
                else:
                    del recent[key]
        self._pending = None
        self._fresh = False
        self._base += 1
        self._tip = overlay
        self.height = pending.height
        self.time_ms = pending.time_ms
        self.root = overlay.root
        self.keys = overlay.keys
        # Children go on reading through it; empty and without a parent it keeps nothing alive.
        overlay.parent = None
        overlay.base = self._base
        overlay.values = {}
        overlay.changes = []
        overlay.delta = Delta(self._top.levels, {}, {})

    def _read(self, overlay: Overlay | None, key: bytes) -> bytes | None:
        self._check_base(overlay)
        while overlay is not None:
            if key in overlay.values:
                return overlay.values[key]
            overlay = overlay.parent
        return self.get(key)

    def _check_base(self, overlay: Overlay | None) -> None:
        """UsageError unless the chain of `overlay` begins at the tip."""
        if overlay is None:
            return
        while overlay.parent is not None:
            overlay = overlay.parent
        if overlay.base != self._base:
            raise UsageError("the overlay lies over a state that is no longer the tip")

    def _check_on_tip(self, overlay: Overlay) -> None:
        """UsageError unless `overlay` lies directly over the tip."""
        self._check_base(overlay)
        if overlay is self._tip or (overlay.parent is not None and overlay.parent is not self._tip):
            raise UsageError("the overlay's parent is not the tip")
        if overlay.delta.levels != self._top.levels:
            self._fill(overlay, prepare_changes(overlay.values))

    def _fill(self, overlay: Overlay, changes: list[Change]) -> None:
        """Compute the overlay's delta over its parents; anew if the levels have changed."""
        chain: list[Overlay] = []
        above = overlay.parent
        while above is not None:
            chain.append(above)
            above = above.parent
        for ancestor in reversed(chain):
            if ancestor.delta.levels != self._top.levels:
                self._fill(ancestor, prepare_changes(ancestor.values))
        parents = [ancestor.delta for ancestor in chain if ancestor.delta.nodes]
        keys = overlay.parent.keys if overlay.parent else self.keys
        delta, effective, keys = compute_delta(self._top, parents, changes, keys)
        overlay.delta = delta
        overlay.changes = effective
        overlay.keys = keys
        if 1 in delta.nodes:
            overlay.root = delta.nodes[1]
        else:
            overlay.root = overlay.parent.root if overlay.parent else self.root


def _path(nodes: _Nodes, tree_key: bytes) -> tuple[int, bytes, list[bytes]]:
    """Where the path of `tree_key` ends: (kind, other key or b"", siblings top to bottom)."""
    levels = nodes.levels
    prefix = int.from_bytes(tree_key[:4], "big") >> (32 - levels)
    siblings: list[bytes] = []
    number = 1
    for depth in range(levels):
        own = number << 1 | prefix >> (levels - 1 - depth) & 1
        left, right = nodes.node(own), nodes.node(own ^ 1)
        if left == EMPTY or right == EMPTY:
            here = nodes.node(number)
            if here == EMPTY:
                return KIND_EMPTY, b"", siblings
            if here in (left, right):  # one leaf: the subtree is its hash
                return *_only_leaf(nodes, number, tree_key), siblings
        siblings.append(right)
        number = own
    kind, other, below = descend(nodes.bucket(prefix), levels, tree_key)
    return kind, other, siblings + below


def _only_leaf(nodes: _Nodes, number: int, tree_key: bytes) -> tuple[int, bytes]:
    """(kind, other key) of the one leaf under node `number`."""
    first = 1 << nodes.levels
    while number < first:
        number <<= 1
        if nodes.node(number) == EMPTY:
            number |= 1
    kind, other, _ = descend(nodes.bucket(number - first), 0, tree_key)
    return kind, other


def _value_hash_rows(store: Store) -> Iterator[tuple[bytes, bytes]]:
    cut = len(rows.VALUE_HASH)
    return ((key[cut:], value) for key, value in store.iterate(prefix=rows.VALUE_HASH))


def _bucket_rows(store: Store, levels: int, number: int) -> Iterator[tuple[bytes, bytes]]:
    """The (tree key, value hash) rows of one bucket."""
    cut = len(rows.VALUE_HASH)
    low = rows.VALUE_HASH + (number << (32 - levels)).to_bytes(4, "big")
    for key, value in store.iterate(prefix=low[: cut + levels // 8], start=low):
        if int.from_bytes(key[cut : cut + 4], "big") >> (32 - levels) != number:
            return
        yield key[cut:], value
