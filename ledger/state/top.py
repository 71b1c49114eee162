"""The tree's RAM: the upper levels as a heap of hashes, and below them the buckets.

Node numbers count as in a heap: the root is 1, the children of i are 2i and 2i + 1; the nodes of
depth d are 2^d .. 2^(d+1) - 1. Bucket b lies under node 2^levels + b. `levels` is local tuning:
the root does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain, repeat

from ledger.state.bucket import fold, leaf_hash
from ledger.state.proof import EMPTY

LEVELS_MIN = 4
LEVELS_MAX = 24
KEYS_PER_BUCKET_MIN = 4  # on average, when the levels are chosen


def choose_levels(keys: int) -> int:
    """How many levels in RAM suit a tree of `keys` leaves: 2 to 4 leaves a bucket."""
    wanted = (max(keys, 1) - 1) // KEYS_PER_BUCKET_MIN
    return min(max(wanted.bit_length(), LEVELS_MIN), LEVELS_MAX)


class Top:
    """Heap of hashes and list of buckets; mutable, and trusted to be consistent."""

    __slots__ = ("_load", "buckets", "heap", "keys", "levels")

    def __init__(
        self,
        *,
        levels: int,
        heap: bytearray,
        buckets: list[bytes | None],
        keys: int,
        load: Callable[[int, int], bytes],
    ) -> None:
        """`keys` is the number of leaves at the beginning (nobody keeps it up to date here);

        `load(levels, number)` reads a bucket that is None in the list."""
        self.levels = levels
        self.heap = heap
        self.buckets = buckets
        self.keys = keys
        self._load = load

    @property
    def root(self) -> bytes:
        return bytes(self.heap[32:64])

    def node(self, number: int) -> bytes:
        """The hash of node `number`."""
        return bytes(self.heap[32 * number : 32 * number + 32])

    def bucket(self, number: int) -> bytes:
        """Bucket `number`, read from the store if it is not in RAM."""
        bucket = self.buckets[number]
        if bucket is None:
            bucket = self.buckets[number] = self._load(self.levels, number)
        return bucket

    def update(self, nodes: dict[int, bytes], buckets: dict[int, bytes]) -> None:
        """Take over changed nodes and buckets."""
        heap = self.heap
        for number, value in nodes.items():
            heap[32 * number : 32 * number + 32] = value
        for number, bucket in buckets.items():
            self.buckets[number] = bucket


def build_top(
    rows: Iterable[tuple[bytes, bytes]], *, levels: int, load: Callable[[int, int], bytes]
) -> Top:
    """The RAM of a tree from all its (tree key, value hash), ascending by key."""
    buckets: list[bytes | None] = []
    hashes: list[bytes] = []
    for bucket in read_buckets(rows, levels):
        buckets.append(bucket)
        hashes.append(fold(bucket, levels))
    singles = bytearray(len(bucket or b"") == 64 for bucket in buckets)
    keys = sum(len(bucket or b"") for bucket in buckets) // 64
    heap = build_heap(hashes, singles)
    return Top(levels=levels, heap=heap, buckets=buckets, keys=keys, load=load)


def read_buckets(rows: Iterable[tuple[bytes, bytes]], levels: int) -> Iterator[bytes]:
    """All 2^levels buckets in order, from (tree key, value hash) ascending by key."""
    shift = 32 - levels
    number = 0
    parts: list[bytes] = []
    for key, value_hash in rows:
        at = int.from_bytes(key[:4], "big") >> shift
        if at != number:
            yield b"".join(parts)
            parts.clear()
            yield from repeat(b"", at - number - 1)
            number = at
        parts += (key, sha256(b"\0" + key + value_hash).digest())
    yield b"".join(parts)
    yield from repeat(b"", (1 << levels) - number - 1)


def build_heap(hashes: list[bytes], singles: bytearray) -> bytearray:
    """The heap over the bucket hashes; `singles[b]` is 1 if bucket b has exactly one leaf."""
    levels = [hashes]
    while len(hashes) > 1:
        above: list[bytes] = []
        single_above = bytearray(len(hashes) // 2)
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        for at, (left, right) in enumerate(pairs):
            if left == EMPTY or right == EMPTY:
                if left == right:
                    above.append(EMPTY)
                    continue
                if singles[2 * at] or singles[2 * at + 1]:
                    above.append(left if right == EMPTY else right)
                    single_above[at] = 1
                    continue
            above.append(sha256(b"\1" + left + right).digest())
        hashes, singles = above, single_above
        levels.append(hashes)
    return bytearray().join(chain((EMPTY,), *reversed(levels)))


def bucket_of_rows(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """One bucket from its (tree key, value hash), ascending by key."""
    return b"".join([key + leaf_hash(key, value_hash) for key, value_hash in rows])
