"""Answers about DIDs that prove themselves (W3C DID Resolution; docs/protocol.md, "DID answers").

`resolve` returns {didDocument, didResolutionMetadata, didDocumentMetadata}. The proof, the one item
of the list `didDocumentMetadata.proof` or, for NOT_FOUND, `didResolutionMetadata.proof`, is

    {"type": "ZynkStateProof1",
     "record": base64url of the `did` row, or null where there is none,
     "stateProof": base64url, of that row's presence or absence under the header's state root,
     "header": base64url, "certificate": base64url,
     "handoffs": [{"header", "certificate", "nextValidators": base64url}, ...]}

and it is the whole chain: the record names the hash of the document's stored form, which follows
from what is shown (`did.document`), and everything else in the metadata follows from the record.
`did.verify` checks it. base64url is without padding.

The answer about an older version (`did.version`) has the type "ZynkHistoryProof1" and one member
more: "log" (`did.log_suffix`), the operation log from that version on.

These functions are pure reads of a `ProvenView`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from did import strict_json
from did.document import DOCUMENT_BYTES_MAX, to_resolved
from did.log_suffix import decode_deciding, encode_suffix, find_suffix
from did.multikey import encode_base64url
from did.operation import compute_version_id
from did.oplog import LogEntry, compute_log_path, entry_key, hash_entry, node_key, nullified_key
from did.record import Record, Status, document_key, record_key
from did.resolution_error import ResolutionError, error_object
from did.resolution_options import VersionQuery
from did.syntax import DID_PREFIX, decode_did, is_did_syntax
from did.version import (
    CONTENT_TYPE,
    check_within,
    find_next,
    format_time,
    is_head_asked,
    version_result,
)
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FinalityProof
from ledger.views import ProvenView

PROOF_TYPE = "ZynkStateProof1"
HISTORY_PROOF_TYPE = "ZynkHistoryProof1"
HISTORY_PAGE_MAX = 100


def resolve(
    view: ProvenView, did: str, query: VersionQuery | None = None, *, is_proven: bool = True
) -> dict[str, Any]:
    """The DID resolution result, JSON-ready. Never raises for any `did` or `query`; an unknown,
    malformed or foreign one gives an error object. `query` None: the newest version; only where it
    has a document it comes without its proof if `is_proven` is False."""
    malformed = find_malformed(did)
    if malformed is not None:
        return malformed
    key = record_key(decode_did(did))
    if query is None and not is_proven and (found := view.get(key)) is not None:
        active = Record.decode(found)
        if active.status is Status.ACTIVE:
            return head_result(view, active)
    if query is not None:
        try:
            check_within(query, height=view.height, time_ms=view.time_ms)
        except ResolutionError as error:
            return error_result(error.code, error.message)
    record_bytes, state_proof = view.prove(key)
    proof_object = _proof_object(view, record_bytes, state_proof)
    if record_bytes is None:
        return with_proof(not_found_result(did), proof_object)
    record = Record.decode(record_bytes)
    log: list[bytes] = []
    try:
        if query is None or is_head_asked(record, query):
            return with_proof(head_result(view, record), proof_object)
        log = find_suffix(view, record, query)
        shown = decode_deciding(view, record, query, log)
        result = version_result(record, query, shown[0], find_next(shown, query))
    except ResolutionError as error:
        result = error_result(error.code, error.message)
        if error.code != "NOT_FOUND":
            return result
    proof_object["type"] = HISTORY_PROOF_TYPE
    proof_object["log"] = encode_suffix(view, record, log)
    return with_proof(result, proof_object)


def head_result(view: ProvenView, record: Record) -> dict[str, Any]:
    """The newest version, without its proof."""
    document = None
    if record.status is Status.ACTIVE:
        document_bytes = view.get(document_key(record.did))
        if document_bytes is None:
            raise UsageError("state has a DID record without its document", got=record.did_text)
        stored = strict_json.decode(document_bytes, bytes_max=DOCUMENT_BYTES_MAX)
        document = to_resolved(record.did_text, stored)
    return {
        "didDocument": document,
        "didResolutionMetadata": {"contentType": CONTENT_TYPE},
        "didDocumentMetadata": compute_metadata(record),
    }


def with_proof(result: dict[str, Any], proof_object: dict[str, Any]) -> dict[str, Any]:
    """`result` with its proof where it belongs: with the metadata of what was found."""
    is_error = "error" in result["didResolutionMetadata"]
    holder = result["didResolutionMetadata" if is_error else "didDocumentMetadata"]
    holder["proof"] = [proof_object]  # DID Resolution has a set of proofs here
    return result


def find_malformed(did: str) -> dict[str, Any] | None:
    """The result for what is no DID of this method; None if it is one. It needs no proof."""
    try:
        require_did(did)
    except ResolutionError as error:
        return error_result(error.code, error.message)
    return None


def require_did(did: str) -> None:
    """Raises ResolutionError INVALID_DID or METHOD_NOT_SUPPORTED for what is no DID of this method,
    in the order of the DID resolution algorithm."""
    try:
        decode_did(did)
    except InvalidInputError as error:
        if is_did_syntax(did) and not did.startswith(DID_PREFIX):
            raise ResolutionError(
                "METHOD_NOT_SUPPORTED", "only did:zynk is resolved here"
            ) from error
        raise ResolutionError("INVALID_DID", str(error)) from error


def compute_metadata(record: Record) -> dict[str, Any]:
    """didDocumentMetadata but for its proof; follows from the record alone."""
    metadata: dict[str, Any] = {
        "created": format_time(record.created_ms),
        "versionId": record.version_id,
        "canonicalId": record.did_text,
    }
    if record.seq > 0:
        metadata["updated"] = format_time(record.updated_ms)
    if record.status is Status.DEACTIVATED:
        metadata["deactivated"] = True
    if record.dispute_until_ms:
        metadata["disputeUntil"] = format_time(record.dispute_until_ms)
    return metadata


def not_found_result(did: str) -> dict[str, Any]:
    """The NOT_FOUND result, without its proof."""
    return error_result("NOT_FOUND", f"no operation has created {did}")


def error_result(code: str, detail: str) -> dict[str, Any]:
    """A result whose error is the RFC 9457 object of DID Resolution error `code`."""
    return {
        "didDocument": None,
        "didResolutionMetadata": {"error": error_object(code, detail)},
        "didDocumentMetadata": {},
    }


def proof(view: ProvenView, did: str) -> dict[str, Any]:
    """{did, record (decoded, or null), proof}. Raises InvalidInputError for a malformed DID."""
    identifier = decode_did(did)
    record_bytes, state_proof = view.prove(record_key(identifier))
    record = None if record_bytes is None else Record.decode(record_bytes)
    return {
        "did": did,
        "record": None if record is None else describe_record(record),
        "proof": _proof_object(view, record_bytes, state_proof),
    }


def describe_record(record: Record) -> dict[str, Any]:
    """The record as JSON: hashes in hex, times in Unix ms."""
    return {
        "seq": record.seq,
        "versionId": record.version_id,
        "headBytesHash": record.head_bytes_hash.hex(),
        "docHash": record.doc_hash.hex(),
        "controlHash": record.control_hash.hex(),
        "status": record.status.name.lower(),
        "createdHeight": record.created_height,
        "createdMs": record.created_ms,
        "updatedHeight": record.updated_height,
        "updatedMs": record.updated_ms,
        "logRoot": record.log_root.hex(),
        "disputeUntilMs": record.dispute_until_ms,
    }


def history(
    view: ProvenView, did: str, cursor: int | None = None, limit: int = 20
) -> dict[str, Any]:
    """A page of a DID's operations, oldest first, beginning at seq `cursor` (None: 0).

    {did, operations: [{seq, versionId, type, height, time, nullifiedBy, entry, path}], nextCursor,
    proof}, where `nullifiedBy` and `nextCursor` are a seq or null. `entry` (base64url) is the log
    entry's bytes with the operation inside; `path` [base64url] is its RFC 6962 inclusion proof
    under the record's log root, in a tree of the record's seq + 1 leaves. An unknown DID has no
    operations and a proof of absence.

    Raises InvalidInputError for a malformed DID, cursor or limit.
    """
    page, items = begin_history(view, did, cursor, limit)
    page["operations"] += items
    return page


def begin_history(
    view: ProvenView, did: str, cursor: int | None, limit: int
) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """`history` without its `operations`, and those, each made when it is taken: a page of large
    ones is some 10 ms of work. They stay what they are if the chain moves on meanwhile."""
    identifier = decode_did(did)
    start = 0 if cursor is None else cursor
    if type(start) is not int or start < 0:
        raise InvalidInputError("cursor is malformed", expected="a seq", got=repr(cursor)[:40])
    if type(limit) is not int or not 1 <= limit <= HISTORY_PAGE_MAX:
        raise InvalidInputError("limit is out of range", expected=f"1..{HISTORY_PAGE_MAX}")
    record_bytes, state_proof = view.prove(record_key(identifier))
    size = 0 if record_bytes is None else Record.decode(record_bytes).seq + 1
    end = min(size, start + limit)
    page: dict[str, Any] = {
        "did": did,
        "operations": [],
        "nextCursor": end if start < end < size else None,
        "proof": _proof_object(view, record_bytes, state_proof),
    }
    return page, (_describe_entry(view, identifier, seq, size) for seq in range(start, end))


def _describe_entry(view: ProvenView, did: bytes, seq: int, size: int) -> dict[str, Any]:
    def read_entry(index: int) -> bytes:
        row = view.side_get(entry_key(did, index))
        if row is None:
            raise UsageError("operation log lacks an entry", got=f"seq {index}")
        return row

    def read_node(level: int, index: int) -> bytes:
        if level == 0:
            return hash_entry(read_entry(index))
        row = view.side_get(node_key(did, level, index))
        if row is None:
            raise UsageError("operation log lacks a node", got=f"level {level} index {index}")
        return row

    entry_bytes = read_entry(seq)
    entry = LogEntry.decode(entry_bytes)
    form = json.loads(entry.operation)
    nullified = view.side_get(nullified_key(did, seq))
    nullified_by = None if nullified is None else int.from_bytes(nullified, "big")
    if nullified_by is not None and nullified_by >= size:
        nullified_by = None  # by a recovery that this view has not seen
    return {
        "seq": seq,
        "versionId": compute_version_id(form),
        "type": form["type"],
        "height": entry.height,
        "time": format_time(entry.time_ms),
        "nullifiedBy": nullified_by,
        "entry": encode_base64url(entry_bytes),
        "path": [encode_base64url(h) for h in compute_log_path(size, seq, read_node)],
    }


def _proof_object(
    view: ProvenView, record_bytes: bytes | None, state_proof: bytes
) -> dict[str, Any]:
    return {
        "type": PROOF_TYPE,
        "record": None if record_bytes is None else encode_base64url(record_bytes),
        "stateProof": encode_base64url(state_proof),
        **encode_finality(view.finality),
    }


@lru_cache(maxsize=4)
def encode_finality(finality: FinalityProof) -> dict[str, Any]:
    """The part of a proof that all answers at one height share. Callers must not change it."""
    return {
        "header": encode_base64url(finality.header.encoded),
        "certificate": encode_base64url(finality.certificate.encode()),
        "handoffs": [
            {
                "header": encode_base64url(handoff.header.encoded),
                "certificate": encode_base64url(handoff.certificate.encode()),
                "nextValidators": encode_base64url(handoff.next_validators.encoded),
            }
            for handoff in finality.handoffs
        ],
    }
