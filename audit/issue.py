"""Issuing receipts: from the node's rows and a proven view of the chain.

`issue_receipts` runs after each final height: it makes the part that a committed batch's receipts
share, under the header of the view it is given, and hands it to the pipeline, which syncs it.
`build_receipt` puts the receipt of one leaf together: the stored one, the same for ever, or with
`fresh_from` another under the view's header, which leaves the first untouched.
"""

from __future__ import annotations

from audit.anchor import AnchorRecord, read_anchor_place
from audit.batch import Batch, BatchState, hash_batch_leaves, read_batch, read_batch_leaves
from audit.intake import LeafPlace, find_leaf
from audit.pipeline import Pipeline
from audit.receipt import assemble_receipt, encode_shared
from audit.rows import RECEIPT, u64
from audit.tree_store import LogTree
from ledger.errors import DurabilityError, InvalidInputError
from ledger.merkle import compute_inclusion_proof
from ledger.store import Reader
from ledger.views import ProvenView


def issue_receipts(
    pipeline: Pipeline, view: ProvenView, store: Reader, tree: LogTree, submitter: bytes
) -> int:
    """Make the receipts of every committed batch that the view's log holds; how many batches.

    `submitter` is the node's anchor account, 32 B; `tree` reads the same store.
    """
    rows = []
    for number in pipeline.receipts_due():
        batch = read_batch(store, number)
        if batch.height <= view.height:
            rows.append((number, build_shared(view, tree, batch, submitter)))
    if rows:
        pipeline.record_receipts(rows)
    return len(rows)


def build_shared(view: ProvenView, tree: LogTree, batch: Batch, submitter: bytes) -> bytes:
    """What the batch's receipts share, under the view's header (`audit.receipt`).

    Raises InvalidInputError if the view does not have the anchor yet, DurabilityError if store
    and state contradict each other.
    """
    assert batch.seq is not None, "a committed batch has the seq that was signed"
    place = read_anchor_place(view, batch.stream, submitter, batch.seq)
    size = view.finality.header.audit_size
    if place is None or place.leaf_index >= size:
        raise InvalidInputError("the batch is not in the log yet", retry=True)
    entry = tree.entry(place.leaf_index)
    if entry is None or AnchorRecord.decode(entry).batch_root != batch.root:
        raise DurabilityError("the log has another entry for the batch", got=str(place.leaf_index))
    path = tree.inclusion_proof(place.leaf_index, size)
    return encode_shared(entry, place.leaf_index, path, view.finality)


def build_receipt(
    view: ProvenView,
    store: Reader,
    leaf_hash: bytes,
    *,
    submitter: bytes = b"",
    fresh_from: LogTree | None = None,
) -> bytes:
    """The receipt of the leaf with this hash, wire bytes: as it was issued, or with the log tree
    `fresh_from` another one under the view's header.

    Raises InvalidInputError if the node never accepted the leaf, if it was rejected (with the
    reason), or, with `retry`, while it has no receipt yet.
    """
    place = find_leaf(store, leaf_hash)
    if place is None:
        raise InvalidInputError("this node has not accepted such a leaf", got=leaf_hash.hex())
    state, _, reason = place.state(store)
    if state == "rejected":
        raise InvalidInputError("the leaf was rejected", got=reason)
    if state != "receipted" or place.batch is None:
        raise InvalidInputError(
            "the leaf has no receipt yet", expected="receipted", got=state, retry=True
        )
    batch = read_batch(store, place.batch)
    if fresh_from is not None:
        shared = build_shared(view, fresh_from, batch, submitter)
    else:
        shared = read_shared(store, place.batch)
    return _assemble(store, batch, place, shared)


def read_shared(store: Reader, batch: int) -> bytes:
    """The stored shared part of a receipted batch."""
    shared = store.get(RECEIPT + u64(batch))
    if shared is None:
        raise DurabilityError("the store lacks a receipt", got=f"batch {batch}")
    return shared


def _assemble(store: Reader, batch: Batch, place: LeafPlace, shared: bytes) -> bytes:
    assert batch.state is BatchState.RECEIPTED, "callers have checked"
    hashes = hash_batch_leaves(store, batch)
    path = compute_inclusion_proof(hashes, place.index)
    return assemble_receipt(read_batch_leaves(store, batch)[place.index], place.index, path, shared)
