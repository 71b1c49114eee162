"""History: undo records, from which reads and proofs at past heights are answered.

A record of height h holds what h changed, as it was at h - 1: node hashes, value hashes and
values. What was true at height g is found in the first record above g that mentions it, else at
the tip. Of the nodes only those of even depth are kept; one of odd depth follows from its
children. That halves what is gathered, written and held. In RAM is only what tells which record to
read: the numbers of the kept nodes and the changed keys with their old value hashes (about 90 B an
update); old node hashes and values are read from the store.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ledger.errors import InvalidInputError
from ledger.state import rows
from ledger.state.bucket import fold, leaf_hash, node_hash, put, remove
from ledger.state.overlay import Change
from ledger.state.proof import EMPTY
from ledger.state.rows import UNDO_HEAD_BYTES, UNDO_PAGE_HASHES
from ledger.state.top import HASH, Top
from ledger.store import Batch, Reader

ENTRY_BYTES = 64
RECORDS_MAX = 4096  # whatever the time span asks for: bounds RAM and restart


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoRecord:
    """The part of the undo record of `height` that stays in RAM."""

    height: int
    time_ms: int
    levels: int
    nodes: array[int]  # u32, ascending, of even depth
    entries: bytes  # tree key 32 | old value hash 32 (zeros: none), ascending
    first8: array[int]  # u64, the beginning of each entry's tree key

    def has_node(self, number: int) -> int:
        """The position of node `number`, or -1."""
        at = bisect_left(self.nodes, number)
        return at if at < len(self.nodes) and self.nodes[at] == number else -1


def _make_record(
    height: int, time_ms: int, levels: int, nodes: array[int], entries: bytes
) -> UndoRecord:
    first8 = array(
        "Q",
        [int.from_bytes(entries[at : at + 8], "big") for at in range(0, len(entries), ENTRY_BYTES)],
    )
    return UndoRecord(
        height=height, time_ms=time_ms, levels=levels, nodes=nodes, entries=entries, first8=first8
    )


def add_undo_rows(
    batch: Batch,
    *,
    top: Top,
    height: int,
    time_ms: int,
    changed_nodes: list[int],
    changes: list[Change],
    old_values: dict[bytes, bytes | None],
    old_hashes: dict[bytes, bytes],
) -> UndoRecord:
    """Add the undo record of `height` to `batch`; `top` is still as it was before.

    `changed_nodes` and `changes` ascend; old values go by raw key, old hashes by tree key.
    """
    nodes = array("I")
    for depth in range(0, top.levels + 1, 2):
        first, end = bisect_left(changed_nodes, 1 << depth), bisect_left(changed_nodes, 2 << depth)
        nodes.extend(changed_nodes[first:end])
    entries = b"".join([change.tree_key + old_hashes[change.tree_key] for change in changes])
    head = b"".join(
        (
            time_ms.to_bytes(8, "big"),
            top.levels.to_bytes(1, "big"),
            len(changes).to_bytes(4, "big"),
            len(nodes).to_bytes(4, "big"),
        )
    )
    batch.put(rows.undo_key(height, rows.UNDO_ENTRIES), head + entries)
    if not changes:
        return _make_record(height, time_ms, top.levels, nodes, entries)
    batch.put(rows.undo_key(height, rows.UNDO_NODES), rows.encode_u32s(nodes))
    heap, read = top.heap, HASH.unpack_from
    for page, first in enumerate(range(0, len(nodes), UNDO_PAGE_HASHES)):
        numbers = nodes[first : first + UNDO_PAGE_HASHES]
        hashes = b"".join([read(heap, 32 * number)[0] for number in numbers])
        batch.put(rows.undo_key(height, rows.UNDO_HASHES, page), hashes)
    ends = array("I")
    records: list[bytes] = []
    end = 0
    for change in changes:
        record = len(change.key).to_bytes(2, "big") + change.key
        record += old_values[change.key] or b""
        records.append(record)
        end += len(record)
        ends.append(end)
    batch.put(rows.undo_key(height, rows.UNDO_VALUES), rows.encode_u32s(ends) + b"".join(records))
    return _make_record(height, time_ms, top.levels, nodes, entries)


def read_record(store: Reader, height: int) -> UndoRecord | None:
    """The undo record of `height` from the store; None if there is none."""
    data = store.get(rows.undo_key(height, rows.UNDO_ENTRIES))
    if data is None:
        return None
    entry_count = int.from_bytes(data[9:13], "big")
    node_count = int.from_bytes(data[13:17], "big")
    nodes = rows.decode_u32s(
        (store.get(rows.undo_key(height, rows.UNDO_NODES)) or b"") if node_count else b""
    )
    entries = data[UNDO_HEAD_BYTES:]
    if len(entries) != entry_count * ENTRY_BYTES or len(nodes) != node_count:
        raise InvalidInputError(f"the undo record of height {height} is damaged")
    return _make_record(height, int.from_bytes(data[:8], "big"), data[8], nodes, entries)


def read_undo_values(store: Reader, record: UndoRecord) -> Iterator[tuple[bytes, bytes | None]]:
    """(raw key, old value or None) of each entry of `record`, in its order."""
    if record.first8:
        data = _row(store, record.height, rows.UNDO_VALUES)
        for position in range(len(record.first8)):
            yield _undo_value(data, record, position)


def _undo_value(data: bytes, record: UndoRecord, position: int) -> tuple[bytes, bytes | None]:
    base = 4 * len(record.first8)
    at = 4 * position
    start = int.from_bytes(data[at - 4 : at], "big") if position else 0
    end = int.from_bytes(data[at : at + 4], "big")
    item = data[base + start : base + end]
    key_end = 2 + int.from_bytes(item[:2], "big")
    offset = position * ENTRY_BYTES + 32
    existed = record.entries[offset : offset + 32] != EMPTY
    return item[2:key_end], item[key_end:] if existed else None


def _row(store: Reader, height: int, kind: bytes, page: int | None = None) -> bytes:
    data = store.get(rows.undo_key(height, kind, page))
    if data is None:
        raise InvalidInputError(f"the undo record of height {height} is damaged")
    return data


class History:
    """The undo records kept, oldest first and without a gap up to the tip."""

    __slots__ = ("_span_ms", "blocks", "records")

    def __init__(self, *, blocks: int, span_ms: int) -> None:
        self.blocks = blocks
        self._span_ms = span_ms
        self.records: deque[UndoRecord] = deque()

    def lowest(self, tip: int) -> int:
        """The lowest height that can be read."""
        return self.records[0].height - 1 if self.records else tip

    def expired(self, *, height: int, time_ms: int) -> list[UndoRecord]:
        """The records that are needed no longer once `height` is the tip."""
        gone: list[UndoRecord] = []
        for record in self.records:
            by_height = record.height <= height - self.blocks
            by_time = record.time_ms < time_ms - self._span_ms
            if not (by_height and by_time) and record.height > height - RECORDS_MAX:
                break
            gone.append(record)
        return gone

    def drop(self, expired: list[UndoRecord]) -> None:
        """Forget the oldest records, `expired`."""
        for _ in expired:
            self.records.popleft()

    def above(self, height: int) -> list[UndoRecord]:
        """The records of heights above `height`, ascending."""
        return [record for record in self.records if record.height > height]


# record, position in it, old value hash (zeros: there was no value)
_Place = tuple[UndoRecord, int, bytes]


class PastView:
    """The tree as it was at one height, along the path of one key."""

    __slots__ = ("_found", "_pages", "_places", "_store", "_top", "_walked", "levels", "records")

    def __init__(
        self, *, store: Reader, top: Top, records: list[UndoRecord], tree_key: bytes
    ) -> None:
        """`records`: all above the height, ascending."""
        self._store = store
        self._top = top
        self.records = records
        self.levels = min([top.levels, *(record.levels for record in records)])
        self._found: dict[int, bytes] = {}
        self._pages: dict[tuple[int, int], bytes] = {}
        self._places: dict[int, dict[bytes, _Place]] = {}
        self._walked: set[int] = set()  # nodes whose kept grandchildren are resolved
        self._walk(int.from_bytes(tree_key[:4], "big"))

    def _walk(self, prefix: int) -> None:
        """Resolve the kept nodes along the path: the root, then its node's four grandchildren."""
        path = [1 << depth | prefix >> (32 - depth) for depth in range(0, self.levels + 1, 2)]
        groups = [range(4 * number, 4 * number + 4) for number in path[:-1]]
        groups.insert(0, range(1, 2))
        open_step = 0  # above it all is resolved
        found = self._found
        for record in self.records:
            nodes = record.nodes
            count = len(nodes)
            at = 0
            for step in range(open_step, len(path)):
                number, group = path[step], groups[step]
                at = bisect_left(nodes, group.start, at)
                on_path = False
                while at < count and nodes[at] < group.stop:
                    node = nodes[at]
                    on_path = on_path or node == number
                    if node not in found:
                        found[node] = self._old_hash(record, at)
                    at += 1
                if not on_path:  # then nothing below has changed either
                    break
            while open_step < len(path) and all(node in found for node in groups[open_step]):
                open_step += 1
        self._walked.update((0, *path[:-1]))

    def _old_hash(self, record: UndoRecord, at: int) -> bytes:
        page, slot = divmod(at, UNDO_PAGE_HASHES)
        place = (record.height, page)
        hashes = self._pages.get(place)
        if hashes is None:
            hashes = self._pages[place] = _row(self._store, record.height, rows.UNDO_HASHES, page)
        return hashes[32 * slot : 32 * slot + 32]

    def node(self, number: int) -> bytes:
        """The hash of a node."""
        found = self._found.get(number)
        if found is None:
            found = self._found[number] = self._resolve(number)
        return found

    def _resolve(self, number: int) -> bytes:
        if number.bit_length() & 1:  # of even depth
            if number >> 2 in self._walked:  # no record names it
                return self._top.node(number)
            return self._search(number)
        if number >> self.levels:
            return fold(self.bucket(number - (1 << self.levels)), self.levels)
        left, right = self.node(2 * number), self.node(2 * number + 1)
        return node_hash(left, right, is_leaf=self._is_single(number))

    def _is_single(self, number: int) -> bool:
        """Whether the subtree of `number` has exactly one leaf."""
        if number >> self.levels:
            return len(self.bucket(number - (1 << self.levels))) == 64
        left, right = self.node(2 * number), self.node(2 * number + 1)
        return EMPTY in (left, right) and self._is_single(2 * number + (left == EMPTY))

    def _search(self, number: int) -> bytes:
        """The hash of a kept node off the path: rare, and costs a look into each record."""
        for record in self.records:
            at = record.has_node(number)
            if at >= 0:
                return self._old_hash(record, at)
        return self._top.node(number)

    def bucket(self, number: int) -> bytes:
        """Bucket `number`, counted at this view's levels."""
        ratio = self._top.levels - self.levels
        first = number << ratio
        bucket = b"".join([self._top.bucket(first + i) for i in range(1 << ratio)])
        for key, (_, _, old_hash) in self._changes_under(number).items():
            if old_hash == EMPTY:
                bucket = remove(bucket, key)
            else:
                bucket = put(bucket, key, leaf_hash(key, old_hash))
        return bucket

    def _changes_under(self, number: int) -> dict[bytes, _Place]:
        """For each key of a bucket that changed since: where its oldest entry is."""
        places = self._places.get(number)
        if places is not None:
            return places
        places = self._places[number] = {}
        shift = 64 - self.levels
        low, high = number << shift, (number + 1) << shift
        for record in self.records:
            first8 = record.first8
            at = bisect_left(first8, low)
            while at < len(first8) and first8[at] < high:
                offset = at * ENTRY_BYTES
                key = record.entries[offset : offset + 32]
                if key not in places:
                    places[key] = record, at, record.entries[offset + 32 : offset + 64]
                at += 1
        return places

    def old_entry(self, tree_key: bytes) -> _Place | None:
        """Where the key's value at this height is kept, if it changed since."""
        number = int.from_bytes(tree_key[:4], "big") >> (32 - self.levels)
        return self._changes_under(number).get(tree_key)

    def old_value(self, record: UndoRecord, position: int) -> bytes | None:
        """The value that the entry at `position` of `record` had before it."""
        data = _row(self._store, record.height, rows.UNDO_VALUES)
        return _undo_value(data, record, position)[1]
