"""DIDs of the method `zynk` (W3C DID 1.1 section 3.1); DID URLs are in `did.did_url`.

`did:zynk:` + `z` + base58btc(12 20 | hash), where hash is the operation hash of the create
operation (`did.operation`): the identifier certifies itself, with all 256 bits. It has one
spelling; 56 characters in all.
"""

from __future__ import annotations

import re

from did.multikey import decode_hash, encode_hash
from ledger.errors import InvalidInputError

DID_PREFIX = "did:zynk:"
DID_CHARACTERS_MAX = 64
DID_ANY_CHARACTERS_MAX = 2048

_DID_ANY = re.compile(
    r"did:[a-z0-9]+:(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})*:)*(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+"
)


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
        and len(text) <= DID_ANY_CHARACTERS_MAX
        and _DID_ANY.fullmatch(text) is not None
    )
