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
from collections.abc import Iterable
from typing import Any

from did.operation import encode_unsigned, encode_version_id
from did.oplog import LogEntry
from did.syntax import encode_did
from did.version import format_time
from ledger.codec import hash_tagged
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
    blocks: Iterable[tuple[int, list[bytes]]],
    after: Cursor | None = None,
    limit: int | None = None,
) -> list[tuple[Cursor, bytes]]:
    """All, or at most `limit`, (cursor, key of the log entry) after a cursor. `blocks` are (height,
    keys of the side rows it wrote), from the cursor's height on."""
    found: list[tuple[Cursor, bytes]] = []
    for height, keys in blocks:
        entries = (key for key in keys if key.startswith(ENTRY_PREFIX))
        for index, key in enumerate(entries):
            if after is None or (height, index) > after:
                found.append(((height, index), key))
                if len(found) == limit:
                    return found
    return found


def describe_entry(cursor: Cursor, key: bytes, row: bytes) -> dict[str, Any]:
    """The line of the log entry at `key`. What executed is canonical, so it is not judged again."""
    entry = LogEntry.decode(row)
    form = json.loads(entry.operation)
    return {
        "cursor": f"{cursor[0]}-{cursor[1]}",
        "did": encode_did(key[len(ENTRY_PREFIX) : len(ENTRY_PREFIX) + 32]),
        "seq": entry.seq,
        "versionId": encode_version_id(entry.seq, hash_tagged("did-op", encode_unsigned(form))),
        "height": entry.height,
        "time": format_time(entry.time_ms),
        "operation": form,
    }
