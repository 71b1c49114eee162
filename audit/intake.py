"""The front of the pipeline: requests in, durable leaf groups out.

A request is up to 1,000 leaves of one stream under a request id that its client chose. Its leaves
that the node does not have yet become a leaf group; one that it has keeps its place. So a leaf is
anchored once however often it is sent, and the answer to a request, the hashes of its leaves, is
the same each time. The same request id with other leaves is refused. A request that brings no leaf
that is new leaves no trace: nobody can fill the disk with what is there already.

`plan` judges a request and gives the rows that accept it; it writes nothing. The pipeline writes
the rows of many requests with one sync, and only then are they accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.anchor import BATCH_LEAVES_MAX
from audit.batch import BatchState, encode_group, find_group_batch, read_batch
from audit.leaf import STREAM_BYTES, Leaf
from audit.rows import GROUP, LEAF, OUTSTANDING, REQUEST, number_at_end, u16, u64
from ledger.errors import InvalidInputError, ZynkError
from ledger.merkle import compute_leaf_hash
from ledger.store import Batch as WriteBatch
from ledger.store import Reader

REQUEST_LEAVES_MAX = 1000
REQUEST_ID_BYTES_MAX = 64
GROUPS_OUTSTANDING_MAX = 4096

assert REQUEST_LEAVES_MAX <= BATCH_LEAVES_MAX, "a group fits a batch"


class BackPressureError(ZynkError):
    """Too many leaf groups wait for their receipt. Nothing was accepted; the same call can
    succeed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`leaves` are canonical leaf bytes (`audit.leaf`), all of `stream`; `request_id` is 1 to 64
    bytes that name the request within the stream."""

    stream: bytes
    request_id: bytes
    leaves: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer: the leaf hashes in the request's order. They name the leaves from now on."""

    request_id: bytes
    leaf_hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A leaf group that waits for its batch."""

    number: int
    stream: bytes
    count: int
    accepted_ms: int


class Intake:
    """Plans the acceptance of requests against the store and against each other."""

    def __init__(self, store: Reader, next_group: int, free: int) -> None:
        """`free` is how many more groups may be outstanding."""
        self._store = store
        self._next_group = next_group
        self._free = free
        self._planned: dict[bytes, bytes] = {}  # rows of this plan that later requests must see
        self.groups: list[Group] = []
        self.rows = WriteBatch()

    def plan(self, request: Request, now_ms: int) -> Accepted:
        """Judge `request`, and add what accepts it to `rows` and `groups`.

        Raises InvalidInputError for a malformed request, BackPressureError if it would need a
        group more than are free. Then `rows` and `groups` are unchanged.
        """
        hashes = _hash_leaves(request)
        digest = hashlib.sha256(b"".join(hashes)).digest()
        key = REQUEST + hashlib.sha256(request.stream + request.request_id).digest()
        known = self._get(key)
        if known is not None:
            if known[8:] != digest:
                raise InvalidInputError(
                    "request id was used for other leaves", got=request.request_id.hex()
                )
            return Accepted(request_id=request.request_id, leaf_hashes=hashes)
        new: dict[bytes, bytes] = {}
        for leaf_hash, leaf in zip(hashes, request.leaves, strict=True):
            if leaf_hash not in new and not self._is_here(leaf_hash):
                new[leaf_hash] = leaf
        if new and self._free <= len(self.groups):
            raise BackPressureError(
                "too many leaf groups wait for their receipt",
                expected=f"at most {GROUPS_OUTSTANDING_MAX} outstanding",
                retry=True,
            )
        if new:
            self._add(key, u64(self._next_group) + digest)
            self._add_group(request.stream, new, now_ms)
        return Accepted(request_id=request.request_id, leaf_hashes=hashes)

    def _is_here(self, leaf_hash: bytes) -> bool:
        """True if the leaf was accepted; one that was rejected may come again."""
        if LEAF + leaf_hash in self._planned:
            return True
        place = find_leaf(self._store, leaf_hash)
        return place is not None and place.state(self._store)[0] != "rejected"

    def _add_group(self, stream: bytes, new: dict[bytes, bytes], now_ms: int) -> None:
        for key, value in group_rows(self._next_group, stream, now_ms, list(new.items())):
            self._add(key, value)
        self.groups.append(
            Group(number=self._next_group, stream=stream, count=len(new), accepted_ms=now_ms)
        )
        self._next_group += 1

    def _add(self, key: bytes, value: bytes) -> None:
        self._planned[key] = value
        self.rows.put(key, value)

    def _get(self, key: bytes) -> bytes | None:
        return self._planned.get(key) or self._store.get(key)


def _hash_leaves(request: Request) -> tuple[bytes, ...]:
    if not 1 <= len(request.leaves) <= REQUEST_LEAVES_MAX:
        raise InvalidInputError(
            "request has a wrong number of leaves",
            expected=f"1..{REQUEST_LEAVES_MAX}",
            got=str(len(request.leaves)),
        )
    if not 1 <= len(request.request_id) <= REQUEST_ID_BYTES_MAX:
        raise InvalidInputError(
            "request id has a wrong length", expected=f"1..{REQUEST_ID_BYTES_MAX} B"
        )
    if len(request.stream) != STREAM_BYTES:
        raise InvalidInputError("stream id has a wrong length", expected="32 B")
    for leaf in request.leaves:
        if Leaf.decode(leaf).stream != request.stream:
            raise InvalidInputError("leaf belongs to another stream", got=leaf.hex())
    return tuple(compute_leaf_hash(leaf) for leaf in request.leaves)


def group_rows(
    group: int, stream: bytes, accepted_ms: int, leaves: Sequence[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """The rows that make a leaf group; `leaves` are (hash, canonical bytes), in their order."""
    number = u64(group)
    for place, (leaf_hash, _) in enumerate(leaves):
        yield LEAF + leaf_hash, number + u16(place)
    yield GROUP + number, encode_group(stream, accepted_ms, [leaf for _, leaf in leaves])
    yield OUTSTANDING + number, b""


# --- where a leaf is ---


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafPlace:
    """A leaf that was accepted: `place` in its group; `batch` and `index` in it once batched."""

    group: int
    place: int
    batch: int | None
    index: int

    def state(self, store: Reader) -> tuple[str, int, str]:
        """(state word, height or 0, reason or "")."""
        if self.batch is None:
            return "accepted", 0, ""
        batch = read_batch(store, self.batch)
        return BatchState(batch.state).name.lower(), batch.height, batch.reason


def find_leaf(store: Reader, leaf_hash: bytes) -> LeafPlace | None:
    """Where the leaf with this hash is, or None if this node never accepted it."""
    row = store.get(LEAF + leaf_hash)
    if row is None:
        return None
    group, place = int.from_bytes(row[:8], "big"), int.from_bytes(row[8:], "big")
    found = find_group_batch(store, group)
    if found is None:
        return LeafPlace(group=group, place=place, batch=None, index=0)
    return LeafPlace(group=group, place=place, batch=found[0], index=found[1] + place)


def find_last_number(store: Reader, prefix: bytes) -> int:
    """The highest number among the rows `prefix | u64`; 0 if there is none."""
    for key, _ in store.iterate(prefix=prefix, reverse=True):
        return number_at_end(key)
    return 0
