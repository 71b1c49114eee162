"""What the RPC answers about the audit log, as JSON values: hex hashes, integers as numbers.

Each proof names the height whose header has the root it leads to, so that a client checks it
against a header that it has verified.
"""

from __future__ import annotations

from typing import Any

from audit.anchor import AnchorRecord, read_usage
from audit.checkpoint import Checkpoint, compute_origin
from audit.intake import find_leaf
from audit.leaf import encode_stream_text
from audit.rows import INDEX_ANCHOR, INDEX_STREAM, number_at_end, u64
from audit.stream import Rows, read_stream
from audit.tree_store import LogTree
from ledger.errors import InvalidInputError
from ledger.merkle import compute_leaf_hash
from ledger.store import Reader
from ledger.views import ProvenView

PAGE_ROWS_MAX = 100


def status_json(store: Reader, leaf_hash: bytes) -> dict[str, Any]:
    """Where a leaf is on its way: accepted, batched, committed, receipted, rejected; `unknown`
    if this node never accepted it. Only committed and receipted mean anchored."""
    place = find_leaf(store, leaf_hash)
    found: dict[str, Any] = {"leaf_hash": leaf_hash.hex()}
    if place is None:
        return {**found, "state": "unknown", "is_anchored": False}
    state, height, reason = place.state(store)
    found |= {"state": state, "is_anchored": state in ("committed", "receipted")}
    if found["is_anchored"]:
        found["height"] = height
    if reason:
        found["reason"] = reason
    return found


def inclusion_json(
    view: ProvenView, tree: LogTree, leaf_index: int, tree_size: int | None = None
) -> dict[str, Any]:
    """Entry `leaf_index` and its RFC 6962 path in the tree of `tree_size` (default: the view's).
    Raises InvalidInputError for sizes beyond the log."""
    size = _known_size(view, tree_size)
    if not 0 <= leaf_index < size:
        raise InvalidInputError("no such log entry", expected=f"< {size}", got=str(leaf_index))
    entry = tree.entry(leaf_index)
    if entry is None:
        raise InvalidInputError("log entry is not kept here", got=str(leaf_index))
    return {
        "height": view.height,
        "tree_size": size,
        "root_hash": tree.root(size).hex(),
        "leaf_index": leaf_index,
        "leaf_hash": compute_leaf_hash(entry).hex(),
        "entry": entry.hex(),
        "anchor": anchor_json(AnchorRecord.decode(entry)),
        "path": [item.hex() for item in tree.inclusion_proof(leaf_index, size)],
    }


def consistency_json(
    view: ProvenView, tree: LogTree, old_size: int, new_size: int | None = None
) -> dict[str, Any]:
    """The RFC 6962 proof that the tree of `new_size` (default: the view's) extends that of
    `old_size`. Raises InvalidInputError for sizes beyond the log."""
    size = _known_size(view, new_size)
    if not 0 < old_size <= size:
        raise InvalidInputError("no such tree size", expected=f"1..{size}", got=str(old_size))
    return {
        "height": view.height,
        "old_size": old_size,
        "old_root_hash": tree.root(old_size).hex(),
        "new_size": size,
        "new_root_hash": tree.root(size).hex(),
        "path": [item.hex() for item in tree.consistency_proof(old_size, size)],
    }


def _known_size(view: ProvenView, size: int | None) -> int:
    newest = view.finality.header.audit_size
    if size is not None and not 0 <= size <= newest:
        raise InvalidInputError("no such tree size", expected=f"<= {newest}", got=str(size))
    return newest if size is None else size


def anchor_json(record: AnchorRecord) -> dict[str, Any]:
    """An anchor record for people."""
    return {
        "stream": encode_stream_text(record.stream),
        "submitter": record.submitter.hex(),
        "seq": record.seq,
        "count": record.count,
        "batch_root": record.batch_root.hex(),
        "height": record.height,
        "time_ms": record.time_ms,
    }


def stream_json(rows: Rows, stream: bytes) -> dict[str, Any]:
    """A stream's record and what it has used. Raises InvalidInputError if there is none."""
    record = read_stream(rows, stream)
    if record is None:
        raise InvalidInputError("no such stream", got=encode_stream_text(stream))
    usage = read_usage(rows, stream)
    return {
        "stream": encode_stream_text(stream),
        "owner": record.owner,
        "sequence": record.sequence,
        "submitters": [key.hex() for key in record.submitters],
        "quota_leaves_per_day": record.quota,
        "description_hash": record.description_hash.hex(),
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
        "leaves_total": usage.leaves_total,
        "anchors_total": usage.anchors_total,
    }


def list_streams(store: Reader, after: bytes = b"", limit: int = PAGE_ROWS_MAX) -> list[bytes]:
    """Stream ids in ascending order after `after` (the cursor: the last id of the page before)."""
    found: list[bytes] = []
    start = INDEX_STREAM + after + b"\0" if after else None
    for key, _ in store.iterate(prefix=INDEX_STREAM, start=start):
        if len(found) == min(limit, PAGE_ROWS_MAX):
            break
        found.append(key[len(INDEX_STREAM) :])
    return found


def list_anchors(
    store: Reader, tree: LogTree, stream: bytes, start: int = 0, limit: int = PAGE_ROWS_MAX
) -> list[dict[str, Any]]:
    """The stream's anchors from log index `start` on, each with its `leaf_index`."""
    found: list[dict[str, Any]] = []
    prefix = INDEX_ANCHOR + stream
    for key, _ in store.iterate(prefix=prefix, start=prefix + u64(start)):
        if len(found) == min(limit, PAGE_ROWS_MAX):
            break
        index = number_at_end(key)
        entry = tree.entry(index)
        if entry is not None:
            found.append({"leaf_index": index, **anchor_json(AnchorRecord.decode(entry))})
    return found


def checkpoint_of(view: ProvenView) -> Checkpoint:
    """The head of the log after the view's height."""
    header = view.finality.header
    return Checkpoint(
        origin=compute_origin(header.chain_id),
        tree_size=header.audit_size,
        root_hash=header.audit_root,
    )
