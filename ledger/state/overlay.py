"""Overlays: what the tree would be after some writes, without changing it.

Any number of overlays lie side by side over one parent (another overlay, or the tip), so that
candidate blocks cost only what they change and losers are just dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple

from ledger.state.bucket import find, fold, node_hash, put, remove
from ledger.state.proof import EMPTY
from ledger.state.top import HASH, Top

MERGE_ONE_BY_ONE_MAX = 8  # changes in one bucket; more are merged at once


class Change(NamedTuple):
    """One key whose value differs from the parent's. A value hash of None: deleted.

    A tuple, since thousands are made a block and a frozen dataclass costs four times as much.
    """

    tree_key: bytes
    key: bytes
    value: bytes | None
    value_hash: bytes | None


@dataclass(slots=True)
class Delta:
    """What an overlay changes in the RAM of its parent, for one number of levels."""

    levels: int
    nodes: dict[int, bytes]
    buckets: dict[int, bytes]


class Overlay:
    """The state after some writes over `parent` (None: over the tip when it was computed).

    Immutable to its users. Reading one whose base is no longer the tip is a UsageError.
    """

    __slots__ = ("_read", "base", "changes", "delta", "keys", "parent", "root", "values")

    def __init__(
        self,
        *,
        parent: Overlay | None,
        base: int,
        values: Mapping[bytes, bytes | None],
        read: Callable[[Overlay | None, bytes], bytes | None],
    ) -> None:
        self.parent = parent
        self.base = base
        self.values = values
        self.root = EMPTY
        self.keys = 0
        self.changes: list[Change] = []
        self.delta = Delta(0, {}, {})
        self._read = read

    def get(self, key: bytes) -> bytes | None:
        """The value of raw `key` in this overlay, its parents, or the tree."""
        return self._read(self, key)


class TopReader:
    """Nodes and buckets as seen through a chain of deltas."""

    __slots__ = ("deltas", "top")

    def __init__(self, top: Top, deltas: list[Delta]) -> None:
        self.top = top
        self.deltas = deltas  # the newest first

    def node(self, number: int) -> bytes:
        for delta in self.deltas:
            found = delta.nodes.get(number)
            if found is not None:
                return found
        return self.top.node(number)

    def bucket(self, number: int) -> bytes:
        for delta in self.deltas:
            found = delta.buckets.get(number)
            if found is not None:
                return found
        return self.top.bucket(number)

    def is_single(self, number: int) -> bool:
        """Whether the subtree of `number`, not empty, has exactly one leaf."""
        first = 1 << self.top.levels
        if number >= first:
            return self._is_single_bucket(number - first)
        left, right = self.node(2 * number), self.node(2 * number + 1)
        # A node over one child takes over that child's hash only if it is a single leaf.
        return EMPTY in (left, right) and self.node(number) in (left, right)

    def _is_single_bucket(self, number: int) -> bool:
        for delta in self.deltas:
            found = delta.buckets.get(number)
            if found is not None:
                return len(found) == 64
        return bool(self.top.singles[number])


def prepare_changes(values: Mapping[bytes, bytes | None]) -> list[Change]:
    """Hash keys and values; ascending by tree key."""
    changes = [
        Change(sha256(key).digest(), key, value, None if value is None else sha256(value).digest())
        for key, value in values.items()
    ]
    changes.sort(key=itemgetter(0))
    return changes


def compute_delta(
    top: Top, parents: list[Delta], changes: list[Change], keys: int
) -> tuple[Delta, list[Change], int]:
    """The delta of `changes` over `parents` (newest first, of the top's levels) over `top`.

    Returns it with the changes that change something, and the number of keys afterwards.
    """
    reader = TopReader(top, parents)
    delta = Delta(top.levels, {}, {})
    effective: list[Change] = []
    shift = 32 - top.levels
    numbers = [int.from_bytes(change.tree_key[:4], "big") >> shift for change in changes]
    at, count = 0, len(changes)
    while at < count:
        number = numbers[at]
        first = at
        at += 1
        while at < count and numbers[at] == number:
            at += 1
        before = reader.bucket(number)
        if at - first <= MERGE_ONE_BY_ONE_MAX:
            bucket = before
            for change in changes[first:at]:
                changed = _apply_change(bucket, change)
                if changed is not bucket:
                    bucket = changed
                    effective.append(change)
        else:
            bucket = _apply_changes(before, changes[first:at], effective)
        if bucket is not before:
            keys += (len(bucket) - len(before)) >> 6
            delta.buckets[number] = bucket
    _climb(reader, delta)
    return delta, effective, keys


def _apply_change(bucket: bytes, change: Change) -> bytes:
    """The bucket after one change; the same object if it changes nothing."""
    tree_key, _, _, value_hash = change
    if value_hash is None:
        return remove(bucket, tree_key)
    leaf = sha256(b"\0" + tree_key + value_hash).digest()
    at = find(bucket, tree_key)
    if at < 0:
        return put(bucket, tree_key, leaf)
    if bucket[at + 32 : at + 64] == leaf:
        return bucket
    return bucket[: at + 32] + leaf + bucket[at + 64 :]


def _apply_changes(bucket: bytes, changes: list[Change], effective: list[Change]) -> bytes:
    """The bucket after many changes at once; those that change something go to `effective`."""
    leaves = {bucket[at : at + 32]: bucket[at + 32 : at + 64] for at in range(0, len(bucket), 64)}
    count = len(effective)
    for change in changes:
        tree_key = change.tree_key
        if change.value_hash is None:
            if leaves.pop(tree_key, None) is not None:
                effective.append(change)
            continue
        leaf = sha256(b"\0" + tree_key + change.value_hash).digest()
        if leaves.get(tree_key) != leaf:
            leaves[tree_key] = leaf
            effective.append(change)
    if len(effective) == count:
        return bucket
    return b"".join([part for item in sorted(leaves.items()) for part in item])


def _climb(reader: TopReader, delta: Delta) -> None:
    """Compute the nodes above the changed buckets, level by level, into `delta.nodes`."""
    first = 1 << delta.levels
    buckets = delta.buckets  # ascending: changes are sorted
    changed = {first + n: fold(bucket, delta.levels) for n, bucket in buckets.items()}
    singles = {first + n for n, bucket in buckets.items() if len(bucket) == 64}
    levels = [changed]
    while changed and 1 not in changed:
        changed, singles = _climb_level(reader, changed, singles)
        levels.append(changed)
    for changed in reversed(levels):
        delta.nodes |= changed  # ascending, which spares the commit a sort


def _climb_level(
    reader: TopReader, changed: dict[int, bytes], singles: set[int]
) -> tuple[dict[int, bytes], set[int]]:
    """The parents of the nodes of one level that changed; `singles`: those that are one leaf."""
    heap, read = reader.top.heap, HASH.unpack_from
    node = reader.node if reader.deltas else None
    find_changed = changed.get
    above: dict[int, bytes] = {}
    above_singles: set[int] = set()
    for number in changed:
        parent = number >> 1
        if parent in above:  # through its left child
            continue
        own = changed[number]
        sibling = number ^ 1
        other: bytes | None = find_changed(sibling)
        if other is None:
            other = node(sibling) if node else read(heap, 32 * sibling)[0]
        if own == EMPTY or other == EMPTY:
            single = _is_one_leaf(reader, changed, singles, number if other == EMPTY else sibling)
            if single:
                above_singles.add(parent)
            left, right = (other, own) if number & 1 else (own, other)
            above[parent] = node_hash(left, right, is_leaf=single)
        elif number & 1:
            above[parent] = sha256(b"\1" + other + own).digest()
        else:
            above[parent] = sha256(b"\1" + own + other).digest()
    return above, above_singles


def _is_one_leaf(
    reader: TopReader, changed: dict[int, bytes], singles: set[int], number: int
) -> bool:
    """Whether node `number`, whose sibling is empty, is a single leaf after the changes."""
    if number in changed:
        return number in singles
    return reader.node(number) != EMPTY and reader.is_single(number)
