"""Anchors: a batch of leaves becomes one entry of the global log. Message type `audit/anchor`.

    body   = ["audit-anchor/1", stream bin32, seq, count, batch_root bin32]
    record = ["audit-anchor/1", stream bin32, submitter bin32, seq, count, batch_root bin32,
              height, time_ms]

The submitter is the tx's payer and must be listed in the stream. `seq` counts per (stream,
submitter) from 0 without a gap. The same seq with the same count and root again is a success that
changes nothing, so that a sender may repeat itself; with another root it fails as
`audit/equivocation`, for ever: each anchor keeps a state row, which also proves to anyone that
(stream, submitter, seq) is this entry of the log and no other.

The record is the log entry. It carries the height and block time of its execution, so that a
receipt that is issued again under a later header still shows when the leaf was anchored.

State rows:
    `audit-anchor` | stream submitter seq u64 : [leaf_index, count, batch_root]
    `audit-cursor` | stream submitter         : next seq u64
    `audit-usage`  | stream                   : [UTC day, leaves that day, leaves, anchors]
"""

from __future__ import annotations

from dataclasses import dataclass

from audit.leaf import STREAM_BYTES, encode_stream_text
from audit.rows import INDEX_ANCHOR, u64
from audit.stream import Rows, StreamRecord, read_stream
from ledger import codec
from ledger.errors import InvalidInputError
from ledger.execution import Event, ExecutionContext, TxFailure
from ledger.state import state_key

MESSAGE_TYPE = "audit/anchor"
ANCHOR_TAG = "audit-anchor/1"
ANCHOR_BYTES_MAX = 256
BATCH_LEAVES_MAX = 1024
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The message body: batch `seq` of this submitter has `count` leaves under `batch_root`."""

    stream: bytes
    seq: int
    count: int
    batch_root: bytes

    @classmethod
    def decode(cls, data: bytes) -> Anchor:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=ANCHOR_BYTES_MAX), 5, "anchor")
        _read_tag(v[0])
        return cls(
            stream=codec.read_bytes(v[1], "anchor stream", length=STREAM_BYTES),
            seq=codec.read_int(v[2], "anchor seq"),
            count=_read_count(v[3]),
            batch_root=codec.read_bytes(v[4], "batch root", length=32),
        )

    def encode(self) -> bytes:
        return codec.encode([ANCHOR_TAG, self.stream, self.seq, self.count, self.batch_root])


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRecord:
    """A log entry; `time_ms` is the block time of `height`."""

    stream: bytes
    submitter: bytes
    seq: int
    count: int
    batch_root: bytes
    height: int
    time_ms: int

    @classmethod
    def decode(cls, data: bytes) -> AnchorRecord:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=ANCHOR_BYTES_MAX), 8, "anchor record")
        _read_tag(v[0])
        return cls(
            stream=codec.read_bytes(v[1], "anchor stream", length=STREAM_BYTES),
            submitter=codec.read_bytes(v[2], "anchor submitter", length=32),
            seq=codec.read_int(v[3], "anchor seq"),
            count=_read_count(v[4]),
            batch_root=codec.read_bytes(v[5], "batch root", length=32),
            height=codec.read_int(v[6], "anchor height"),
            time_ms=codec.read_int(v[7], "anchor time"),
        )

    def encode(self) -> bytes:
        return codec.encode(
            [
                ANCHOR_TAG,
                self.stream,
                self.submitter,
                self.seq,
                self.count,
                self.batch_root,
                self.height,
                self.time_ms,
            ]
        )


def _read_tag(value: object) -> None:
    if value != ANCHOR_TAG:
        raise InvalidInputError("anchor has another tag", expected=ANCHOR_TAG, got=repr(value)[:40])


def _read_count(value: object) -> int:
    count = codec.read_int(value, "anchor count", BATCH_LEAVES_MAX)
    if count == 0:
        raise InvalidInputError("anchor has no leaves", expected=f"1..{BATCH_LEAVES_MAX}")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorPlace:
    """Where an anchor is in the log, and what it anchored."""

    leaf_index: int
    count: int
    batch_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamUsage:
    """What a stream has used: `day` counts UTC days since 1970."""

    day: int = 0
    leaves_today: int = 0
    leaves_total: int = 0
    anchors_total: int = 0


def anchor_key(stream: bytes, submitter: bytes, seq: int) -> bytes:
    """State row of one anchor."""
    return state_key("audit-anchor", stream + submitter + u64(seq))


def cursor_key(stream: bytes, submitter: bytes) -> bytes:
    """State row of a submitter's next seq."""
    return state_key("audit-cursor", stream + submitter)


def usage_key(stream: bytes) -> bytes:
    """State row of a stream's usage."""
    return state_key("audit-usage", stream)


def read_anchor_place(rows: Rows, stream: bytes, submitter: bytes, seq: int) -> AnchorPlace | None:
    """Where (stream, submitter, seq) was anchored, or None."""
    data = rows.get(anchor_key(stream, submitter, seq))
    if data is None:
        return None
    v = codec.read_array(codec.decode(data, bytes_max=ANCHOR_BYTES_MAX), 3, "anchor place")
    return AnchorPlace(
        leaf_index=codec.read_int(v[0], "log index"),
        count=_read_count(v[1]),
        batch_root=codec.read_bytes(v[2], "batch root", length=32),
    )


def read_next_seq(rows: Rows, stream: bytes, submitter: bytes) -> int:
    """The seq that the submitter's next anchor in the stream must have."""
    data = rows.get(cursor_key(stream, submitter))
    return 0 if data is None else int.from_bytes(data, "big")


def read_usage(rows: Rows, stream: bytes) -> StreamUsage:
    """What the stream has used so far."""
    data = rows.get(usage_key(stream))
    if data is None:
        return StreamUsage()
    v = codec.read_array(codec.decode(data, bytes_max=ANCHOR_BYTES_MAX), 4, "stream usage")
    day, today, leaves, anchors = (codec.read_int(item, "stream usage") for item in v)
    return StreamUsage(day=day, leaves_today=today, leaves_total=leaves, anchors_total=anchors)


def verify_admission(rows: Rows, stream: bytes, submitter: bytes, count: int, time_ms: int) -> None:
    """Judge at the door, before leaves are accepted, what execution would refuse.

    Raises InvalidInputError; `retry` is set if only today's quota is used up.
    """
    record = read_stream(rows, stream)
    if record is None:
        raise InvalidInputError("no such stream", got=encode_stream_text(stream))
    if submitter not in record.submitters:
        raise InvalidInputError(
            "this node may not anchor in the stream; add its anchor account as a submitter",
            got=submitter.hex(),
        )
    left = record.quota - _leaves_on_day(read_usage(rows, stream), time_ms)
    if count > left:
        raise InvalidInputError(
            "the stream's quota for today is used up",
            expected=f"at most {max(0, left)} leaves",
            got=str(count),
            retry=count <= record.quota,
        )


def _leaves_on_day(usage: StreamUsage, time_ms: int) -> int:
    return usage.leaves_today if usage.day == time_ms // DAY_MS else 0


class AnchorHandler:
    """`TxHandler` for `audit/anchor`.

    Failure codes: `audit/no-stream`, `audit/not-submitter`, `audit/equivocation`,
    `audit/seq-gap`, `audit/quota`.
    """

    type = MESSAGE_TYPE

    def weight_of(self, body: bytes) -> int:
        """Four rows and a log entry."""
        return 2

    def check(self, body: bytes) -> None:
        Anchor.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        anchor = Anchor.decode(body)
        record = read_stream(context.state, anchor.stream)
        if record is None:
            raise TxFailure(
                "audit/no-stream", "no such stream", got=encode_stream_text(anchor.stream)
            )
        if context.payer not in record.submitters:
            raise TxFailure(
                "audit/not-submitter",
                "payer is not a submitter of the stream",
                got=context.payer.hex(),
            )
        next_seq = read_next_seq(context.state, anchor.stream, context.payer)
        if anchor.seq < next_seq:
            _verify_repeated(context, anchor)
            return
        if anchor.seq > next_seq:
            raise TxFailure(
                "audit/seq-gap",
                "anchor leaves out a seq",
                expected=str(next_seq),
                got=str(anchor.seq),
            )
        _append(context, anchor, record)


def _verify_repeated(context: ExecutionContext, anchor: Anchor) -> None:
    place = read_anchor_place(context.state, anchor.stream, context.payer, anchor.seq)
    assert place is not None, "each seq below the cursor has its row"
    if (place.count, place.batch_root) != (anchor.count, anchor.batch_root):
        raise TxFailure(
            "audit/equivocation",
            "seq was anchored with another root",
            expected=f"{place.count} leaves under {place.batch_root.hex()}",
            got=f"{anchor.count} leaves under {anchor.batch_root.hex()}",
        )


def _append(context: ExecutionContext, anchor: Anchor, record: StreamRecord) -> None:
    usage = read_usage(context.state, anchor.stream)
    leaves_today = _leaves_on_day(usage, context.time_ms) + anchor.count
    if leaves_today > record.quota:
        raise TxFailure(
            "audit/quota",
            "the stream's quota for the day is used up",
            expected=f"at most {record.quota} leaves a day",
            got=str(leaves_today),
        )
    entry = AnchorRecord(
        stream=anchor.stream,
        submitter=context.payer,
        seq=anchor.seq,
        count=anchor.count,
        batch_root=anchor.batch_root,
        height=context.height,
        time_ms=context.time_ms,
    ).encode()
    leaf_index = context.log_append(entry)
    state = context.state
    state.put(
        anchor_key(anchor.stream, context.payer, anchor.seq),
        codec.encode([leaf_index, anchor.count, anchor.batch_root]),
    )
    state.put(cursor_key(anchor.stream, context.payer), u64(anchor.seq + 1))
    state.put(
        usage_key(anchor.stream),
        codec.encode(
            [
                context.time_ms // DAY_MS,
                leaves_today,
                usage.leaves_total + anchor.count,
                usage.anchors_total + 1,
            ]
        ),
    )
    context.side_put(INDEX_ANCHOR + anchor.stream + u64(leaf_index), b"")
    context.emit(
        Event(
            "audit.anchored",
            (
                ("count", str(anchor.count)),
                ("index", str(leaf_index)),
                ("seq", str(anchor.seq)),
                ("stream", encode_stream_text(anchor.stream)),
                ("submitter", context.payer.hex()),
            ),
        )
    )
