"""The rows that state holds for a DID. Keys are `state_key(domain, 32-byte identifier)`.

`did`          the record, which is all that a resolver's answer has to prove:
               [1, identifier bin32, seq, head bin32, head_bytes_hash bin32, doc_hash bin32,
                control_hash bin32, status, created_height, created_ms, updated_height, updated_ms,
                log_root bin32, dispute_until_ms]
`did-doc`      the current document: JCS bytes of the stored form. Absent once deactivated.
`did-control`  what execution needs to judge the next operation:
               [1, key list, next bin32|nil, tier set index, [tier set, ...], [log peak bin32, ...],
                last_height, operations of that height, day,
                [operations of the day by authority 0..3], [dispute, ...]]
               key list = [[key bin32, ...], threshold]; tier set = [key list, ...]
               dispute = [op_hash bin32, prev bin32, seq, until_ms, authority, tier set index]

`status` is 0 active, 1 deactivated. `head` is the op hash, `head_bytes_hash` the sha256 of the
head's full bytes with signatures; `log_root` is the RFC 6962 root over all operations, nullified
ones included (`did.oplog`). `dispute_until_ms` is when the head becomes final: from that block time
on no tier can nullify it; 0 if none ever could. A dispute's tiers are those in force at `prev`, who
judge a fork from there; `until_ms` is the end of its window, fixed when it is executed, so that a
later change of the chain's parameter neither reopens nor cuts short what was promised.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from did.control import CONTROL_KEYS_MAX, TIERS_MAX, Control, KeyList
from did.operation import encode_version_id
from did.syntax import encode_did
from ledger import codec
from ledger.errors import InvalidInputError
from ledger.state import state_key

RECORD_VERSION = 1
RECORD_BYTES_MAX = 512
CONTROL_BYTES_MAX = 512 * 1024
DISPUTES_MAX = 512
LOG_PEAKS_MAX = 64
AUTHORITIES = TIERS_MAX + 1


class Status(IntEnum):
    """Of a DID; the numbers are wire format."""

    ACTIVE = 0
    DEACTIVATED = 1


def record_key(did: bytes) -> bytes:
    return state_key("did", did)


def document_key(did: bytes) -> bytes:
    return state_key("did-doc", did)


def control_key(did: bytes) -> bytes:
    return state_key("did-control", did)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """See the module docstring; heights and Unix milliseconds are those of the blocks."""

    did: bytes
    seq: int
    head: bytes
    head_bytes_hash: bytes
    doc_hash: bytes
    control_hash: bytes
    status: Status
    created_height: int
    created_ms: int
    updated_height: int
    updated_ms: int
    log_root: bytes
    dispute_until_ms: int

    @property
    def did_text(self) -> str:
        return encode_did(self.did)

    @property
    def version_id(self) -> str:
        return encode_version_id(self.seq, self.head)

    def encode(self) -> bytes:
        return codec.encode([RECORD_VERSION, *(getattr(self, name) for name in _RECORD_FIELDS)])

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Inverse of `encode`. Raises InvalidInputError."""
        version, *values = codec.read_array(
            codec.decode(data, bytes_max=RECORD_BYTES_MAX), len(_RECORD_FIELDS) + 1, "DID record"
        )
        if codec.read_int(version, "record version") != RECORD_VERSION:
            raise InvalidInputError("DID record has another version", got=str(version))
        read = dict(zip(_RECORD_FIELDS, values, strict=True))
        for name in _RECORD_FIELDS:
            if name in _RECORD_HASHES:
                codec.read_bytes(read[name], f"record {name}", length=32)
            else:
                codec.read_int(read[name], f"record {name}")
        read["status"] = Status(codec.read_int(read["status"], "record status", 1))
        return cls(**read)


_RECORD_FIELDS = tuple(f.name for f in fields(Record))
_RECORD_HASHES = ("did", "head", "head_bytes_hash", "doc_hash", "control_hash", "log_root")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """An operation that a recovery tier may nullify at block times before `until_ms`; `tiers` judge
    a fork from `prev`."""

    op_hash: bytes
    prev: bytes
    seq: int
    until_ms: int
    authority: int
    tiers: tuple[KeyList, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlState:
    """The `did-control` row; `last_height` is that of the head, `last_height_count` how many of the
    DID's operations it executed, `day` counts days of Unix time."""

    control: Control
    tiers: tuple[KeyList, ...]
    peaks: tuple[bytes, ...]
    last_height: int
    last_height_count: int
    day: int
    day_counts: tuple[int, ...]
    disputes: tuple[Dispute, ...]

    def encode(self) -> bytes:
        tier_sets: list[tuple[KeyList, ...]] = []
        current = _intern(self.tiers, tier_sets)
        disputes: list[codec.Value] = [
            [d.op_hash, d.prev, d.seq, d.until_ms, d.authority, _intern(d.tiers, tier_sets)]
            for d in self.disputes
        ]
        return codec.encode(
            [
                RECORD_VERSION,
                _key_list_value(self.control.current),
                self.control.next,
                current,
                [[_key_list_value(tier) for tier in tiers] for tiers in tier_sets],
                list(self.peaks),
                self.last_height,
                self.last_height_count,
                self.day,
                list(self.day_counts),
                disputes,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ControlState:
        """Inverse of `encode`. Raises InvalidInputError."""
        fields_ = codec.read_array(
            codec.decode(data, bytes_max=CONTROL_BYTES_MAX), 11, "DID control row"
        )
        version, current, commitment, tier_index, sets, peaks, *limits, disputes = fields_
        height, height_count, day, counts = limits
        if codec.read_int(version, "control row version") != RECORD_VERSION:
            raise InvalidInputError("DID control row has another version", got=str(version))
        if commitment is not None:
            codec.read_bytes(commitment, "next", length=32)
        tier_sets = [
            tuple(
                _read_key_list(tier) for tier in codec.read_list(tiers, TIERS_MAX, "recovery tiers")
            )
            for tiers in codec.read_list(sets, DISPUTES_MAX + 1, "tier sets")
        ]
        return cls(
            control=Control(current=_read_key_list(current), next=commitment),
            tiers=_read_tier_set(tier_index, tier_sets),
            peaks=tuple(
                codec.read_bytes(peak, "log peak", length=32)
                for peak in codec.read_list(peaks, LOG_PEAKS_MAX, "log peaks")
            ),
            last_height=codec.read_int(height, "last height"),
            last_height_count=codec.read_int(height_count, "operations of the last height"),
            day=codec.read_int(day, "day"),
            day_counts=tuple(
                codec.read_int(n, "day count")
                for n in codec.read_array(counts, AUTHORITIES, "day counts")
            ),
            disputes=tuple(
                _read_dispute(item, tier_sets)
                for item in codec.read_list(disputes, DISPUTES_MAX, "disputes")
            ),
        )


def _intern(tiers: tuple[KeyList, ...], tier_sets: list[tuple[KeyList, ...]]) -> int:
    """Index of `tiers` in the row's table, which is in order of first use."""
    if tiers not in tier_sets:
        tier_sets.append(tiers)
    return tier_sets.index(tiers)


def _key_list_value(key_list: KeyList) -> list[codec.Value]:
    return [list(key_list.keys), key_list.threshold]


def _read_key_list(value: object) -> KeyList:
    keys, threshold = codec.read_array(value, 2, "key list")
    return KeyList(
        keys=tuple(
            codec.read_bytes(key, "control key", length=32)
            for key in codec.read_list(keys, CONTROL_KEYS_MAX, "control keys")
        ),
        threshold=codec.read_int(threshold, "threshold", CONTROL_KEYS_MAX),
    )


def _read_tier_set(index: object, tier_sets: list[tuple[KeyList, ...]]) -> tuple[KeyList, ...]:
    return tier_sets[codec.read_int(index, "tier set index", len(tier_sets) - 1)]


def _read_dispute(value: object, tier_sets: list[tuple[KeyList, ...]]) -> Dispute:
    op_hash, prev, seq, until_ms, authority, tier_index = codec.read_array(value, 6, "dispute")
    return Dispute(
        op_hash=codec.read_bytes(op_hash, "dispute op hash", length=32),
        prev=codec.read_bytes(prev, "dispute prev", length=32),
        seq=codec.read_int(seq, "dispute seq"),
        until_ms=codec.read_int(until_ms, "dispute end"),
        authority=codec.read_int(authority, "dispute authority", TIERS_MAX),
        tiers=_read_tier_set(tier_index, tier_sets),
    )
