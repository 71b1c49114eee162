"""The issuer's side of credentials: the key in its DID's document, status lists and their anchors.

A proof's `created` is the time of the final block that shows the key in the DID's document. So the
answer about the DID that is kept beside a credential covers it, and it verifies offline from then
on. Beside a status list LIST there are:

    LIST.zanswer    the issuer's proven history, as of the block that the list was signed at
    LIST.zreceipt   the audit receipt of the list's bytes, which are its RFC 8785 form
    LIST.zstream    the proven answer that the receipt's stream is the issuer's
    LIST.taken      the entries given to credentials so far, as an encodedList
    LIST.lock       held by whoever changes the others
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.leaf import decode_stream_text, encode_leaves, hash_chunks
from audit.stream import StreamRecord, stream_key
from audit.verify import verify_receipt
from did import strict_json
from did.credential import complete_credential, list_credential, read_issuer
from did.data_integrity import (
    ASSERTION,
    DOCUMENT_BYTES_MAX,
    add_proof,
    decode_document,
    read_proof,
)
from did.multikey import encode_multikey
from did.status_list import (
    ENCODED_BYTES_MAX,
    LIST_BITS_MIN,
    REVOCATION,
    StatusEntry,
    decode_bits,
    encode_bits,
    is_set,
    read_bits,
    set_bit,
)
from did.verify import decode_proof_finality
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.merkle import compute_leaf_hash
from node.anchor_client import (
    BatchCaller,
    HashedFile,
    fetch_receipts,
    submit_files,
    wait_receipted,
)
from node.checkpoint import Trust, verify_row
from node.files import read_small, replace_file
from node.identity import Caller, DidLog, fetch_log

ANSWER_SUFFIX = ".zanswer"
TAKEN_SUFFIX = ".taken"
LOCK_SUFFIX = ".lock"
STREAM_SUFFIX = ".zstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A DID, a key that its document lists for assertions, and the answer that shows so as of a
    block at `time_ms`."""

    did: str
    method: str
    key: KeyPair
    time_ms: int
    answer: dict[str, Any]

    def sign(self, credential: Mapping[str, Any], suite: str) -> dict[str, Any]:
        """The credential with this issuer's proof. Raises InvalidInputError."""
        return add_proof(
            credential,
            suite=suite,
            verification_method=self.method,
            created_ms=self.time_ms,
            key=self.key,
        )


async def find_issuer(client: Caller, did: str, key: KeyPair, trust: Trust | None) -> Issuer:
    """Look the key up in the DID's current document. Raises UsageError if it is not listed there
    for assertions, InvalidInputError, RpcError."""
    log = await fetch_log(client, did, trust)
    return Issuer(
        did=did,
        method=did + _find_method(log, key),
        key=key,
        time_ms=decode_proof_finality(log.proof).header.time_ms,
        answer=log.to_answer(),
    )


def _find_method(log: DidLog, key: KeyPair) -> str:
    if log.is_deactivated:
        raise UsageError("the DID is deactivated and issues nothing more", got=log.did)
    document = log.current().document
    text = encode_multikey(key.public_key)
    listed = document.get(ASSERTION, [])
    for method in document.get("verificationMethod", []):
        if method["publicKeyMultibase"] == text and method["id"] in listed:
            return str(method["id"])
    raise UsageError(
        "the key is not one that the DID's document lists for assertions",
        expected=", ".join(log.did + name for name in listed) or "a document with assertionMethod",
        got=text,
    )


def write_json(path: Path, value: Mapping[str, Any]) -> bytes:
    """Replace a file by the value's RFC 8785 form; returns those bytes. Raises DurabilityError."""
    data = strict_json.encode(value)
    replace_file(path, data)
    return data


# --- status lists ---


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def read_list(path: Path) -> dict[str, Any]:
    """A status list credential, not verified: it is the issuer's own. Raises UsageError,
    InvalidInputError."""
    return decode_document(read_small(path, "status list", DOCUMENT_BYTES_MAX))


def list_id_of(status_list: Mapping[str, Any]) -> str:
    list_id = status_list.get("id")
    if type(list_id) is not str:
        raise InvalidInputError("status list has no id", expected="the URL it is published at")
    return list_id


def make_list(issuer: Issuer, list_id: str, bits_count: int, suite: str) -> dict[str, Any]:
    """A signed list in which nothing is revoked. Raises UsageError, InvalidInputError."""
    return _sign_bits(issuer, list_id, bytes(bits_count // 8), suite)


def revoke_in(
    status_list: Mapping[str, Any], indexes: list[int], issuer: Issuer
) -> tuple[dict[str, Any], int]:
    """The list with those entries set, signed anew in its suite, and how many were set before.
    Raises UsageError, InvalidInputError."""
    if read_issuer(status_list) != issuer.did:
        raise UsageError("the status list has another issuer", expected=read_issuer(status_list))
    list_id = list_id_of(status_list)
    bits = read_bits(status_list, StatusEntry(list_id=list_id, index=0, purpose=REVOCATION))
    before = sum(is_set(bits, index) for index in indexes if index < len(bits) * 8)
    for index in indexes:
        bits = set_bit(bits, index)
    return _sign_bits(issuer, list_id, bits, read_proof(status_list).suite), before


def _sign_bits(issuer: Issuer, list_id: str, bits: bytes, suite: str) -> dict[str, Any]:
    template = list_credential(list_id, bits)
    unsigned = complete_credential(template, issuer=issuer.did, valid_from_ms=issuer.time_ms)
    return issuer.sign(unsigned, suite)


def take_entry(path: Path, status_list: Mapping[str, Any]) -> StatusEntry:
    """A free entry of the list in `path`, now taken, durably. It is picked at random, so that it
    does not tell how many credentials came before. The caller holds the lock. Raises UsageError
    (full), InvalidInputError, DurabilityError."""
    list_id = list_id_of(status_list)
    size = len(read_bits(status_list, StatusEntry(list_id=list_id, index=0, purpose=REVOCATION)))
    taken_path = beside(path, TAKEN_SUFFIX)
    taken = bytes(size)
    if taken_path.exists():
        text = read_small(taken_path, "list of taken entries", 2 * ENCODED_BYTES_MAX)
        taken = decode_bits(text.decode("ascii", "replace").strip())
    if len(taken) != size:
        raise UsageError("the taken entries are those of another list", got=str(taken_path))
    start = secrets.randbelow(size * 8)
    for step in range(size * 8):
        index = (start + step) % (size * 8)
        if not is_set(taken, index):
            replace_file(taken_path, encode_bits(set_bit(taken, index)).encode())
            return StatusEntry(list_id=list_id, index=index, purpose=REVOCATION)
    raise UsageError("the status list is full; make another", got=str(path))


def verify_list_size(bits_count: int) -> None:
    """Raises UsageError."""
    if bits_count % 8 or bits_count < LIST_BITS_MIN:
        raise UsageError(
            "status list has a wrong size", expected=f"a multiple of 8, at least {LIST_BITS_MIN}"
        )


async def fetch_stream(
    client: Caller, stream: str, issuer: str, trust: Trust | None
) -> dict[str, Any]:
    """The answer about a stream that is the issuer's, checked if there is a trust point. Raises
    UsageError if it is somebody else's, InvalidInputError, RpcError."""
    answer: dict[str, Any] = await client.call("audit_stream", stream=stream)
    owner = answer["owner"]
    if trust is not None:
        row, _ = verify_row(trust, answer["proof"], stream_key(decode_stream_text(stream)))
        owner = "nobody" if row is None else StreamRecord.decode(row).owner
    if owner != issuer:
        raise UsageError("the stream is not the issuer's", expected=issuer, got=str(owner)[:120])
    return answer


async def anchor_bytes(
    client: BatchCaller, data: bytes, stream: str, *, timeout_s: float, trust: Trust | None
) -> bytes:
    """Anchor the hash of `data`; its receipt's wire bytes, checked if there is a trust point.
    Raises ZynkError (rejected, no time left), RpcError."""
    multihash = hash_chunks([data])
    leaf = compute_leaf_hash(encode_leaves(decode_stream_text(stream), [multihash])[0])
    item = HashedFile(path=Path(), size_bytes=len(data), multihash=multihash, leaf=leaf)
    await submit_files(client, stream, [item], timeout_s=timeout_s, progress=_ignore)
    statuses = await wait_receipted(client, [leaf], timeout_s=timeout_s, progress=_ignore)
    if statuses[leaf]["status"] != "receipted":
        raise InvalidInputError("the anchor was rejected", got=str(statuses[leaf].get("reason")))
    receipt = (await fetch_receipts(client, [leaf], progress=_ignore))[leaf]
    if trust is not None:
        verdict = verify_receipt(
            receipt,
            multihash=multihash,
            trusted=trust.point,
            chain_id=trust.chain_id,
            now_ms=trust.now_ms(),
        )
        if not verdict.is_right:
            raise InvalidInputError("the receipt does not hold", got=verdict.reason)
    return receipt


def _ignore(count: int) -> None:
    del count
