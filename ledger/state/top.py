"""The tree's RAM: the upper levels as a heap of hashes, and below them the buckets.

Node numbers count as in a heap: the root is 1, the children of i are 2i and 2i + 1; the nodes of
depth d are 2^d .. 2^(d+1) - 1. Bucket b lies under node 2^levels + b. `levels` is local tuning:
the root does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import chain, repeat
from struct import Struct

from ledger.state.bucket import fold, leaf_hash, node_hash, split_at
from ledger.state.proof import EMPTY

LEVELS_MIN = 4
LEVELS_MAX = 24
KEYS_PER_BUCKET_MIN = 4  # on average, when the levels are chosen
KEYS_PER_BUCKET_MAX = 8  # on average, before another level is grown
GROW_AT_ONCE_BUCKETS = 1024
GROW_LEAVES_PER_STEP = 2048  # about 3 ms
KEYS_IN_RAM_MAX = 2_000_000
EVICT_TO_PERCENT = 90

# A hash in and out of the heap; slices of a bytearray cost twice that.
HASH = Struct("32s")

Load = Callable[[int, int], bytes]


def choose_levels(keys: int) -> int:
    """How many levels in RAM suit a tree of `keys` leaves: 2 to 4 leaves a bucket."""
    wanted = (max(keys, 1) - 1) // KEYS_PER_BUCKET_MIN
    return min(max(wanted.bit_length(), LEVELS_MIN), LEVELS_MAX)


class Top:
    """Heap of hashes and list of buckets; mutable, and trusted to be consistent.

    A bucket that is None in the list is in the store alone. At most about `keys_in_ram_max`
    leaves stay in RAM: `evict` drops buckets not used since it last came by (a clock hand).
    """

    __slots__ = (
        "_hand",
        "_load",
        "_next",
        "_next_hashes",
        "_next_singles",
        "_used",
        "buckets",
        "heap",
        "keys_in_ram",
        "keys_in_ram_max",
        "levels",
        "singles",
    )

    def __init__(
        self,
        *,
        levels: int,
        heap: bytearray,
        buckets: list[bytes | None],
        singles: bytearray,
        load: Load,
        keys_in_ram_max: int = KEYS_IN_RAM_MAX,
    ) -> None:
        """`load(levels, number)` reads a bucket, as it is at the tip, from the store.

        `singles[b]` is 1 if bucket b has exactly one leaf: known without reading it.
        """
        self.levels = levels
        self.heap = heap
        self.buckets = buckets
        self.singles = singles
        self.keys_in_ram = sum([len(bucket) for bucket in buckets if bucket]) >> 6
        self._load = load
        self.keys_in_ram_max = keys_in_ram_max
        self._used = bytearray(len(buckets))
        self._hand = 0
        self._next: list[bytes | None] | None = None  # the buckets one level deeper, so far
        self._next_hashes = bytearray()
        self._next_singles = bytearray()

    @property
    def root(self) -> bytes:
        return bytes(self.heap[32:64])

    def node(self, number: int) -> bytes:
        """The hash of node `number`."""
        found: bytes = HASH.unpack_from(self.heap, 32 * number)[0]
        return found

    def bucket(self, number: int) -> bytes:
        """Bucket `number`, read from the store if it is not in RAM."""
        bucket = self.buckets[number]
        if bucket is None:
            bucket = self.buckets[number] = self._load(self.levels, number)
            self.keys_in_ram += len(bucket) >> 6
        self._used[number] = 1
        return bucket

    def update(self, nodes: dict[int, bytes], buckets: dict[int, bytes]) -> None:
        """Take over changed nodes and buckets; the store has them already."""
        heap, put = self.heap, HASH.pack_into
        for number, value in nodes.items():
            put(heap, 32 * number, value)
        for number, bucket in buckets.items():
            before = self.buckets[number]
            self.keys_in_ram += (len(bucket) - len(before or b"")) >> 6
            self.buckets[number] = bucket
            self.singles[number] = len(bucket) == 64
        if self._next is not None:
            done = len(self._next) >> 1
            for number, bucket in buckets.items():
                if number < done:
                    self._split(number, bucket)
        if self.keys_in_ram > self.keys_in_ram_max:
            self._evict()

    def _evict(self) -> None:
        """Drop buckets until few enough leaves are left."""
        goal = self.keys_in_ram_max * EVICT_TO_PERCENT // 100
        buckets, used = self.buckets, self._used
        hand, count = self._hand, len(buckets)
        for _ in range(2 * count):
            bucket = buckets[hand]
            if used[hand]:
                used[hand] = 0
            elif bucket is not None:
                self.keys_in_ram -= len(bucket) >> 6
                buckets[hand] = None
            hand = (hand + 1) % count
            if self.keys_in_ram <= goal:
                break
        self._hand = hand

    def grow(self, keys: int) -> None:
        """One more level, once `keys` leaves call for it: small trees at once, others by steps."""
        while self._next is not None or (
            keys > KEYS_PER_BUCKET_MAX << self.levels and self.levels < LEVELS_MAX
        ):
            count = len(self.buckets)
            if self._next is None:
                self._next, self._next_hashes = [], bytearray()
                self._next_singles = bytearray()
            at_once = count <= GROW_AT_ONCE_BUCKETS
            step = count if at_once else max(1, count * GROW_LEAVES_PER_STEP // max(keys, 1))
            done = len(self._next) >> 1
            for number in range(done, min(done + step, count)):
                self._next += (None, None)
                self._next_hashes += bytes(64)
                self._next_singles += bytes(2)
                bucket = self.buckets[number]
                self._split(number, self._load(self.levels, number) if bucket is None else bucket)
            if len(self._next) < 2 * count:
                return
            self._deepen(self._next)

    def _split(self, number: int, bucket: bytes) -> None:
        """Put the halves of bucket `number` into the next level."""
        assert self._next is not None
        middle = split_at(bucket, self.levels)
        left, right = bucket[:middle], bucket[middle:]
        depth = self.levels + 1
        self._next_hashes[64 * number : 64 * number + 64] = fold(left, depth) + fold(right, depth)
        self._next_singles[2 * number] = len(left) == 64
        self._next_singles[2 * number + 1] = len(right) == 64
        kept = self.buckets[number] is not None
        self._next[2 * number] = left if kept else None
        self._next[2 * number + 1] = right if kept else None

    def _deepen(self, buckets: list[bytes | None]) -> None:
        """The next level is whole: it becomes the lowest. Nodes keep their numbers."""
        self.heap += self._next_hashes
        self.buckets = buckets
        self.singles = self._next_singles
        self.levels += 1
        self.keys_in_ram = sum([len(bucket) for bucket in buckets if bucket]) >> 6
        self._used = bytearray(len(buckets))
        self._hand = 0
        self._next, self._next_hashes, self._next_singles = None, bytearray(), bytearray()


def build_top(
    rows: Iterable[tuple[bytes, bytes]], *, levels: int, load: Load, keys_in_ram_max: int
) -> tuple[Top, int]:
    """The RAM of a tree from all its (tree key, value hash), ascending; and how many they are."""
    buckets: list[bytes | None] = []
    hashes = bytearray()
    singles = bytearray()
    keys = 0
    for bucket in read_buckets(rows, levels):
        keys += len(bucket) >> 6
        buckets.append(bucket if keys <= keys_in_ram_max else None)
        hashes += fold(bucket, levels)
        singles.append(len(bucket) == 64)
    heap = build_heap(hashes, singles)
    top = Top(
        levels=levels,
        heap=heap,
        buckets=buckets,
        singles=singles,
        load=load,
        keys_in_ram_max=keys_in_ram_max,
    )
    return top, keys


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


def build_heap(hashes: bytearray, singles: bytearray) -> bytearray:
    """The heap over the bucket hashes, 32 bytes each; `singles[b]`: bucket b has just one leaf."""
    levels = [hashes]
    while len(hashes) > 32:
        above = bytearray()
        single_above = bytearray(len(singles) // 2)
        for at in range(len(hashes) // 64):
            pair = bytes(hashes[64 * at : 64 * at + 64])
            left, right = pair[:32], pair[32:]
            if left == EMPTY or right == EMPTY:
                single = bool(singles[2 * at] or singles[2 * at + 1])
                single_above[at] = single
                above += node_hash(left, right, is_leaf=single)
            else:
                above += sha256(b"\1" + pair).digest()
        hashes, singles = above, single_above
        levels.append(hashes)
    return bytearray().join(chain((EMPTY,), reversed(levels)))


def bucket_of_rows(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """One bucket from its (tree key, value hash), ascending by key."""
    return b"".join([key + leaf_hash(key, value_hash) for key, value_hash in rows])
