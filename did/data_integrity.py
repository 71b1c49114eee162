"""Data Integrity proofs of the suites eddsa-jcs-2022 and eddsa-rdfc-2022 (W3C VC Data Integrity 1.0
and Data Integrity EdDSA Cryptosuites 1.0).

    hashData = sha256(canonical proof options) || sha256(canonical document without its proof)
    proofValue = z + base58btc(Ed25519 signature of hashData)

Canonical is RFC 8785 JSON for the jcs suite, RDFC-1.0 N-Quads for the rdfc suite. The options are
the proof without `proofValue`; in the rdfc suite they get the document's `@context`.

Deviations, all towards refusing: a document has one proof (no sets, no chains); its members are
those listed below; `created` is there, because it says at what time the key must have been valid;
numbers are integers. Suites differ in what they sign: `did.json_ld` says what rdfc documents may
not contain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import base58

from did import strict_json
from did.json_ld import to_quads
from did.rdf_canonical import canonicalize
from did.version import TIME_MS_MAX
from ledger.ed25519 import SIGNATURE_BYTES, KeyPair, is_valid_signature
from ledger.errors import InvalidInputError, UsageError

PROOF_TYPE = "DataIntegrityProof"
JCS = "eddsa-jcs-2022"
RDFC = "eddsa-rdfc-2022"
SUITES = (JCS, RDFC)
ASSERTION = "assertionMethod"
DOCUMENT_BYTES_MAX = 256 * 1024
TEXT_CHARACTERS_MAX = 2048

_REQUIRED = frozenset(
    ("type", "cryptosuite", "created", "verificationMethod", "proofPurpose", "proofValue")
)
_OPTIONAL = frozenset(("@context", "id", "expires", "domain", "challenge", "nonce"))
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof's parts, well-formed and not yet verified; times in Unix ms. `options` is the proof
    without its value."""

    suite: str
    created_ms: int
    expires_ms: int | None
    verification_method: str
    purpose: str
    signature: bytes
    options: dict[str, Any]


def decode_document(data: bytes) -> dict[str, Any]:
    """Parse a secured or unsecured document. Raises InvalidInputError."""
    value = strict_json.decode(data, bytes_max=DOCUMENT_BYTES_MAX)
    if type(value) is not dict:
        raise InvalidInputError("document is not an object", got=type(value).__name__)
    return value


def add_proof(
    document: Mapping[str, Any],
    *,
    suite: str,
    verification_method: str,
    created_ms: int,
    key: KeyPair,
    purpose: str = ASSERTION,
) -> dict[str, Any]:
    """The document with a proof by `key`. Raises UsageError if it has one already, and
    InvalidInputError if the suite can not sign all of it."""
    if suite not in SUITES or "proof" in document:
        raise UsageError("document can not be signed", expected=f"no proof, one of {SUITES}")
    unsecured = decode_document(_encode_json(document))
    proof = {
        "type": PROOF_TYPE,
        "cryptosuite": suite,
        "created": format_date_time(created_ms),
        "verificationMethod": verification_method,
        "proofPurpose": purpose,
    }
    if suite == JCS and "@context" in unsecured:
        proof["@context"] = unsecured["@context"]
    signature = key.sign(_compute_hash_data(unsecured, suite, proof))
    value = "z" + base58.b58encode(signature).decode("ascii")
    return {**unsecured, "proof": {**proof, "proofValue": value}}


def read_proof(document: Mapping[str, Any]) -> Proof:
    """The one proof of a secured document. Raises InvalidInputError."""
    form = document.get("proof")
    if type(form) is list and len(form) == 1:
        form = form[0]
    if type(form) is not dict or not _REQUIRED <= form.keys() <= _REQUIRED | _OPTIONAL:
        raise InvalidInputError(
            "document has no proof of the known form",
            expected="one proof with " + ", ".join(sorted(_REQUIRED)),
            got=", ".join(sorted(form))[:200] if type(form) is dict else type(form).__name__,
        )
    if form["type"] != PROOF_TYPE or form["cryptosuite"] not in SUITES:
        raise InvalidInputError(
            "proof is of another suite",
            expected=f"{PROOF_TYPE} with " + " or ".join(SUITES),
            got=f"{form['type']!r} with {form['cryptosuite']!r}"[:120],
        )
    for name in ("verificationMethod", "proofPurpose"):
        if type(form[name]) is not str or len(form[name]) > TEXT_CHARACTERS_MAX:
            raise InvalidInputError(f"proof's {name} is malformed", got=repr(form[name])[:80])
    return Proof(
        suite=form["cryptosuite"],
        created_ms=read_date_time(form["created"], "proof's created"),
        expires_ms=read_date_time(form["expires"], "proof's expires")
        if "expires" in form
        else None,
        verification_method=form["verificationMethod"],
        purpose=form["proofPurpose"],
        signature=_decode_signature(form["proofValue"]),
        options={name: value for name, value in form.items() if name != "proofValue"},
    )


def verify_signature(document: Mapping[str, Any], proof: Proof, public_key: bytes) -> None:
    """Check the proof of the document that it was read from, by a 32-byte key that the caller
    trusts. Raises InvalidInputError."""
    secured = decode_document(_encode_json(document))
    unsecured = {name: value for name, value in secured.items() if name != "proof"}
    if "@context" in proof.options:
        shown = proof.options["@context"]
        contexts = unsecured.get("@context")
        if proof.suite == RDFC and shown != contexts:
            raise InvalidInputError("proof has another @context than the document")
        if not _is_prefix(shown, contexts):
            raise InvalidInputError("document's @context does not begin with the proof's")
        unsecured["@context"] = shown
    hash_data = _compute_hash_data(unsecured, proof.suite, proof.options)
    if not is_valid_signature(public_key, hash_data, proof.signature):
        raise InvalidInputError(
            "the signature does not match", expected=f"one by the key {proof.verification_method}"
        )


def _compute_hash_data(unsecured: dict[str, Any], suite: str, options: Mapping[str, Any]) -> bytes:
    if suite == JCS:
        parts = [_encode_json(options), _encode_json(unsecured)]
    else:
        full = {**options, "@context": unsecured.get("@context")}
        parts = [canonicalize(to_quads(form)).encode("utf-8") for form in (full, unsecured)]
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _is_prefix(shown: object, contexts: object) -> bool:
    if type(shown) is list and type(contexts) is list:
        return contexts[: len(shown)] == shown
    return shown == contexts or (type(contexts) is list and contexts[:1] == [shown])


def _decode_signature(text: object) -> bytes:
    if type(text) is not str or not text.startswith("z") or len(text) > 96:
        raise InvalidInputError("proofValue is malformed", expected="z and base58btc of 64 B")
    try:
        signature = bytes(base58.b58decode(text[1:].encode("ascii")))
    except ValueError as error:
        raise InvalidInputError("proofValue is not base58", got=text[:40]) from error
    if len(signature) != SIGNATURE_BYTES or "z" + base58.b58encode(signature).decode() != text:
        raise InvalidInputError("proofValue is not 64 B in its one form", got=text[:40])
    return signature


def _encode_json(value: Mapping[str, Any]) -> bytes:
    try:
        return strict_json.encode(value)
    except UsageError as error:
        raise InvalidInputError("document has no canonical form", got=error.got) from error


# --- times ---


def read_date_time(value: object, what: str) -> int:
    """Unix ms of an XML Schema dateTimeStamp (with a time zone); digits after the milliseconds are
    cut off. Raises InvalidInputError."""
    match = _DATE_TIME.fullmatch(value) if type(value) is str else None
    try:
        if match is None:
            raise ValueError
        zone = "+00:00" if match[3] == "Z" else match[3]
        moment = datetime.fromisoformat(match[1] + zone)
    except ValueError as error:
        raise InvalidInputError(
            f"{what} is not a time", expected="YYYY-MM-DDThh:mm:ssZ", got=repr(value)[:40]
        ) from error
    fraction = (match[2] or ".").ljust(4, "0")[1:4]
    seconds = int((moment - _EPOCH).total_seconds())
    if not 0 <= seconds <= TIME_MS_MAX // 1000:
        raise InvalidInputError(f"{what} is out of range", expected="1970..9999", got=str(value))
    return seconds * 1000 + int(fraction)


def format_date_time(time_ms: int) -> str:
    """UTC text of Unix ms, with milliseconds only where there are some. Inverse of
    `read_date_time`. Raises InvalidInputError past the year 9999."""
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise InvalidInputError("time is out of range", got=str(time_ms))
    text = datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{time_ms % 1000:03d}" if time_ms % 1000 else "") + "Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
