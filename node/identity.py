"""A DID as a client needs it to change it: its line of operations, who must sign next, and the
documents and key lists of the next operation. What a node says is checked against the record it
proves; with a trust point, the proof is checked as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

from did import strict_json
from did.control import Control, KeyList, compute_control_hash
from did.document import DOCUMENT_BYTES_MAX, compute_document_hash, to_stored
from did.multikey import decode_base64url, encode_multikey
from did.operation import Operation, decode_operation
from did.oplog import LogEntry
from did.record import RECORD_BYTES_MAX, Record, Status
from did.syntax import decode_did
from did.verify import verify_proof
from did.verify_history import compute_nullified, verify_history
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from node.checkpoint import Trust
from node.cli_output import read_option

PAGE = 100
TRIES_MAX = 3


class Caller(Protocol):
    """What is needed of an RPC client."""

    async def call(self, method: str, **params: object) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOperation:
    """An operation, its place in the log, and whether a recovery has set it aside."""

    operation: Operation
    entry: LogEntry
    is_nullified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """What is in force after an operation; `document` is in stored form."""

    head: bytes
    control: Control
    tiers: tuple[KeyList, ...]
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DidLog:
    """All operations of a DID, oldest first, under the record that the node proved. `steps` are
    the checks made of the proof, none without a trust point; `items` and `proof` are the answer's
    JSON."""

    did: str
    record: Record
    operations: tuple[LoggedOperation, ...]
    steps: tuple[str, ...]
    items: tuple[dict[str, Any], ...]
    proof: dict[str, Any]

    def to_answer(self) -> dict[str, Any]:
        """The whole history as one answer, which proves itself (`did.document_at`)."""
        return {
            "did": self.did,
            "operations": list(self.items),
            "nextCursor": None,
            "proof": self.proof,
        }

    @property
    def is_deactivated(self) -> bool:
        return self.record.status is Status.DEACTIVATED

    def current(self) -> KeyState:
        """What is in force now. Raises InvalidInputError if it is not what the record names."""
        state = self.state_at(self.record.head)
        if compute_control_hash(state.control, state.tiers) != self.record.control_hash:
            raise InvalidInputError("control in the history is not what the record names")
        document_hash = compute_document_hash(strict_json.encode(state.document))
        if not self.is_deactivated and document_hash != self.record.doc_hash:
            raise InvalidInputError("document in the history is not what the record names")
        return state

    def state_at(self, op_hash: bytes) -> KeyState:
        """What was in force after the operation with this hash; for a deactivation, before it.
        Raises UsageError if there is none."""
        by_hash = {item.operation.hash: item.operation for item in self.operations}
        operation = by_hash.get(op_hash)
        while operation is not None and operation.control is None:
            operation = by_hash.get(operation.prev or b"")
        if operation is None or operation.control is None or operation.document is None:
            raise UsageError("the DID has no such version", got=op_hash.hex())
        document = strict_json.decode(operation.document, bytes_max=DOCUMENT_BYTES_MAX)
        return KeyState(
            head=op_hash, control=operation.control, tiers=operation.tiers, document=document
        )

    def after(self, op_hash: bytes) -> tuple[LoggedOperation, ...]:
        """The living operations after the one with this hash, which a recovery from it sets
        aside."""
        at = [item.operation.hash for item in self.operations].index(op_hash)
        return tuple(item for item in self.operations[at + 1 :] if not item.is_nullified)

    def hash_of_version(self, version_id: str) -> bytes:
        """The op hash of a versionId, or of a bare seq. Raises UsageError."""
        for item in self.operations:
            operation = item.operation
            if version_id in (operation.version_id, str(operation.seq)):
                return operation.hash
        raise UsageError(
            "the DID has no such version", expected="see zynk did history", got=version_id[:80]
        )


async def fetch_log(
    client: Caller, did: str, trust: Trust | None, *, trusted_height: int = 0
) -> DidLog:
    """Ask for the whole history, proven from `trusted_height` (0: genesis, which does for whoever
    is shown it later). Raises InvalidInputError (nothing there, altered), RpcError."""
    read_option(decode_did, did)
    for _ in range(TRIES_MAX):
        pages = await _fetch_pages(client, did, trusted_height)
        records = [_read_record(page, did, trust) for page in pages]
        record, steps = records[0]
        if record is None:
            raise InvalidInputError("the DID does not exist", got=did)
        items = tuple(item for page in pages for item in page["operations"])
        if all(r is not None and r.head == record.head for r, _ in records):
            return _build_log(did, record, items, steps, pages[0]["proof"])
    raise InvalidInputError("the DID changes while its history is read", retry=True)


async def _fetch_pages(client: Caller, did: str, trusted_height: int) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = await client.call(
            "did_history", did=did, cursor=cursor, limit=PAGE, trusted_height=trusted_height
        )
        pages.append(page)
        after = page["nextCursor"]
        cursor = after if after is None or after > cursor else None
    return pages


def _read_record(
    page: Mapping[str, Any], did: str, trust: Trust | None
) -> tuple[Record | None, tuple[str, ...]]:
    proof = page["proof"]
    if trust is not None:
        _, record, steps = verify_proof(
            proof,
            did=did,
            trusted=trust.point,
            chain_id=trust.chain_id,
            max_age_ms=None,
            now_ms=trust.now_ms(),
        )
        return record, tuple(steps)
    if proof["record"] is None:
        return None, ()
    record = Record.decode(decode_base64url(proof["record"], bytes_max=RECORD_BYTES_MAX))
    if record.did_text != did:
        raise InvalidInputError("record is of another DID", expected=did, got=record.did_text)
    return record, ()


def _build_log(
    did: str,
    record: Record,
    items: tuple[dict[str, Any], ...],
    steps: tuple[str, ...],
    proof: dict[str, Any],
) -> DidLog:
    entries = verify_history(items, record)
    operations = [decode_operation(entry.operation) for entry in entries]
    if steps:
        steps = (*steps, f"all {record.seq + 1} operation(s) are in the log that the record names")
    return DidLog(
        did=did,
        record=record,
        operations=tuple(
            LoggedOperation(operation=operation, entry=entry, is_nullified=nullified_by is not None)
            for operation, entry, nullified_by in zip(
                operations, entries, compute_nullified(operations), strict=True
            )
        ),
        steps=steps,
        items=items,
        proof=proof,
    )


# --- who signs ---


def require_signers(
    required: KeyList, keys: Sequence[KeyPair], what: str, *, others_follow: bool = False
) -> list[KeyPair]:
    """The `keys`, which must be in the list and, unless `others_follow`, reach its threshold.
    `what` names the option to give them with. Raises UsageError that says which are needed."""
    strangers = [key for key in keys if key.public_key not in required.keys]
    if strangers or len(keys) < (1 if others_follow else required.threshold):
        raise UsageError(
            "these keys may not sign for the DID",
            expected=f"{what}: {required.threshold} of " + ", ".join(_texts(required.keys)),
            got=", ".join(_texts([key.public_key for key in keys])) or "none",
        )
    return list(keys)


def make_key_list(keys: Sequence[bytes], threshold: int | None, what: str) -> KeyList:
    """A key list in ascending order, so that the order of options does not change a commitment.
    Several keys need a threshold (`what` names its option). Raises UsageError."""
    if threshold is None and len(keys) > 1:
        raise UsageError(f"how many of these {len(keys)} keys must sign?", expected=what)
    count = threshold or 1
    if not 1 <= count <= len(keys):
        raise UsageError(
            "threshold makes no sense", expected=f"1..{len(keys)} for so many keys", got=str(count)
        )
    if len(set(keys)) != len(keys):
        raise UsageError("a key is given twice")
    return KeyList(keys=tuple(sorted(keys)), threshold=count)


def find_committed(
    commitment: bytes, keys: Sequence[bytes], threshold: int | None, what: str
) -> KeyList:
    """The key list behind a pre-rotation commitment, from its keys: in ascending and in the given
    order, with each threshold. Raises UsageError."""
    orders = (tuple(sorted(keys)), tuple(keys))
    thresholds = range(1, len(keys) + 1) if threshold is None else (threshold,)
    for order, count in product(orders, thresholds):
        found = KeyList(keys=order, threshold=count)
        if found.compute_commitment() == commitment:
            return found
    raise UsageError(
        "the DID is pre-rotated, and these are not the keys it is committed to",
        expected=f"{what}: all keys that were given with --next before",
        got=", ".join(_texts(keys)) or "none",
    )


def _texts(keys: Sequence[bytes]) -> list[str]:
    return [encode_multikey(key) for key in keys]


# --- documents ---


def make_document(keys: Sequence[bytes]) -> dict[str, Any]:
    """A document in stored form with the keys for authentication and assertions."""
    names = [f"#key-{number}" for number in range(1, len(keys) + 1)]
    return {
        "verificationMethod": [
            {"id": name, "type": "Multikey", "publicKeyMultibase": encode_multikey(key)}
            for name, key in zip(names, keys, strict=True)
        ],
        "authentication": names,
        "assertionMethod": names,
    }


def read_document(data: bytes, did: str | None) -> dict[str, Any]:
    """A document file: stored form, or resolved form of this DID, or a resolution answer with
    one. Raises InvalidInputError."""
    value = strict_json.decode(data, bytes_max=16 * DOCUMENT_BYTES_MAX)
    if isinstance(value, dict) and isinstance(value.get("didDocument"), dict):
        value = value["didDocument"]
    if not isinstance(value, dict):
        raise InvalidInputError("document is not an object", got=type(value).__name__)
    if "id" not in value:
        return value
    if did is None:
        raise InvalidInputError(
            "document names a DID, but its DID follows from what it holds",
            expected='no "id", and ids like "#key-1"',
            got=str(value["id"])[:100],
        )
    return to_stored(did, value)


def change_services(
    document: Mapping[str, Any],
    services: Sequence[tuple[str, str, str]],
    removed: Sequence[str] = (),
) -> dict[str, Any]:
    """The document with services (id, type, URL) added or replaced, and others taken out. Raises
    UsageError for one to take out that is not there."""
    listed = {item["id"]: item for item in document.get("service", [])}
    for name in removed:
        if listed.pop(_fragment(name), None) is None:
            raise UsageError("the document has no such service", got=name)
    for name, kind, url in services:
        key = _fragment(name)
        listed[key] = {"id": key, "type": kind, "serviceEndpoint": url}
    changed = {name: value for name, value in document.items() if name != "service"}
    if listed:
        changed["service"] = list(listed.values())
    return changed


def swap_keys(
    document: Mapping[str, Any], old: Sequence[bytes], new: Sequence[bytes]
) -> tuple[dict[str, Any], int]:
    """The document with control keys that go away replaced by the new ones in turn (the last new
    one stands in for the rest), and how many methods changed."""
    fresh = [key for key in new if key not in old] or list(new)
    gone = [key for key in old if key not in new]
    by_text = {
        encode_multikey(key): encode_multikey(fresh[min(i, len(fresh) - 1)])
        for i, key in enumerate(gone)
    }
    changed = dict(document)
    count = 0
    methods = []
    for method in document.get("verificationMethod", []):
        text = method["publicKeyMultibase"]
        count += text in by_text
        methods.append({**method, "publicKeyMultibase": by_text.get(text, text)})
    if methods:
        changed["verificationMethod"] = methods
    return changed, count


def _fragment(name: str) -> str:
    return name if name.startswith("#") else "#" + name
