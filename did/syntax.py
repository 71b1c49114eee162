"""DIDs and DID URLs of the method `zynk` (W3C DID 1.1 section 3, RFC 3986).

`did:zynk:` + `z` + base58btc(12 20 | hash), where hash is the operation hash of the create
operation (`did.operation`): the identifier certifies itself, with all 256 bits. It has one
spelling; 56 characters in all.

A DID URL adds path, query and fragment. Parameters are `name=value` pairs joined by `&`, percent-
decoded; a repeated name is refused, because readers would disagree on which one counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from did.multikey import decode_hash, encode_hash
from ledger.errors import InvalidInputError

DID_PREFIX = "did:zynk:"
DID_CHARACTERS_MAX = 64
DID_URL_CHARACTERS_MAX = 2048
DID_URL_PARAMETERS_MAX = 16

_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_DID_URL = re.compile(
    rf"(?P<did>did:[a-z0-9]+:[A-Za-z0-9._:%-]+)(?P<path>(?:/{_PCHAR}*)*)"
    rf"(?:\?(?P<query>(?:{_PCHAR}|[/?])*))?(?:#(?P<fragment>(?:{_PCHAR}|[/?])*))?"
)
_DID_ANY = re.compile(
    r"did:[a-z0-9]+:(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})*:)*(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DidUrl:
    """A parsed DID URL. `query` and `fragment` are None where absent, raw text where present;
    `parameters` is the decoded query."""

    did: str
    path: str
    query: str | None
    fragment: str | None
    parameters: tuple[tuple[str, str], ...]


def encode_did(digest: bytes) -> str:
    """The DID of a create operation's 32-byte hash."""
    return DID_PREFIX + encode_hash(digest)


def decode_did(text: object) -> bytes:
    """The 32-byte identifier of a `did:zynk` DID. Raises InvalidInputError."""
    if type(text) is not str or len(text) > DID_CHARACTERS_MAX or not (text.startswith(DID_PREFIX)):
        raise InvalidInputError("not a did:zynk DID", got=repr(text)[:80])
    return decode_hash(text[len(DID_PREFIX) :])


def is_did_syntax(text: object) -> bool:
    """True for a DID of any method by the generic syntax."""
    return (
        type(text) is str
        and len(text) <= DID_URL_CHARACTERS_MAX
        and _DID_ANY.fullmatch(text) is not None
    )


def parse_did_url(text: object) -> DidUrl:
    """Split a `did:zynk` DID URL. Raises InvalidInputError."""
    if type(text) is not str or len(text) > DID_URL_CHARACTERS_MAX:
        raise InvalidInputError("not a DID URL", got=repr(text)[:80])
    match = _DID_URL.fullmatch(text)
    if match is None:
        raise InvalidInputError("not a DID URL", got=repr(text)[:80])
    decode_did(match["did"])
    return DidUrl(
        did=match["did"],
        path=match["path"],
        query=match["query"],
        fragment=match["fragment"],
        parameters=_parse_parameters(match["query"]),
    )


def _parse_parameters(query: str | None) -> tuple[tuple[str, str], ...]:
    if not query:
        return ()
    pairs = query.split("&")
    if len(pairs) > DID_URL_PARAMETERS_MAX:
        raise InvalidInputError(
            "DID URL has too many parameters", expected=f"at most {DID_URL_PARAMETERS_MAX}"
        )
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name, value = _percent_decode(name), _percent_decode(value)
        if not name or name in found:
            raise InvalidInputError("DID URL repeats or omits a parameter name", got=name[:40])
        found[name] = value
    return tuple(found.items())


def _percent_decode(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError("DID URL is not UTF-8 once decoded", got=text[:40]) from error
