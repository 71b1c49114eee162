"""Multibase, multihash and Multikey text forms, each with exactly one spelling.

- base58btc multibase: `z` + base58 of the bytes (W3C Controlled Identifiers 1.0, section 2.4);
- Multikey: `z` + base58(ed 01 | 32 B) for Ed25519, `z` + base58(ec 01 | 32 B) for X25519
  (the same, section 2.2.2);
- hash: `z` + base58(12 20 | 32 B), a sha2-256 multihash, always `zQm` + 44 characters;
- signature: base64url without padding of 64 B, 86 characters.

Decoding caps the length first (base58 is quadratic) and encodes again to compare, which refuses
white space, other alphabets and stray trailing bits.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

import base58

from ledger.errors import InvalidInputError, UsageError

ED25519_PREFIX = b"\xed\x01"
X25519_PREFIX = b"\xec\x01"
SHA2_256_PREFIX = b"\x12\x20"
TEXT_CHARACTERS_MAX = 64


def encode_multikey(public_key: bytes, prefix: bytes = ED25519_PREFIX) -> str:
    """Multikey text of a 32-byte public key."""
    return _encode_prefixed(prefix, public_key)


def decode_multikey(text: object) -> bytes:
    """The 32 bytes of an Ed25519 Multikey. Raises InvalidInputError."""
    prefix, key = split_multikey(text)
    if prefix != ED25519_PREFIX:
        raise InvalidInputError("key is not an Ed25519 Multikey", got=repr(text)[:80])
    return key


def split_multikey(text: object) -> tuple[bytes, bytes]:
    """(prefix, 32 B key) of an Ed25519 or X25519 Multikey. Raises InvalidInputError."""
    prefix, key = _split_multibase(_read_text(text))
    if prefix not in (ED25519_PREFIX, X25519_PREFIX):
        raise InvalidInputError("key is not a known Multikey", got=repr(text)[:80])
    return prefix, key


def encode_hash(digest: bytes) -> str:
    """Multibase text of the sha2-256 multihash of a 32-byte digest."""
    return _encode_prefixed(SHA2_256_PREFIX, digest)


def decode_hash(text: object) -> bytes:
    """Inverse of `encode_hash`. Raises InvalidInputError."""
    prefix, digest = _split_multibase(_read_text(text))
    if prefix != SHA2_256_PREFIX:
        raise InvalidInputError("not a sha2-256 multihash", got=repr(text)[:80])
    return digest


def encode_base64url(data: bytes) -> str:
    """base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: object, *, bytes_max: int) -> bytes:
    """Inverse of `encode_base64url`, that spelling only. Raises InvalidInputError."""
    if type(text) is not str or len(text) > bytes_max * 4 // 3 + 2:
        raise InvalidInputError(
            "base64url is malformed", expected=f"text of at most {bytes_max} B", got=repr(text)[:40]
        )
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("base64url is malformed", got=repr(text)[:40]) from error
    if encode_base64url(data) != text:
        raise InvalidInputError("base64url is not canonical", got=repr(text)[:40])
    return data


@lru_cache(maxsize=8192)
def _encode_prefixed(prefix: bytes, payload: bytes) -> str:
    if len(payload) != 32:
        raise UsageError("payload has a wrong length", expected="32 B", got=f"{len(payload)} B")
    return "z" + str(base58.b58encode(prefix + payload).decode("ascii"))


def _read_text(text: object) -> str:
    if type(text) is not str or not text.startswith("z") or len(text) > TEXT_CHARACTERS_MAX:
        raise InvalidInputError(
            "not base58btc multibase",
            expected=f"z and at most {TEXT_CHARACTERS_MAX - 1} characters",
            got=repr(text)[:80],
        )
    return text


@lru_cache(maxsize=8192)
def _split_multibase(text: str) -> tuple[bytes, bytes]:
    """(2 B prefix, 32 B payload); no prefix if there are not 34 B. The comparison leaves the text
    where it is asked for next: who resolves a DID is shown it."""
    try:
        raw = bytes(base58.b58decode(text[1:].encode("ascii")))
    except ValueError as error:  # UnicodeEncodeError is one too
        raise InvalidInputError("not base58", got=repr(text)[:80]) from error
    if len(raw) != 34:
        return b"", raw
    prefix, payload = raw[:2], raw[2:]
    if _encode_prefixed(prefix, payload) != text:
        raise InvalidInputError("base58 is not canonical", got=repr(text)[:80])
    return prefix, payload
