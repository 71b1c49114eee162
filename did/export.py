"""All operations of all DIDs, in the order in which they were executed, for mirrors and indexes.

A line is {cursor, did, seq, versionId, height, time, operation}: `operation` is the JSON object
that was signed; its JCS bytes are the operation's. `cursor` is `<height>-<n>`, the n-th operation
of that block; lines before a cursor never change. Which operations a recovery has nullified
follows from the recovery (`did.verify_history`). A line proves nothing by itself but its
signatures; what a DID is now or was then, `did_resolve` proves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from did.operation import compute_version_id
from did.oplog import LogEntry
from did.syntax import encode_did
from did.version import format_time
from ledger.errors import InvalidInputError

EXPORT_MAX = 1000
ENTRY_PREFIX = b"d/o"
INDEX_MAX = 999_999_999
"""Above that of any operation in a block."""
_CURSOR = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,8})")

Cursor = tuple[int, int]
"""(height, index among the operations of its block)."""


def parse_cursor(text: str) -> Cursor:
    """Raises InvalidInputError."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidInputError(
            "cursor is malformed", expected="<height>-<n>, as a line has it", got=text[:40]
        )
    return int(match[1]), int(match[2])


def find_entries(
    height: int, keys: Iterable[bytes], after: Cursor | None = None
) -> Iterator[tuple[Cursor, bytes]]:
    """(cursor, key of the log entry) of each operation of one block that comes after a cursor.
    `keys` are those of all side rows that the block wrote."""
    entries = (key for key in keys if key.startswith(ENTRY_PREFIX))
    for index, key in enumerate(entries):
        if after is None or (height, index) > after:
            yield (height, index), key


def describe_entry(cursor: Cursor, key: bytes, row: bytes) -> dict[str, Any]:
    """The line of the log entry at `key`. What executed is canonical, so it is not judged again."""
    entry = LogEntry.decode(row)
    form = json.loads(entry.operation)
    return {
        "cursor": f"{cursor[0]}-{cursor[1]}",
        "did": encode_did(key[len(ENTRY_PREFIX) : len(ENTRY_PREFIX) + 32]),
        "seq": entry.seq,
        "versionId": compute_version_id(form),
        "height": entry.height,
        "time": format_time(entry.time_ms),
        "operation": form,
    }
