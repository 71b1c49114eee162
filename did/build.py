"""Making operations: what clients call. Nothing here is used by execution.

Each builder signs with the `signers` at hand. Where the keys live in several places, build with
those of one place and let the others call `add_signatures` on the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from did import strict_json
from did.control import Control, KeyList
from did.multikey import encode_base64url, encode_hash, encode_multikey
from did.operation import (
    OPERATION_BYTES_MAX,
    OPERATION_VERSION,
    OperationType,
    decode_operation,
    encode_unsigned,
    sign_bytes,
)
from ledger.ed25519 import KeyPair
from ledger.errors import UsageError


def create_operation(
    *,
    net: str,
    exp_height: int,
    document: Mapping[str, Any],
    control: Control,
    recovery: Sequence[KeyList] = (),
    signers: Sequence[KeyPair],
) -> bytes:
    """A signed create; its DID is `decode_operation(...).did_text`. `document` is in stored form
    (`did.document`). Raises InvalidInputError if a member breaks a rule."""
    body = make_state_body(document, control, recovery)
    return _sign(make_form(OperationType.CREATE, net, 0, exp_height, body), signers)


def update_operation(
    *,
    net: str,
    exp_height: int,
    did: str,
    prev: bytes,
    seq: int,
    document: Mapping[str, Any],
    control: Control,
    recovery: Sequence[KeyList] = (),
    signers: Sequence[KeyPair],
) -> bytes:
    """A signed update, which replaces the whole state. `prev` is the head's 32-byte op hash, `seq`
    the head's plus one. Without pre-rotation the current keys sign and `control` may name any
    others; with it, `control` must be the committed key list and its keys sign."""
    body = make_state_body(document, control, recovery)
    form = make_form(OperationType.UPDATE, net, seq, exp_height, body, did, prev)
    return _sign(form, signers)


def recover_operation(
    *,
    net: str,
    exp_height: int,
    did: str,
    prev: bytes,
    seq: int,
    tier: int,
    document: Mapping[str, Any],
    control: Control,
    recovery: Sequence[KeyList] = (),
    signers: Sequence[KeyPair],
) -> bytes:
    """A signed recovery by the tier at index `tier`. `prev` is the op hash to go back to (the head
    itself, if only keys were lost); `seq` is still the head's plus one."""
    body = {**make_state_body(document, control, recovery), "tier": tier}
    form = make_form(OperationType.RECOVER, net, seq, exp_height, body, did, prev)
    return _sign(form, signers)


def deactivate_operation(
    *,
    net: str,
    exp_height: int,
    did: str,
    prev: bytes,
    seq: int,
    reveal: KeyList | None = None,
    signers: Sequence[KeyPair],
) -> bytes:
    """A signed deactivation. Under pre-rotation `reveal` is the committed key list, and signs."""
    body = {} if reveal is None else {"reveal": reveal.to_json()}
    form = make_form(OperationType.DEACTIVATE, net, seq, exp_height, body, did, prev)
    return _sign(form, signers)


def add_signatures(operation: bytes, signers: Sequence[KeyPair]) -> bytes:
    """The same operation, signed by `signers` as well."""
    form = strict_json.decode_canonical(operation, bytes_max=OPERATION_BYTES_MAX)
    return _sign(form, signers)


def make_state_body(
    document: Mapping[str, Any], control: Control, recovery: Sequence[KeyList]
) -> dict[str, Any]:
    """The body of a create or an update."""
    body: dict[str, Any] = {"control": control.to_json(), "document": dict(document)}
    if recovery:
        body["recovery"] = [tier.to_json() for tier in recovery]
    return body


def make_form(
    kind: OperationType,
    net: str,
    seq: int,
    exp_height: int,
    body: Mapping[str, Any],
    did: str | None = None,
    prev: bytes | None = None,
) -> dict[str, Any]:
    """An operation's JSON form, not signed yet."""
    form: dict[str, Any] = {
        "v": OPERATION_VERSION,
        "net": net,
        "type": kind.value,
        "seq": seq,
        "expHeight": exp_height,
        "body": body,
        "sigs": [],
    }
    if did is not None and prev is not None:
        form["did"] = did
        form["prev"] = encode_hash(prev)
    return form


def _sign(form: dict[str, Any], signers: Sequence[KeyPair]) -> bytes:
    if not signers:
        raise UsageError("an operation needs a signer")
    message = sign_bytes(encode_unsigned(form))
    signature_by_key = {item["key"]: item["sig"] for item in form["sigs"]}
    for signer in signers:
        key = encode_multikey(signer.public_key)
        signature_by_key[key] = encode_base64url(signer.sign(message))
    form["sigs"] = [{"key": k, "sig": s} for k, s in sorted(signature_by_key.items())]
    data = strict_json.encode(form)
    decode_operation(data)
    return data
