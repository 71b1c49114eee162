"""Operations: the signed JSON that creates and changes a DID.

    create      {v, net, type, seq: 0, expHeight, body, sigs}
    others      {v, net, type, did, prev, seq, expHeight, body, sigs}

    body of create and update  {control, document, recovery?}
    body of recover            {control, document, recovery?, tier}
    body of deactivate         {} or, under pre-rotation, {reveal: key list}

`net` is the chain id; an operation is dead after height `expHeight`; `prev` is the hash of the
operation it follows or forks from; `sigs` are {key: Multikey, sig: base64url of 64 B}, ascending by
`key`, none twice. The bytes are exactly JCS, everywhere.

    op hash     = sha256("zynk/did-op/1" 00 | JCS(operation without sigs))
    signed bytes = "zynk/sign/did-op/1" 00 | JCS(operation without sigs)
    DID         = "did:zynk:" + encode_hash(op hash of the create operation)

So the op hash, and with it the DID, does not depend on who signed or how often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from did import strict_json
from did.control import CONTROL_KEYS_MAX, TIERS_MAX, Control, KeyList, read_tiers
from did.document import compute_document_hash, encode_document
from did.multikey import decode_base64url, decode_hash, decode_multikey, encode_hash
from did.syntax import decode_did, encode_did
from ledger.codec import hash_tagged
from ledger.ed25519 import SIGNATURE_BYTES, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.tx import CHAIN_ID_MAX

OPERATION_VERSION = 1
OPERATION_BYTES_MAX = 16 * 1024
PARSED_CACHE_MAX = 2048
VERIFIED_CACHE_MAX = 65_536

_SIGN_PREFIX = b"zynk/sign/did-op/1\0"


class OperationType(StrEnum):
    """The four operations; the words are wire format."""

    CREATE = "create"
    UPDATE = "update"
    RECOVER = "recover"
    DEACTIVATE = "deactivate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A parsed operation. `did` is the 32-byte identifier (for a create: its own hash); `document`
    holds JCS bytes; `control`, `document` are absent in a deactivation, `tier` is the index of the
    recovery tier that a recover invokes; `encoded` are the wire bytes."""

    net: str
    type: OperationType
    did: bytes
    prev: bytes | None
    seq: int
    exp_height: int
    control: Control | None
    tiers: tuple[KeyList, ...]
    document: bytes | None
    reveal: KeyList | None
    tier: int | None
    signatures: tuple[tuple[bytes, bytes], ...]
    unsigned: bytes
    hash: bytes
    encoded: bytes

    @property
    def did_text(self) -> str:
        return encode_did(self.did)

    @property
    def version_id(self) -> str:
        """`<seq>-<op hash>`."""
        return encode_version_id(self.seq, self.hash)

    @property
    def document_hash(self) -> bytes:
        """docHash; 32 zero bytes for a deactivation."""
        return bytes(32) if self.document is None else compute_document_hash(self.document)


def encode_version_id(seq: int, op_hash: bytes) -> str:
    """`<seq>-<op hash>`, the DID Resolution versionId."""
    return f"{seq}-{encode_hash(op_hash)}"


def compute_version_id(form: dict[str, Any]) -> str:
    """versionId of an operation's JSON form. For one that was executed: nothing is judged."""
    return encode_version_id(form["seq"], hash_tagged("did-op", encode_unsigned(form)))


def decode_operation(data: bytes) -> Operation:
    """Parse and judge everything that needs no state and no signature check.

    Raises InvalidInputError, and nothing else, for any bytes.
    """
    form = strict_json.decode_canonical(data, bytes_max=OPERATION_BYTES_MAX)
    kind = _read_type(form)
    names = _CREATE_MEMBERS if kind is OperationType.CREATE else _MEMBERS
    if form.keys() != names:
        raise InvalidInputError(
            "operation has unknown or missing members",
            got=", ".join(sorted(form.keys() ^ names))[:120],
        )
    if type(form["v"]) is not int or form["v"] != OPERATION_VERSION:
        raise InvalidInputError("operation has another version", got=repr(form["v"])[:20])
    net = form["net"]
    if type(net) is not str or not 1 <= len(net) <= CHAIN_ID_MAX:
        raise InvalidInputError("operation names no network", got=repr(net)[:80])
    seq = _read_natural(form["seq"], "seq")
    if (seq == 0) is not (kind is OperationType.CREATE):
        raise InvalidInputError("a create, and nothing else, has seq 0", got=str(seq))
    control, tiers, document, reveal, tier = _read_body(kind, form["body"])
    unsigned = encode_unsigned(form)
    op_hash = hash_tagged("did-op", unsigned)
    created = kind is OperationType.CREATE
    return Operation(
        net=net,
        type=kind,
        did=op_hash if created else decode_did(form["did"]),
        prev=None if created else decode_hash(form["prev"]),
        seq=seq,
        exp_height=_read_natural(form["expHeight"], "expHeight"),
        control=control,
        tiers=tiers,
        document=document,
        reveal=reveal,
        tier=tier,
        signatures=_read_signatures(form["sigs"]),
        unsigned=unsigned,
        hash=op_hash,
        encoded=data,
    )


def encode_unsigned(form: dict[str, Any]) -> bytes:
    """JCS of an operation's JSON form without its `sigs`."""
    return strict_json.encode({name: form[name] for name in form if name != "sigs"})


def sign_bytes(unsigned: bytes) -> bytes:
    """What each signature of an operation covers."""
    return _SIGN_PREFIX + unsigned


def verify_operation_signatures(operation: Operation) -> None:
    """Check every signature against the key beside it, and for a create that its own control is
    satisfied. Whether those keys may act for the DID is for the state to say.

    Raises InvalidInputError.
    """
    if operation.type is OperationType.CREATE:
        assert operation.control is not None
        current = operation.control.current
        if not is_satisfied(current, (key for key, _ in operation.signatures)):
            raise InvalidInputError(
                "create is not signed by its own control keys",
                expected=f"{current.threshold} of {len(current.keys)} keys",
            )
    verify_present_signatures(operation)


def verify_present_signatures(operation: Operation) -> None:
    """Check every signature against the key beside it, whoever is still to sign. Raises
    InvalidInputError."""
    message = sign_bytes(operation.unsigned)
    for key, signature in operation.signatures:
        if not is_valid_signature(key, message, signature):
            raise InvalidInputError("operation has a bad signature", got=f"key {key.hex()}")


def is_satisfied(required: KeyList, signers: Iterable[bytes]) -> bool:
    """True if all `signers` (no key twice) are in the list and reach its threshold."""
    found = list(signers)
    return (
        len(found) >= required.threshold
        and len(set(found)) == len(found)
        and all(key in required.keys for key in found)
    )


def decode_verified(data: bytes) -> Operation:
    """`decode_operation` and `verify_operation_signatures`, remembered: admission, vote and
    execution each ask, and pay once. What is remembered is a pure function of the bytes, bounded,
    and large only where entries are small. A refusal is not remembered. Raises InvalidInputError.
    """
    operation = _decode_remembered(data)
    digest = hashlib.sha256(data).digest()
    if digest not in _verified:
        verify_operation_signatures(operation)
        if len(_verified) >= VERIFIED_CACHE_MAX:
            _verified.clear()
        _verified[digest] = None
    return operation


_decode_remembered = lru_cache(maxsize=PARSED_CACHE_MAX)(decode_operation)
_verified: dict[bytes, None] = {}  # sha256 of operations whose signatures verify

_CREATE_MEMBERS = frozenset(("v", "net", "type", "seq", "expHeight", "body", "sigs"))
_MEMBERS = _CREATE_MEMBERS | {"did", "prev"}


def _read_type(form: object) -> OperationType:
    if type(form) is not dict:
        raise InvalidInputError("operation is not an object", got=type(form).__name__)
    kind = form.get("type")
    if type(kind) is not str or kind not in set(OperationType):
        raise InvalidInputError(
            "operation type is unknown", expected="|".join(OperationType), got=repr(kind)[:40]
        )
    return OperationType(kind)


def _read_natural(value: object, what: str) -> int:
    if type(value) is not int or value < 0:
        raise InvalidInputError(f"{what} is malformed", expected="0..2^53-1", got=repr(value)[:40])
    return value


_Body = tuple[Control | None, tuple[KeyList, ...], bytes | None, KeyList | None, int | None]


def _read_body(kind: OperationType, body: object) -> _Body:
    """(control, tiers, document, reveal, tier); see the module docstring."""
    if type(body) is not dict:
        raise InvalidInputError("operation has no body", got=type(body).__name__)
    if kind is OperationType.DEACTIVATE:
        if body.keys() - {"reveal"}:
            raise InvalidInputError("body of a deactivation is malformed", expected="{} or reveal")
        reveal = KeyList.from_json(body["reveal"], "reveal") if body else None
        return None, (), None, reveal, None
    required = {"control", "document"}
    if kind is OperationType.RECOVER:
        required.add("tier")
    if not required <= body.keys() <= required | {"recovery"}:
        raise InvalidInputError(
            "body is malformed", expected=", ".join(sorted(required)) + ", recovery?"
        )
    tier = None
    if kind is OperationType.RECOVER:
        tier = _read_natural(body["tier"], "tier")
        if tier >= TIERS_MAX:
            raise InvalidInputError("tier does not exist", expected=f"0..{TIERS_MAX - 1}")
    return (
        Control.from_json(body["control"]),
        read_tiers(body["recovery"]) if "recovery" in body else (),
        encode_document(body["document"]),
        None,
        tier,
    )


def _read_signatures(value: object) -> tuple[tuple[bytes, bytes], ...]:
    if type(value) is not list or not 1 <= len(value) <= CONTROL_KEYS_MAX:
        raise InvalidInputError("operation is not signed", expected=f"1..{CONTROL_KEYS_MAX} sigs")
    found: list[tuple[bytes, bytes]] = []
    before = ""
    for item in value:
        if type(item) is not dict or item.keys() != {"key", "sig"}:
            raise InvalidInputError("signature is malformed", expected="key and sig")
        signature = decode_base64url(item["sig"], bytes_max=SIGNATURE_BYTES)
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidInputError("signature has a wrong length", got=f"{len(signature)} B")
        found.append((decode_multikey(item["key"]), signature))
        if item["key"] <= before:
            raise InvalidInputError("signatures are not in ascending order of key")
        before = item["key"]
    return tuple(found)
