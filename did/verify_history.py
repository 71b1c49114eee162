"""Checking a DID's history, offline, against its record (which `did.verify.verify_proof` gives).

Each operation is proven by itself, by its place in the log under the record's root. Which ones are
nullified follows from all of them: a recovery nullifies whatever was alive after its `prev`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from did import strict_json
from did.multikey import decode_base64url
from did.operation import Operation, OperationType, decode_operation
from did.oplog import ENTRY_BYTES_MAX, LogEntry, hash_entry
from did.record import Record
from did.version import format_time
from ledger.errors import InvalidInputError, UsageError
from ledger.merkle import PATH_HASHES_MAX, verify_inclusion_proof

_ITEM_MEMBERS = frozenset(
    ("seq", "versionId", "type", "height", "time", "nullifiedBy", "entry", "path")
)


def verify_history(items: Sequence[dict[str, Any]], record: Record) -> list[LogEntry]:
    """Check a DID's whole history: `items` are the operations of all pages, seq 0 up to the
    record's. Returns the entries. Raises InvalidInputError, also for a wrong `nullifiedBy`."""
    if len(items) != record.seq + 1:
        raise InvalidInputError(
            "history is not whole", expected=f"{record.seq + 1} operations", got=str(len(items))
        )
    entries = [verify_history_operation(item, record) for item in items]
    if [entry.seq for entry in entries] != list(range(len(entries))):
        raise InvalidInputError("history is not in order of seq")
    operations = [decode_operation(entry.operation) for entry in entries]
    if operations[-1].hash != record.head:
        raise InvalidInputError("history does not end in the record's head")
    for item, nullified_by in zip(items, compute_nullified(operations), strict=True):
        if type(item["nullifiedBy"]) is not type(nullified_by) or (
            item["nullifiedBy"] != nullified_by
        ):
            raise InvalidInputError(
                "history flags the wrong operations as nullified",
                expected=f"{nullified_by} at seq {item['seq']}",
                got=repr(item["nullifiedBy"])[:20],
            )
    return entries


def compute_nullified(operations: Sequence[Operation]) -> list[int | None]:
    """For each operation of a whole history the seq of the recovery that nullified it, or None.
    Raises InvalidInputError if an operation follows none that is alive."""
    nullified_by: list[int | None] = [None] * len(operations)
    living: list[int] = []
    for at, operation in enumerate(operations):
        follows = next((i for i in reversed(living) if operations[i].hash == operation.prev), -1)
        if at > 0 and follows < 0:
            raise InvalidInputError("operation follows none that is alive", got=f"seq {at}")
        dropped = [i for i in living if i > follows] if at > 0 else []
        if dropped and operation.type is not OperationType.RECOVER:
            raise InvalidInputError("operation forks without being a recovery", got=f"seq {at}")
        for i in dropped:
            nullified_by[i] = at
        living = [*living[: len(living) - len(dropped)], at]
    return nullified_by


def verify_history_operation(item: object, record: Record) -> LogEntry:
    """Check one operation of a history page against the DID's trusted record. Returns the entry.

    `nullifiedBy` is not judged: it follows from what came later, so only `verify_history` can.
    Raises InvalidInputError."""
    if type(item) is not dict or item.keys() != _ITEM_MEMBERS:
        raise InvalidInputError(
            "history item is malformed", expected=", ".join(sorted(_ITEM_MEMBERS))
        )
    raw = decode_base64url(item["entry"], bytes_max=ENTRY_BYTES_MAX)
    path = item["path"]
    if type(path) is not list or len(path) > PATH_HASHES_MAX:
        raise InvalidInputError("log path is malformed")
    entry = LogEntry.decode(raw)
    verify_inclusion_proof(
        record.log_root,
        record.seq + 1,
        entry.seq,
        hash_entry(raw),
        [decode_base64url(h, bytes_max=32) for h in path],
    )
    operation = decode_operation(entry.operation)
    expected = {
        **item,
        "seq": entry.seq,
        "versionId": operation.version_id,
        "type": operation.type.value,
        "height": entry.height,
        "time": format_time(entry.time_ms),
    }
    if operation.did != record.did or _differs(item, expected):
        raise InvalidInputError("history item says something that its entry does not")
    return entry


def _differs(item: dict[str, Any], expected: dict[str, Any]) -> bool:
    try:
        return strict_json.encode(item) != strict_json.encode(expected)
    except UsageError as error:
        raise InvalidInputError("history item has no canonical form") from error
