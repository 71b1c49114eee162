"""Batches: leaves of one stream that share an anchor, and the anchor tx in flight, as rows.

A batch is made of whole leaf groups of one stream, at most 1,024 leaves, in the order in which they
were accepted. Its root is the RFC 6962 root of its leaves.

    batch     = [stream bin32, [[group, count], ...], batch_root bin32, state, seq or nil, height,
                 reason str, attempts, is_alone]
    in flight = [tx bin, tx id bin32, valid_until, [[batch, seq], ...]]

    BATCHED -> COMMITTED (height: its anchor is final) -> RECEIPTED
    BATCHED -> REJECTED (reason: the code its anchor failed with)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from audit.anchor import BATCH_LEAVES_MAX, MESSAGE_TYPE, Anchor
from audit.leaf import LEAF_BYTES_MAX, STREAM_BYTES
from audit.rows import BATCH, BATCH_BY_ROOT, GROUP, GROUP_BATCH, u16, u64
from ledger import codec
from ledger.errors import DurabilityError, InvalidInputError
from ledger.merkle import compute_leaf_hash
from ledger.store import Reader, decode_row
from ledger.tx import MESSAGES_MAX, TX_BYTES_MAX, Message

GROUP_BYTES_MAX = BATCH_LEAVES_MAX * (LEAF_BYTES_MAX + 4)
BATCH_BYTES_MAX = 64 * 1024
REASON_MAX = 64
ATTEMPTS_MAX = 8
"""How often an anchor with a disputed seq is drafted anew before its leaves are rejected."""


class BatchState(IntEnum):
    """Row format; see the module docstring."""

    BATCHED = 1
    COMMITTED = 2
    RECEIPTED = 3
    REJECTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`groups` are (group, leaves in it); `seq` is set once an anchor was signed; `is_alone`: its
    anchor shares no tx, after one that was shared has failed."""

    stream: bytes
    groups: tuple[tuple[int, int], ...]
    root: bytes
    state: BatchState = BatchState.BATCHED
    seq: int | None = None
    height: int = 0
    reason: str = ""
    attempts: int = 0
    is_alone: bool = False

    @property
    def count(self) -> int:
        return sum(count for _, count in self.groups)

    @classmethod
    def decode(cls, data: bytes) -> Batch:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=BATCH_BYTES_MAX), 9, "batch")
        groups = []
        for item in codec.read_list(v[1], BATCH_LEAVES_MAX, "batch groups"):
            group, count = codec.read_array(item, 2, "batch group")
            groups.append(
                (codec.read_int(group, "group"), codec.read_int(count, "count", BATCH_LEAVES_MAX))
            )
        state = codec.read_int(v[3], "batch state", 4)
        if state == 0 or type(v[8]) is not bool:
            raise InvalidInputError("batch is malformed")
        return cls(
            stream=codec.read_bytes(v[0], "batch stream", length=STREAM_BYTES),
            groups=tuple(groups),
            root=codec.read_bytes(v[2], "batch root", length=32),
            state=BatchState(state),
            seq=None if v[4] is None else codec.read_int(v[4], "batch seq"),
            height=codec.read_int(v[5], "batch height"),
            reason=codec.read_str(v[6], "batch reason", REASON_MAX),
            attempts=codec.read_int(v[7], "batch attempts"),
            is_alone=v[8],
        )

    def encode(self) -> bytes:
        return codec.encode(
            [
                self.stream,
                self.groups,
                self.root,
                int(self.state),
                self.seq,
                self.height,
                self.reason,
                self.attempts,
                self.is_alone,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorDraft:
    """What the node is to sign: (batch, anchor body) pairs, for one tx, in this order."""

    anchors: tuple[tuple[int, Anchor], ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the tx to sign."""
        return tuple(Message(MESSAGE_TYPE, anchor.encode()) for _, anchor in self.anchors)


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The signed anchor tx that is waiting to become final, and the (batch, seq) it anchors."""

    tx: bytes
    tx_id: bytes
    valid_until: int
    anchors: tuple[tuple[int, int], ...]

    @classmethod
    def decode(cls, data: bytes) -> InFlight:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=2 * TX_BYTES_MAX), 4, "anchor tx")
        anchors = []
        for item in codec.read_list(v[3], MESSAGES_MAX, "anchors"):
            batch, seq = codec.read_array(item, 2, "anchor")
            anchors.append((codec.read_int(batch, "batch"), codec.read_int(seq, "seq")))
        return cls(
            tx=codec.read_bytes(v[0], "tx", maximum=TX_BYTES_MAX),
            tx_id=codec.read_bytes(v[1], "tx id", length=32),
            valid_until=codec.read_int(v[2], "valid_until"),
            anchors=tuple(anchors),
        )

    def encode(self) -> bytes:
        return codec.encode([self.tx, self.tx_id, self.valid_until, self.anchors])


# --- rows ---


def encode_group(stream: bytes, accepted_ms: int, leaves: Sequence[bytes]) -> bytes:
    """The row of a leaf group."""
    return codec.encode([stream, accepted_ms, leaves])


def read_group(store: Reader, group: int) -> tuple[bytes, int, list[bytes]]:
    """(stream, accepted_ms, leaves). Raises DurabilityError if the row is not there or damaged."""
    data = store.get(GROUP + u64(group))
    if data is None:
        raise DurabilityError("the store lacks a leaf group", got=str(group))
    return decode_row("leaf group", _decode_group, data)


def _decode_group(data: bytes) -> tuple[bytes, int, list[bytes]]:
    v = codec.read_array(codec.decode(data, bytes_max=GROUP_BYTES_MAX), 3, "leaf group")
    return (
        codec.read_bytes(v[0], "stream", length=STREAM_BYTES),
        codec.read_int(v[1], "accepted_ms"),
        [
            codec.read_bytes(leaf, "leaf", maximum=LEAF_BYTES_MAX)
            for leaf in codec.read_list(v[2], BATCH_LEAVES_MAX, "leaf group")
        ],
    )


def batch_rows(number: int, batch: Batch) -> Iterator[tuple[bytes, bytes]]:
    """The rows that make a batch of its groups."""
    yield BATCH + u64(number), batch.encode()
    yield BATCH_BY_ROOT + batch.root, u64(number)
    offset = 0
    for group, count in batch.groups:
        yield GROUP_BATCH + u64(group), u64(number) + u16(offset)
        offset += count


def read_batch(store: Reader, batch: int) -> Batch:
    """Raises DurabilityError if the row is not there or damaged."""
    data = store.get(BATCH + u64(batch))
    if data is None:
        raise DurabilityError("the store lacks a batch", got=str(batch))
    return decode_row("batch", Batch.decode, data)


def read_batch_leaves(store: Reader, batch: Batch) -> list[bytes]:
    """All leaves of a batch, in order."""
    return [leaf for group, _ in batch.groups for leaf in read_group(store, group)[2]]


def hash_batch_leaves(store: Reader, batch: Batch) -> list[bytes]:
    """All leaf hashes of a batch, in order."""
    return [compute_leaf_hash(leaf) for leaf in read_batch_leaves(store, batch)]


def find_group_batch(store: Reader, group: int) -> tuple[int, int] | None:
    """(batch, offset of the group's first leaf in it), or None while it is only accepted."""
    row = store.get(GROUP_BATCH + u64(group))
    return None if row is None else (int.from_bytes(row[:8], "big"), int.from_bytes(row[8:], "big"))
