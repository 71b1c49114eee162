"""Long answers, in slices: pages of one DID's operations, of all DIDs', and those of one height."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any

from did import resolver
from did.export import INDEX_MAX, Cursor, describe_entry, find_entries, parse_cursor
from ledger.chain import Chain
from ledger.errors import DamagedStoreError
from ledger.store import Reader
from ledger.views import ProvenView
from rpc.api import JsonObject

EXPORT_BYTES_MAX = 8 * 1024 * 1024
LINES_PER_SLICE = 64
"""Lines made before consensus has its turn; some 3 ms."""
HISTORY_SLICE_BYTES = 128 * 1024
"""Of base64url log entries: some 2 ms."""
BLOCKS_MAX = 20_000
"""Looked at for one page: most blocks may hold nothing of DIDs."""
BLOCKS_PER_SLICE = 500


async def history_json(
    view: ProvenView, did: str, cursor: int | None, limit: int
) -> dict[str, Any]:
    """`did.resolver.history`, in slices. Raises InvalidInputError."""
    page, items = resolver.begin_history(view, did, cursor, limit)
    slice_bytes = 0
    for item in items:
        page["operations"].append(item)
        slice_bytes += len(item["entry"])
        if slice_bytes >= HISTORY_SLICE_BYTES:
            slice_bytes = 0
            await asyncio.sleep(0)
    return page


async def export_json(chain: Chain, store: Reader, after: str | None, limit: int) -> JsonObject:
    """{operations, nextCursor}: at most `limit` lines after a cursor. A page may be short, or empty
    with a cursor to go on from. Raises InvalidInputError."""
    cursor = None if after is None else parse_cursor(after)
    found, looked_to = await _find(chain, cursor, limit + 1)
    lines: list[dict[str, object]] = []
    byte_count = 0
    for place, key in found[:limit]:
        row = _read(store, key)
        byte_count += len(row)
        if lines and byte_count > EXPORT_BYTES_MAX:
            break
        lines.append(describe_entry(place, key, row))
        if len(lines) % LINES_PER_SLICE == 0:
            await asyncio.sleep(0)
    next_cursor = lines[-1]["cursor"] if len(lines) < len(found) else None
    if next_cursor is None and looked_to is not None:
        next_cursor = f"{looked_to}-{INDEX_MAX}"
    return {"operations": lines, "nextCursor": next_cursor}


async def _find(
    chain: Chain, cursor: Cursor | None, limit: int
) -> tuple[list[tuple[Cursor, bytes]], int | None]:
    """At most `limit` entries after the cursor, and the height up to which was looked if there may
    be more above it."""
    found: list[tuple[Cursor, bytes]] = []
    blocks = chain.side_keys(cursor[0] if cursor else 1)
    for looked_at, block in enumerate(blocks, 1):
        found += islice(find_entries(*block, cursor), limit - len(found))
        if len(found) == limit:
            break
        if looked_at == BLOCKS_MAX:
            return found, block[0]
        if looked_at % BLOCKS_PER_SLICE == 0:
            await asyncio.sleep(0)
    return found, None


def operations_json(chain: Chain, store: Reader, height: int) -> Sequence[JsonObject]:
    """All lines of one final height."""
    blocks = takewhile(lambda block: block[0] == height, chain.side_keys(height))
    return [
        describe_entry(place, key, _read(store, key))
        for block in blocks
        for place, key in find_entries(*block)
    ]


def _read(store: Reader, key: bytes) -> bytes:
    row = store.get(key)
    if row is None:
        raise DamagedStoreError("a row that a block wrote is missing", got=key.hex())
    return row
