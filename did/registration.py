"""DID registration with client-managed secrets (DIF DID Registration, 2025): the pure part.

Reads create, update and deactivate requests, makes the operation that has to be signed, the signing
requests for it and, from the responses, the signed operation. Private keys are never taken.

Of the method's own: `secret.verificationMethod` lists Multikeys with `purpose` `control` (the
control keys from now on, or the committed ones under pre-rotation) and `payment` (the account that
pays; the first control key if there is none); `options.threshold`, `options.next` and
`options.recovery` are those of `did.control`. What an update does not name stays: document, keys,
threshold, tiers. The commitment can't stay, since the update uses it up: under pre-rotation
`options.next` has to be there, `null` to end it. Nothing that a request says is passed over.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from did import strict_json
from did.build import make_form, make_state_body
from did.control import Control, KeyList, read_tiers
from did.document import encode_document, to_stored
from did.multikey import decode_hash, decode_multikey, encode_base64url, encode_multikey
from did.operation import (
    Operation,
    OperationType,
    decode_operation,
    encode_unsigned,
    sign_bytes,
)
from ledger.ed25519 import SIGNATURE_BYTES, is_valid_signature
from ledger.errors import InvalidInputError

KEYS_MAX = 16
ALGORITHM = "EdDSA"
PURPOSE_CONTROL = "control"
PURPOSE_PAYMENT = "payment"
_REQUEST_MEMBERS = frozenset(
    ("jobId", "method", "did", "options", "secret", "didDocument", "didDocumentOperation")
)
_OPTIONS = frozenset(("clientSecretMode", "network", "threshold", "next", "recovery"))
_SECRET = frozenset(("verificationMethod", "signingResponse"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A registration request. `control_keys` are 32-byte public keys, in their order; `document` is
    in stored form. `names_next`: the commitment, or that there is none, is said outright."""

    kind: OperationType
    did: str | None
    network: str | None
    control_keys: tuple[bytes, ...]
    payer: bytes | None
    threshold: int | None
    next: bytes | None
    names_next: bool
    tiers: tuple[KeyList, ...] | None
    document: dict[str, Any] | None

    @property
    def changes_nothing(self) -> bool:
        named = (self.threshold, self.tiers, self.document)
        return not self.control_keys and not self.names_next and named == (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is in force for a DID before the operation; `document` is in stored form."""

    hash: bytes
    seq: int
    control: Control
    tiers: tuple[KeyList, ...]
    document: dict[str, Any]


def read_request(kind: OperationType, body: Mapping[str, Any]) -> Request:
    """Raises InvalidInputError, also for anything that looks like a private key."""
    _refuse_unknown(body, _REQUEST_MEMBERS, "request")
    options = _read_object(body.get("options") or {}, "options")
    _refuse_unknown(options, _OPTIONS, "options")
    if options.get("clientSecretMode") is not True:
        raise InvalidInputError(
            "only client-managed secrets are taken", expected="options.clientSecretMode true"
        )
    did = body.get("did")
    if (did is None) is not (kind is OperationType.CREATE):
        raise InvalidInputError("did is wrong", expected="a DID, except in a create")
    if body.get("method") not in ("zynk", None):
        raise InvalidInputError("method is not supported", expected="zynk")
    secret = _read_object(body.get("secret") or {}, "secret")
    _refuse_unknown(secret, _SECRET, "secret")
    control_keys, payer = _read_methods(secret.get("verificationMethod") or [])
    threshold, commitment = options.get("threshold"), options.get("next")
    network = options.get("network")
    if threshold is not None and type(threshold) is not int:
        raise InvalidInputError("threshold is malformed", got=repr(threshold)[:40])
    if network is not None and type(network) is not str:
        raise InvalidInputError("network is malformed", got=repr(network)[:40])
    return Request(
        kind=kind,
        did=did,
        network=network,
        control_keys=control_keys,
        payer=payer,
        threshold=threshold,
        next=None if commitment is None else decode_hash(commitment),
        names_next="next" in options,
        tiers=read_tiers(options["recovery"]) if "recovery" in options else None,
        document=_read_document(kind, did, body),
    )


def _read_methods(value: object) -> tuple[tuple[bytes, ...], bytes | None]:
    """(control keys, payer) of verification method public data."""
    if type(value) is not list or len(value) > KEYS_MAX:
        raise InvalidInputError("verificationMethod is malformed", expected=f"0..{KEYS_MAX} keys")
    control_keys: list[bytes] = []
    payer = None
    for item in value:
        method = _read_object(item, "verification method")
        if any("private" in str(name).lower() for name in method):
            raise InvalidInputError("a private key was sent; treat it as stolen")
        purpose = method.get("purpose") or [PURPOSE_CONTROL]
        key = decode_multikey(method.get("publicKeyMultibase"))
        if type(purpose) is not list or not set(map(str, purpose)) <= {"control", "payment"}:
            raise InvalidInputError("purpose is unknown", expected="control, payment")
        if PURPOSE_CONTROL in purpose:
            control_keys.append(key)
        if PURPOSE_PAYMENT in purpose:
            if payer is not None:
                raise InvalidInputError("two keys are to pay", expected="one")
            payer = key
    return tuple(control_keys), payer or (control_keys[0] if control_keys else None)


def _read_document(
    kind: OperationType, did: str | None, body: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The stored form, from that or from the resolved form; None if the document stays."""
    value, steps = body.get("didDocument"), body.get("didDocumentOperation")
    if kind is OperationType.DEACTIVATE:
        if value is not None or steps is not None:
            raise InvalidInputError("a deactivation has no document")
        return None
    if kind is OperationType.CREATE and steps is not None:
        raise InvalidInputError("a create has no didDocumentOperation")
    if kind is OperationType.UPDATE:
        if value is steps is None:
            return None
        if steps not in (None, ["setDidDocument"]):
            raise InvalidInputError(
                "didDocumentOperation is not supported", expected='["setDidDocument"]'
            )
        if type(value) is not list or len(value) != 1:
            raise InvalidInputError("didDocument is malformed", expected="a list of one document")
        value = value[0]
    document = dict(_read_object(value or {}, "didDocument"))
    if did is not None and document.get("id") == did:
        return to_stored(did, document)
    stored = {n: v for n, v in document.items() if n not in ("@context", "id")}
    encode_document(stored)
    return stored


def build_form(request: Request, head: Head | None, *, net: str, exp_height: int) -> dict[str, Any]:
    """The operation to be signed. Raises InvalidInputError if keys are missing or do not fit."""
    if request.network not in (None, net):
        raise InvalidInputError("this is another network", expected=net, got=str(request.network))
    if request.kind is OperationType.DEACTIVATE:
        assert head is not None
        revealed = _deactivating(request, head)
        body = {} if revealed is None else {"reveal": revealed.to_json()}
        return make_form(request.kind, net, head.seq + 1, exp_height, body, request.did, head.hash)
    if head is None:
        assert request.document is not None
        state = make_state_body(request.document, _next_control(request, None), request.tiers or ())
        return make_form(request.kind, net, 0, exp_height, state)
    if request.changes_nothing:
        raise InvalidInputError("the update changes nothing")
    state = make_state_body(
        head.document if request.document is None else request.document,
        _next_control(request, head),
        head.tiers if request.tiers is None else request.tiers,
    )
    return make_form(request.kind, net, head.seq + 1, exp_height, state, request.did, head.hash)


def required_signers(request: Request, head: Head | None) -> KeyList:
    """The key list that has to sign. Raises InvalidInputError."""
    if head is None:
        return _next_control(request, None).current
    return _revealed(request, head) or head.control.current


def _next_control(request: Request, head: Head | None) -> Control:
    """Control from the operation on. Raises InvalidInputError."""
    if head is None:
        return Control(current=_key_list(request, None), next=request.next)
    revealed = _revealed(request, head)
    if revealed is not None and not request.names_next:
        raise InvalidInputError(
            "the update would end pre-rotation",
            expected="options.next: the hash of the next key list, or null to end it",
        )
    current = revealed or _key_list(request, head.control.current)
    return Control(current=current, next=request.next)


def _deactivating(request: Request, head: Head) -> KeyList | None:
    """What a deactivation reveals. Raises InvalidInputError for what it would pass over."""
    if request.names_next or request.tiers is not None:
        raise InvalidInputError("a deactivation has neither options.next nor options.recovery")
    if head.control.next is not None:
        return _revealed(request, head)
    current = head.control.current
    if request.control_keys not in ((), current.keys) or request.threshold not in (
        None,
        current.threshold,
    ):
        raise InvalidInputError(
            "keys or threshold are not those in control", expected="those in control, or none"
        )
    return None


def _revealed(request: Request, head: Head) -> KeyList | None:
    """The committed key list under pre-rotation."""
    if head.control.next is None:
        return None
    revealed = _key_list(request, None)
    if revealed.compute_commitment() != head.control.next:
        raise InvalidInputError(
            "keys are not those that the DID is committed to",
            expected="the committed control keys, in their order, and their threshold",
        )
    return revealed


def _key_list(request: Request, current: KeyList | None) -> KeyList:
    """The keys that the request names, else those of `current`; the threshold likewise."""
    keys, threshold = request.control_keys, request.threshold
    if not keys and current is not None:
        keys = current.keys
        threshold = current.threshold if threshold is None else threshold
    if threshold is None and len(keys) == 1:
        threshold = 1
    if threshold is None:
        raise InvalidInputError(
            "several control keys need options.threshold", got=f"{len(keys)} keys"
        )
    form = {"keys": [encode_multikey(key) for key in keys], "threshold": threshold}
    return KeyList.from_json(form, "control")


# --- signing ---


def signed_bytes(form: Mapping[str, Any]) -> bytes:
    """What every signature of the operation covers."""
    return sign_bytes(encode_unsigned(dict(form)))


def signing_requests(form: Mapping[str, Any], signers: KeyList) -> dict[str, Any]:
    """A Signing Request Set: one for each key of the list; `threshold` of them are enough."""
    unsigned = {name: value for name, value in form.items() if name != "sigs"}
    serialized = base64.b64encode(signed_bytes(form)).decode("ascii")
    return {
        f"control{number}": {
            "kid": encode_multikey(key),
            "alg": ALGORITHM,
            "purpose": PURPOSE_CONTROL,
            "payload": unsigned,
            "serializedPayload": serialized,
        }
        for number, key in enumerate(signers.keys)
    }


def read_signatures(
    responses: object, kid_by_id: Mapping[str, str], message: bytes
) -> list[tuple[str, bytes]]:
    """(kid, 64 B signature over `message`) of a Signing Response Set, each checked. Raises
    InvalidInputError, which names every response that is wrong."""
    found, wrong = [], []
    for request_id, response in _read_object(responses, "signingResponse").items():
        if request_id not in kid_by_id:
            raise InvalidInputError("signing response to no request", got=request_id[:40])
        kid = kid_by_id[request_id]
        signature = _read_response(request_id, response, kid)
        if not is_valid_signature(decode_multikey(kid), message, signature):
            wrong.append(f"{request_id} by {kid}")
        found.append((kid, signature))
    if wrong:
        raise InvalidInputError(
            "signature does not verify",
            expected="Ed25519 over the bytes of serializedPayload",
            got=", ".join(wrong),
        )
    return found


def _read_response(request_id: str, value: object, kid: str) -> bytes:
    """The signature of one response, by the key that was asked."""
    response = _read_object(value, f"signing response {request_id}")
    for name, expected in (("kid", kid), ("alg", ALGORITHM)):
        if response.get(name) not in (None, expected):
            raise InvalidInputError(
                f"signing response {request_id} is of another {name}",
                expected=expected,
                got=str(response[name])[:80],
            )
    signature = _read_base64(response.get("signature"))
    if signature is None:
        raise InvalidInputError(
            f"signature of {request_id} is malformed", expected="base64 of 64 bytes"
        )
    return signature


def _read_base64(text: object) -> bytes | None:
    """64 bytes of base64 in either alphabet, padded or not."""
    if type(text) is str and len(text) <= 90:
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            found = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(found) == SIGNATURE_BYTES:
            return found
    return None


def assemble(form: Mapping[str, Any], signatures: Sequence[tuple[str, bytes]]) -> Operation:
    """The signed operation. `signatures` are those of `read_signatures`, over `form`. Raises
    InvalidInputError."""
    sigs = [{"key": kid, "sig": encode_base64url(value)} for kid, value in sorted(signatures)]
    return decode_operation(strict_json.encode({**form, "sigs": sigs}))


def _read_object(value: object, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidInputError(f"{what} is not an object", got=type(value).__name__)
    return value


def _refuse_unknown(value: Mapping[str, Any], names: frozenset[str], what: str) -> None:
    unknown = next((name for name in value if name not in names), None)
    if unknown is not None:
        raise InvalidInputError(f"{what} has an unknown member", got=unknown[:40])
