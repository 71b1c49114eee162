"""The audit part's rows in the store. Nobody else writes below `a/`.

Written with each height (the chain's, the same on every node):
    a/h | level u8 | tile u64      hash tile: 1 to 256 hashes of 32 B
    a/e | index u64                log entry (an anchor record)
    a/x/s | stream 32              empty: the stream exists
    a/x/o | sha256(did) 32 | stream 32    empty: the DID owns the stream
    a/x/a | stream 32 | index u64  empty: entry `index` of the log is an anchor of the stream

Written by the node's own pipeline (local, differs between nodes):
    a/p/g | group u64              leaf group: [stream, accepted_ms, [leaf, ...]]
    a/p/o | group u64              empty: the group has neither receipt nor rejection yet
    a/p/q | sha256(stream | request id) 32    request: group u64 | digest of its leaves 32
    a/p/l | leaf hash 32           where a leaf is: group u64 | place u16
    a/p/m | group u64              the group's batch: batch u64 | offset u16
    a/p/b | batch u64              batch (`audit.batch`)
    a/p/r | batch u64              the part of the receipts that all leaves of the batch share
    a/p/t                          the anchor tx in flight
    a/p/x | batch root 32          the batch that has it: batch u64
    a/p/n                          log index u64: this node's anchors before it are here

Of a reader that keeps the log by itself (`audit.log_copy`): a/m/f

Kept for other nodes (local; `audit.copies`): a/c/l, a/c/w

Integers are big-endian.
"""

from __future__ import annotations

TILE = b"a/h"
ENTRY = b"a/e"
INDEX_STREAM = b"a/x/s"
INDEX_OWNER = b"a/x/o"
INDEX_ANCHOR = b"a/x/a"

GROUP = b"a/p/g"
OUTSTANDING = b"a/p/o"
REQUEST = b"a/p/q"
LEAF = b"a/p/l"
GROUP_BATCH = b"a/p/m"
BATCH = b"a/p/b"
RECEIPT = b"a/p/r"
IN_FLIGHT = b"a/p/t"
BATCH_BY_ROOT = b"a/p/x"
FOUND_TO = b"a/p/n"

COPY_FRONTIER = b"a/m/f"

COPY = b"a/c/l"
COPY_WAITS = b"a/c/w"


def u64(number: int) -> bytes:
    """8 bytes, big-endian."""
    return number.to_bytes(8, "big")


def u16(number: int) -> bytes:
    """2 bytes, big-endian."""
    return number.to_bytes(2, "big")


def number_at_end(key: bytes) -> int:
    """The u64 that ends a row key."""
    return int.from_bytes(key[-8:], "big")
