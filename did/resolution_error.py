"""Errors of DID resolution and dereferencing: RFC 9457 objects, and the HTTP status of each.

W3C DID Resolution, "Errors" and "HTTP(S) Binding". The two errors about verification methods are
those of Controlled Identifiers 1.0 section 3.5; the binding gives them, as any other, status 500.
"""

from __future__ import annotations

from typing import Final

from ledger.errors import InvalidInputError

DID_ERROR_PREFIX: Final = "https://www.w3.org/ns/did#"
CID_ERROR_PREFIX: Final = "https://w3id.org/security#"
STATUS_BY_CODE: Final = {
    "INVALID_DID": 400,
    "INVALID_DID_URL": 400,
    "INVALID_OPTIONS": 400,
    "NOT_FOUND": 404,
    "REPRESENTATION_NOT_SUPPORTED": 406,
    "INVALID_DID_DOCUMENT": 500,
    "INTERNAL_ERROR": 500,
    "METHOD_NOT_SUPPORTED": 501,
    "FEATURE_NOT_SUPPORTED": 501,
}
STATUS_OTHER = 500
_CID_CODES = frozenset(
    ("INVALID_VERIFICATION_METHOD", "INVALID_RELATIONSHIP_FOR_VERIFICATION_METHOD")
)


class ResolutionError(InvalidInputError):
    """What was asked has no answer but an error: `code` is the word that its type ends in."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def error_object(code: str, detail: str) -> dict[str, str]:
    """The RFC 9457 object: {type, title, detail}."""
    prefix = CID_ERROR_PREFIX if code in _CID_CODES else DID_ERROR_PREFIX
    title = code.replace("_", " ").capitalize().replace("did", "DID").replace(" url", " URL")
    return {"type": prefix + code, "title": title, "detail": detail}


def status_of_error(error: object) -> int:
    """The HTTP status of an error object."""
    kind = error.get("type") if isinstance(error, dict) else None
    code = str(kind).rsplit("#", 1)[-1]
    return STATUS_BY_CODE.get(code, STATUS_OTHER)
