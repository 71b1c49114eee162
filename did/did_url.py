"""DID URLs of any method (W3C DID 1.1 section 3.2, RFC 3986): a DID, a path, a query, a fragment.

The query is `name=value` pairs joined by `&`. Names and values are percent-decoded to UTF-8 (`+`
is itself); a repeated name is refused, because readers would disagree on which one counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from did.syntax import is_did_syntax
from ledger.errors import InvalidInputError

DID_URL_CHARACTERS_MAX = 2048
DID_URL_PARAMETERS_MAX = 16

_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_DID_URL = re.compile(
    rf"(?P<did>did:[a-z0-9]+:[A-Za-z0-9._:%-]+)(?P<path>(?:/{_PCHAR}*)*)"
    rf"(?:\?(?P<query>(?:{_PCHAR}|[/?])*))?(?:#(?P<fragment>(?:{_PCHAR}|[/?])*))?"
)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DidUrl:
    """A parsed DID URL. `query` and `fragment` are None where absent, raw text where present;
    `parameters` is the decoded query, in its order."""

    did: str
    path: str
    query: str | None
    fragment: str | None
    parameters: Mapping[str, str]


def parse_did_url(text: object) -> DidUrl:
    """Split a DID URL. Raises InvalidInputError."""
    if type(text) is not str or len(text) > DID_URL_CHARACTERS_MAX:
        raise InvalidInputError("not a DID URL", got=repr(text)[:80])
    match = _DID_URL.fullmatch(text)
    if match is None or not is_did_syntax(match["did"]):
        raise InvalidInputError("not a DID URL", got=repr(text)[:80])
    return DidUrl(
        did=match["did"],
        path=match["path"],
        query=match["query"],
        fragment=match["fragment"],
        parameters=parse_query(match["query"] or ""),
    )


def parse_query(query: str) -> dict[str, str]:
    """The parameters of a raw query. Raises InvalidInputError."""
    if not query:
        return {}
    pairs = query.split("&")
    if len(pairs) > DID_URL_PARAMETERS_MAX:
        raise InvalidInputError(
            "DID URL has too many parameters", expected=f"at most {DID_URL_PARAMETERS_MAX}"
        )
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        name, value = percent_decode(name), percent_decode(value)
        if not name or name in found:
            raise InvalidInputError("DID URL repeats or omits a parameter name", got=name[:40])
        found[name] = value
    return found


def percent_decode(text: str) -> str:
    """Raises InvalidInputError for a broken escape, or bytes that are not UTF-8."""
    if _PERCENT.search(text) is not None:
        raise InvalidInputError("DID URL has a broken percent-encoding", got=text[:40])
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError("DID URL is not UTF-8 once decoded", got=text[:40]) from error
