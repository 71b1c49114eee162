"""Verifiable Credentials 2.0: making them, and judging one by its issuer's DID.

A credential holds if its form is right, its proof was made by a key that the issuer's document
listed for assertions **at the time the proof names**, the signature matches, `now` is inside its
period of validity, and no recovery can take that key away any more. A later change of keys takes
nothing away from it, and an older key gives nothing to a later proof. The time is the signer's
claim: whoever holds an old key can date back.

Status lists are credentials too and are judged by the same steps; `did.status_list` reads the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from did.contexts import CREDENTIALS_V2
from did.data_integrity import (
    ASSERTION,
    Proof,
    format_date_time,
    read_date_time,
    read_proof,
    verify_signature,
)
from did.did_url import parse_did_url
from did.document_at import DocumentSource
from did.multikey import decode_multikey
from did.status_list import LIST_CREDENTIAL_TYPE, make_list_subject
from ledger.errors import InvalidInputError
from ledger.finality import CannotTellError
from ledger.light import Verdict as Worth
from ledger.light import verdict_of

CREDENTIAL_TYPE = "VerifiableCredential"
SUBJECTS_MAX = 64
CLOCK_AHEAD_MAX_MS = 10_000
"""How far a time in a credential may be ahead of the verifier's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: `name` is stable, `text` is for people."""

    name: str
    is_ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`worth` is VALID only if every step holds; checking stops at the first that does not."""

    worth: Worth
    steps: tuple[Step, ...]

    @property
    def is_ok(self) -> bool:
        return self.worth is Worth.VALID

    @property
    def reason(self) -> str:
        """Why the verdict is bad; "" if it is good."""
        return "" if self.is_ok else self.steps[-1].text

    def then(self, later: Verdict) -> Verdict:
        """This one, which was good, with the checks that came after it."""
        return Verdict(worth=later.worth, steps=(*self.steps, *later.steps))


Checks = list[tuple[str, Callable[[], str]]]


def run_checks(checks: Checks) -> Verdict:
    """Each check in turn, up to the first that raises InvalidInputError."""
    steps: list[Step] = []
    worth = Worth.VALID
    for name, check in checks:
        try:
            steps.append(Step(name=name, is_ok=True, text=check()))
        except InvalidInputError as error:
            steps.append(Step(name=name, is_ok=False, text=str(error)))
            worth = verdict_of(error)
            break
    return Verdict(worth=worth, steps=tuple(steps))


def verify_credential(
    credential: Mapping[str, Any], *, documents: DocumentSource, now_ms: int
) -> Verdict:
    """Judge a credential, its status aside. Raises nothing for bad data: it is the verdict."""
    return run_checks(credential_checks(credential, documents=documents, now_ms=now_ms))


def credential_checks(
    credential: Mapping[str, Any], *, documents: DocumentSource, now_ms: int
) -> Checks:
    """The checks of one credential, in order; later ones rest on earlier ones."""
    return [
        ("form", lambda: _check_form(credential)),
        ("issuer", lambda: _check_issuer(credential)),
        ("key", lambda: _find_key(credential, documents)[1]),
        ("signature", lambda: _check_signature(credential, documents)),
        ("period", lambda: _check_period(credential, now_ms)),
        ("settled", lambda: _check_settled(credential, documents)),
    ]


# --- making ---


def complete_credential(
    template: Mapping[str, Any],
    *,
    issuer: str,
    valid_from_ms: int,
    status: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An unsigned credential from one that has `credentialSubject` at least: what is absent of
    `@context`, `type`, `issuer` and `validFrom` is filled in, and `status` added. Raises
    InvalidInputError if the result is none, or has another issuer, a proof, or a status already."""
    if "proof" in template or (status is not None and "credentialStatus" in template):
        raise InvalidInputError("credential has a proof or a status already")
    credential = {
        "@context": [CREDENTIALS_V2],
        "type": [CREDENTIAL_TYPE],
        "issuer": issuer,
        "validFrom": format_date_time(valid_from_ms // 1000 * 1000),
        **template,
    }
    if status is not None:
        credential["credentialStatus"] = dict(status)
    validate_credential(credential)
    if read_issuer(credential) != issuer:
        raise InvalidInputError(
            "credential names another issuer", expected=issuer, got=read_issuer(credential)[:120]
        )
    return credential


def list_credential(list_id: str, bits: bytes) -> dict[str, Any]:
    """The template of a status list credential: see `complete_credential`."""
    return {
        "id": list_id,
        "type": [CREDENTIAL_TYPE, LIST_CREDENTIAL_TYPE],
        "credentialSubject": make_list_subject(list_id, bits),
    }


# --- form ---


def validate_credential(credential: Mapping[str, Any]) -> None:
    """The data model's rules (VC 2.0 section 4), proof and status aside. Raises
    InvalidInputError."""
    contexts = credential.get("@context")
    if type(contexts) is not list or contexts[:1] != [CREDENTIALS_V2]:
        raise InvalidInputError(
            "credential has another @context", expected=f"{CREDENTIALS_V2} first"
        )
    if CREDENTIAL_TYPE not in read_types(credential):
        raise InvalidInputError("not a credential", expected=f"type {CREDENTIAL_TYPE}")
    if "id" in credential and type(credential["id"]) is not str:
        raise InvalidInputError("credential's id is malformed", expected="a URL")
    read_issuer(credential)
    subjects = credential.get("credentialSubject")
    found = subjects if type(subjects) is list else [subjects]
    if not 1 <= len(found) <= SUBJECTS_MAX or any(type(s) is not dict or not s for s in found):
        raise InvalidInputError("credentialSubject is malformed", expected="an object with claims")
    valid_from, valid_until = read_period(credential)
    if valid_from is not None and valid_until is not None and valid_until < valid_from:
        raise InvalidInputError("credential ends before it begins")


def read_types(value: Mapping[str, Any]) -> list[Any]:
    types = value.get("type")
    return types if type(types) is list else [types]


def read_issuer(credential: Mapping[str, Any]) -> str:
    """The issuer's identifier, any URL. Raises InvalidInputError."""
    issuer = credential.get("issuer")
    found = issuer.get("id") if type(issuer) is dict else issuer
    if type(found) is not str or ":" not in found:
        raise InvalidInputError("issuer is malformed", expected="a URL, or an object with id")
    return found


def read_period(credential: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(validFrom, validUntil) in Unix ms; None where absent. Raises InvalidInputError."""
    found = [
        read_date_time(credential[name], name) if name in credential else None
        for name in ("validFrom", "validUntil")
    ]
    return found[0], found[1]


# --- the checks ---


def _check_form(credential: Mapping[str, Any]) -> str:
    validate_credential(credential)
    proof = read_proof(credential)
    return f"It is a Verifiable Credential 2.0 with a proof of suite {proof.suite}."


def _check_issuer(credential: Mapping[str, Any]) -> str:
    issuer, proof = read_issuer(credential), read_proof(credential)
    if proof.purpose != ASSERTION:
        raise InvalidInputError(
            "proof has another purpose", expected=ASSERTION, got=proof.purpose[:80]
        )
    if "@context" in proof.options and proof.options["@context"] != credential.get("@context"):
        raise InvalidInputError("the credential's @context goes on where the signed one ends")
    method = parse_did_url(proof.verification_method)
    if method.did != issuer or method.path or method.query is not None or not method.fragment:
        raise InvalidInputError(
            "the proof is not by the issuer",
            expected=f"{issuer}#key",
            got=proof.verification_method,
        )
    return f"The proof names a key of the issuer, {proof.verification_method}."


def _find_key(credential: Mapping[str, Any], documents: DocumentSource) -> tuple[bytes, str]:
    proof = read_proof(credential)
    found = documents.document_at(read_issuer(credential), proof.created_ms)
    key = _read_key(found.document, proof.verification_method)
    if key is None:
        raise InvalidInputError(
            f"the key was not one for assertions at {format_date_time(proof.created_ms)}",
            expected=", ".join(found.document.get(ASSERTION, [])) or "none in that version",
            got=f"{proof.verification_method} (version {found.version_id})",
        )
    return key, f"{found.text} It lists the key for assertions."


def _check_settled(credential: Mapping[str, Any], documents: DocumentSource) -> str:
    """Whatever recovery is still possible, the key must be the issuer's."""
    proof = read_proof(credential)
    key, _ = _find_key(credential, documents)
    found = documents.document_at(read_issuer(credential), proof.created_ms)
    for document in found.instead:
        if _read_key(document, proof.verification_method) != key:
            raise CannotTellError(
                f"version {found.version_id}, which lists the key, can still be set aside by a "
                "recovery",
                expected="an answer about the issuer of a block of "
                f"{format_date_time(found.disputed_until_ms)} or later",
                retry=True,
            )
    if found.instead:
        return "That version can still be set aside, and the ones before it list the key too."
    return "No recovery can set that version aside any more."


def _read_key(document: Mapping[str, Any], method_id: str) -> bytes | None:
    """The key of a verification method, None if the document does not list it for assertions."""
    if method_id not in document.get(ASSERTION, []):
        return None
    method = next(m for m in document["verificationMethod"] if m["id"] == method_id)
    return decode_multikey(method["publicKeyMultibase"])


def _check_signature(credential: Mapping[str, Any], documents: DocumentSource) -> str:
    proof = read_proof(credential)
    key, _ = _find_key(credential, documents)
    verify_signature(credential, proof, key)
    return f"The signature of {format_date_time(proof.created_ms)} is that key's, of all of it."


def _check_period(credential: Mapping[str, Any], now_ms: int) -> str:
    proof = read_proof(credential)
    valid_from, valid_until = read_period(credential)
    for begin, what in ((proof.created_ms, "proof"), (valid_from, "credential")):
        if begin is not None and begin > now_ms + CLOCK_AHEAD_MAX_MS:
            raise InvalidInputError(
                f"the {what} is not valid yet; is this clock right?", got=format_date_time(begin)
            )
    for end, what in ((proof.expires_ms, "proof"), (valid_until, "credential")):
        if end is not None and end < now_ms:
            raise InvalidInputError(f"the {what} has expired", got=format_date_time(end))
    return f"It is valid {_describe_period(proof, valid_from, valid_until)}."


def _describe_period(proof: Proof, valid_from: int | None, valid_until: int | None) -> str:
    begin = proof.created_ms if valid_from is None else valid_from
    ends = [end for end in (valid_until, proof.expires_ms) if end is not None]
    text = f"from {format_date_time(begin)}"
    return f"{text} until {format_date_time(min(ends))}" if ends else f"{text}, without an end"
