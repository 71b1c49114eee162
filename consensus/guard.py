"""The sign guard: what this validator signed, so that it never signs against it (rule 3).

Pure part: the bytes of the guard file and the window of records. `node/guard.py` does the I/O.

The file is a sequence of 64-byte slots, so that a slot never crosses a disk sector:

    header  magic 16 | binding 32 = H("guard", [chain id, public key]) | checksum 16
    record  kind u8 | height u64 | view u64 | block hash 32 (zeros if none) | checksum 15

Integers are big-endian. A record's checksum is the first 15 bytes of sha256("zynk/guard-record/1"
0 || last 16 bytes of the slot before || the record's first 49 bytes), the header's is that of its
first 48 bytes. So each slot vouches for all before it, and a torn, changed, swapped or missing
slot is seen (a cut at a slot boundary is not: what was synced is trusted to stay).
Kinds 1..4 are those of `StatementKind`; kind 5 sets the floor to its (height, view).

The window is keyed by (height, view) and holds every record above the floor; at or below the
floor nothing is ever signed. It is not a watermark: rule 14 lets a validator finalize a view below
its current one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from consensus.statement import Statement, StatementKind, is_conflict
from ledger import codec
from ledger.errors import InvalidInputError, UsageError

SLOT_BYTES = 64
MAGIC = b"zynk-guard/1\0\0\0\0"
FLOOR_KIND = 5
VIEW_END = 2**64 - 1
"""A view above every view: a floor of (H, VIEW_END) shuts the whole of height H."""

GuardRecord = Statement
Floor = tuple[int, int]


class GuardUnusableError(UsageError):
    """There is no guard to vote under: missing, torn, foreign, or in use. The node may follow the
    chain, but must not vote; the message says what to do. `is_lost`: nothing that it held can be
    read any more, so the key votes again only under a new guard with a floor."""

    def __init__(self, message: str, *, is_lost: bool = False) -> None:
        super().__init__(message)
        self.is_lost = is_lost


def encode_header(chain_id: str, public_key: bytes) -> bytes:
    """The first slot of a guard file."""
    binding = codec.hash_tagged("guard", codec.encode([chain_id, public_key]))
    front = MAGIC + binding
    return front + codec.hash_tagged("guard-header", front)[:16]


def encode_record(previous_slot: bytes, record: GuardRecord) -> bytes:
    """The slot of `record` after `previous_slot`."""
    return _encode_slot(
        previous_slot, int(record.kind), record.height, record.view, record.block_hash
    )


def encode_floor(previous_slot: bytes, floor: Floor) -> bytes:
    """The slot that raises the floor to (height, view)."""
    return _encode_slot(previous_slot, FLOOR_KIND, floor[0], floor[1], b"")


def _encode_slot(previous: bytes, kind: int, height: int, view: int, block_hash: bytes) -> bytes:
    front = (
        bytes([kind])
        + height.to_bytes(8, "big")
        + view.to_bytes(8, "big")
        + block_hash.ljust(codec.HASH_BYTES, b"\0")
    )
    return front + codec.hash_tagged("guard-record", previous[48:] + front)[:15]


class GuardWindow:
    """The records above the floor."""

    def __init__(self) -> None:
        self.floor: Floor = (0, 0)
        self._records: dict[tuple[int, int], list[GuardRecord]] = {}

    def check(self, records: Sequence[GuardRecord]) -> list[GuardRecord]:
        """Those of `records` that are new.

        Raises UsageError if one contradicts what was signed, or another of them, or is at or
        below the floor. The window is unchanged.
        """
        fresh: list[GuardRecord] = []
        for record in records:
            place = (record.height, record.view)
            if place <= self.floor:
                raise UsageError(
                    "refused to sign at or below the sign guard's floor",
                    expected=f"above {self.floor}",
                    got=str(place),
                )
            before = [*self._records.get(place, ()), *(r for r in fresh if _place(r) == place)]
            if record in before:
                continue
            for known in before:
                if is_conflict(known, record) or _is_notarize_after_nullify(known, record):
                    raise UsageError(
                        "refused to sign against the sign guard",
                        expected=f"nothing against {known}",
                        got=str(record),
                    )
            fresh.append(record)
        return fresh

    def add(self, records: Iterable[GuardRecord]) -> None:
        """Enter records that `check` let through."""
        for record in records:
            self._records.setdefault(_place(record), []).append(record)

    def raise_floor(self, floor: Floor) -> None:
        """Shut all at or below `floor`; a lower one changes nothing."""
        self.floor = max(self.floor, floor)
        for place in [p for p in self._records if p <= self.floor]:
            del self._records[place]

    def records(self) -> list[GuardRecord]:
        """All records, by (height, view), each in the order of signing."""
        return [r for place in sorted(self._records) for r in self._records[place]]

    def records_at(self, height: int) -> tuple[GuardRecord, ...]:
        return tuple(r for r in self.records() if r.height == height)

    def highest(self) -> Floor:
        """The highest (height, view) ever signed, as far as known; (0, 0) if nothing was."""
        return max([self.floor, *self._records])


def _place(record: GuardRecord) -> tuple[int, int]:
    return (record.height, record.view)


def _is_notarize_after_nullify(known: GuardRecord, record: GuardRecord) -> bool:
    return known.kind is StatementKind.NULLIFY and record.kind is StatementKind.NOTARIZE


def decode_guard(data: bytes, chain_id: str, public_key: bytes) -> tuple[GuardWindow, bytes]:
    """Read a whole guard file: the window and the last slot (to append after).

    Raises InvalidInputError if any byte is missing, changed or too many, or if the file belongs
    to another chain or key.
    """
    header = encode_header(chain_id, public_key)
    if len(data) < SLOT_BYTES or len(data) % SLOT_BYTES:
        raise InvalidInputError(
            "sign guard is torn",
            expected=f"slots of {SLOT_BYTES} B",
            got=f"{len(data)} B",
        )
    if data[:SLOT_BYTES] != header:
        front = data[:48]
        if front[:16] == MAGIC and codec.hash_tagged("guard-header", front)[:16] == data[48:64]:
            raise InvalidInputError("sign guard belongs to another chain or key")
        raise InvalidInputError("sign guard is corrupt", got="a damaged header")
    window, last = GuardWindow(), header
    for start in range(SLOT_BYTES, len(data), SLOT_BYTES):
        slot = data[start : start + SLOT_BYTES]
        _read_slot(window, last, slot, start // SLOT_BYTES)
        last = slot
    return window, last


def _read_slot(window: GuardWindow, previous: bytes, slot: bytes, index: int) -> None:
    kind = slot[0]
    height, view = int.from_bytes(slot[1:9], "big"), int.from_bytes(slot[9:17], "big")
    is_hashless = kind in (StatementKind.NULLIFY, FLOOR_KIND)
    block_hash = b"" if is_hashless else slot[17:49]
    if not 1 <= kind <= FLOOR_KIND or slot != _encode_slot(
        previous, kind, height, view, block_hash
    ):
        raise InvalidInputError("sign guard is torn or corrupt", got=f"a damaged slot {index}")
    if kind == FLOOR_KIND:
        window.raise_floor((height, view))
        return
    record = GuardRecord(kind=StatementKind(kind), height=height, view=view, block_hash=block_hash)
    try:
        window.add(window.check([record]))
    except UsageError as error:
        raise InvalidInputError(
            "sign guard contradicts itself", got=f"slot {index}: {error}"
        ) from error
