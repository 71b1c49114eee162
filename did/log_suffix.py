"""The end of a DID's operation log, proven: all entries from one on, and the peaks before it.

    {"peaks": [base64url 32 B, ...], "entries": [base64url, ...]}

`peaks` are the roots of the perfect subtrees that hold what came before the first entry, largest
first; appending the entries to them gives the record's log root, so that nothing in between or
after can be left out. An empty log: the record alone decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from did.multikey import decode_base64url, encode_base64url
from did.operation import decode_operation
from did.oplog import (
    ENTRY_BYTES_MAX,
    LogEntry,
    append_leaf,
    compute_log_root,
    entry_key,
    hash_entry,
    node_key,
    nullified_key,
)
from did.record import Record
from did.resolution_error import ResolutionError
from did.resolution_options import VersionQuery
from did.version import LOG_BYTES_MAX, LOG_OPERATIONS_MAX, Logged
from ledger.errors import InvalidInputError, UsageError
from ledger.views import ProvenView


def find_suffix(view: ProvenView, record: Record, query: VersionQuery) -> list[bytes]:
    """The entries from the version that `query` asks for up to the head. The record has shown that
    it is an older one. Raises ResolutionError FEATURE_NOT_SUPPORTED if they are too many."""
    entries: list[bytes] = []
    byte_count = 0
    for seq in range(record.seq, -1, -1):
        row = _read_entry(view, record.did, seq)
        entries.append(row)
        byte_count += len(row)
        if len(entries) > LOG_OPERATIONS_MAX or byte_count > LOG_BYTES_MAX:
            raise ResolutionError(
                "FEATURE_NOT_SUPPORTED",
                f"more than {LOG_OPERATIONS_MAX} operations or {LOG_BYTES_MAX} bytes came after "
                "this version; did_history pages through them",
            )
        if _is_wanted(view, record, query, seq, row):
            break
    entries.reverse()
    return entries


def _is_wanted(view: ProvenView, record: Record, query: VersionQuery, seq: int, row: bytes) -> bool:
    """Whether the entry at `seq` is the first of the suffix. Going down, the first that is known,
    alive and old enough is the one in force."""
    if query.version is not None:
        return seq == query.version[0]
    entry = LogEntry.decode(row)
    if query.as_of_height is not None and entry.height > query.as_of_height:
        return False
    if query.time_s is not None and entry.time_ms // 1000 > query.time_s:
        return False
    return _nullified_by(view, record, query, seq) is None


def _nullified_by(view: ProvenView, record: Record, query: VersionQuery, seq: int) -> int | None:
    """The seq of the recovery that nullified an operation, if it is known to the query."""
    row = view.side_get(nullified_key(record.did, seq))
    by = record.seq + 1 if row is None else int.from_bytes(row, "big")
    if by > record.seq:  # by none, or by one that this view has not seen
        return None
    if query.as_of_height is not None:
        recovery = LogEntry.decode(_read_entry(view, record.did, by))
        if recovery.height > query.as_of_height:
            return None
    return by


def decode_deciding(
    view: ProvenView, record: Record, query: VersionQuery, entries: Sequence[bytes]
) -> list[Logged]:
    """Of a suffix that is our own, the operations that decide: the first, and what nullified it or
    followed it. `find_next` says of them what it says of all, for a fraction of the work."""
    first = LogEntry.decode(entries[0])
    chosen = [entries[0]]
    by = _nullified_by(view, record, query, first.seq)
    if by is not None:
        chosen.append(entries[by - first.seq])
    else:
        following = (
            row
            for seq, row in enumerate(entries[1:], first.seq + 1)
            if _nullified_by(view, record, query, seq) is None
        )
        chosen += [row for row in [next(following, None)] if row is not None]
    found = [LogEntry.decode(row) for row in chosen]
    return [Logged(entry=e, operation=decode_operation(e.operation)) for e in found]


def encode_suffix(view: ProvenView, record: Record, entries: Sequence[bytes]) -> dict[str, Any]:
    """The JSON form of a suffix that ends at the record's head."""
    size = record.seq + 1 - len(entries)
    peaks: list[bytes] = []
    start = 0
    if entries:
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                peaks.append(_read_peak(view, record.did, level, start >> level))
                start += 1 << level
    return {
        "peaks": [encode_base64url(peak) for peak in peaks],
        "entries": [encode_base64url(entry) for entry in entries],
    }


def verify_suffix(form: object, record: Record) -> list[Logged]:
    """Check a suffix against the DID's trusted record. Raises InvalidInputError."""
    if type(form) is not dict or form.keys() != {"peaks", "entries"}:
        raise InvalidInputError("log is malformed", expected="peaks and entries")
    shown, peaks = form["entries"], form["peaks"]
    if type(shown) is not list or len(shown) > min(LOG_OPERATIONS_MAX, record.seq + 1):
        raise InvalidInputError("log has too many entries", expected=f"1..{LOG_OPERATIONS_MAX}")
    first = record.seq + 1 - len(shown)
    if type(peaks) is not list or len(peaks) != (first.bit_count() if shown else 0):
        raise InvalidInputError("log has a wrong number of peaks")
    if not shown:
        return []
    tree = tuple(_read_hash(peak) for peak in peaks)
    log: list[Logged] = []
    for seq, text in enumerate(shown, first):
        raw = decode_base64url(text, bytes_max=ENTRY_BYTES_MAX)
        tree, _ = append_leaf(tree, seq, hash_entry(raw))
        entry = LogEntry.decode(raw)
        operation = decode_operation(entry.operation)
        if entry.seq != seq or operation.seq != seq or operation.did != record.did:
            raise InvalidInputError("log entry is not the one at its place", got=f"seq {seq}")
        log.append(Logged(entry=entry, operation=operation))
    if compute_log_root(tree) != record.log_root:
        raise InvalidInputError("log does not lead to the record's log root")
    return log


def _read_hash(text: object) -> bytes:
    found = decode_base64url(text, bytes_max=32)
    if len(found) != 32:
        raise InvalidInputError("log peak has a wrong length", expected="32 B")
    return found


def _read_entry(view: ProvenView, did: bytes, seq: int) -> bytes:
    row = view.side_get(entry_key(did, seq))
    if row is None:
        raise UsageError("operation log lacks an entry", got=f"seq {seq}")
    return row


def _read_peak(view: ProvenView, did: bytes, level: int, index: int) -> bytes:
    if level == 0:
        return hash_entry(_read_entry(view, did, index))
    row = view.side_get(node_key(did, level, index))
    if row is None:
        raise UsageError("operation log lacks a node", got=f"level {level} index {index}")
    return row
