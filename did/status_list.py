"""Bitstring Status List 1.0 (W3C Recommendation): revocation of many credentials in one list.

A status list is a credential whose subject carries the bits, one a credential:

    encodedList = u + base64url without padding of gzip(bits)

Bit 0 is the highest bit of the first byte; 1 means revoked. A list has at least 131,072 bits, so
that whoever fetches it does not tell the issuer which credential is looked at. The compressed form
is expanded in one bounded step, whatever it claims to hold.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from did.multikey import decode_base64url, encode_base64url
from ledger.errors import InvalidInputError, UsageError

LIST_BITS_MIN = 131_072
LIST_BITS_MAX = 8 * LIST_BITS_MIN
ENCODED_BYTES_MAX = LIST_BITS_MAX // 8 + 1024  # gzip adds a few bytes to what does not shrink
ENTRY_TYPE = "BitstringStatusListEntry"
LIST_TYPE = "BitstringStatusList"
LIST_CREDENTIAL_TYPE = "BitstringStatusListCredential"
REVOCATION = "revocation"
_INDEX_DIGITS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEntry:
    """Where a credential's status is: bit `index` of the list credential named `list_id`."""

    list_id: str
    index: int
    purpose: str

    def to_json(self) -> dict[str, str]:
        """The `credentialStatus` of a credential."""
        return {
            "id": f"{self.list_id}#{self.index}",
            "type": ENTRY_TYPE,
            "statusPurpose": self.purpose,
            "statusListIndex": str(self.index),
            "statusListCredential": self.list_id,
        }


def read_status_entry(credential: Mapping[str, Any]) -> StatusEntry | None:
    """The credential's status entry; None if it has none. Raises InvalidInputError, also for a
    second entry: each could revoke it, and one only is read here."""
    if "credentialStatus" not in credential:
        return None
    form = credential["credentialStatus"]
    if type(form) is list and len(form) == 1:
        form = form[0]
    if type(form) is not dict or form.get("type") not in (ENTRY_TYPE, [ENTRY_TYPE]):
        raise InvalidInputError("credentialStatus is malformed", expected=f"one {ENTRY_TYPE}")
    list_id, purpose = form.get("statusListCredential"), form.get("statusPurpose")
    digits = form.get("statusListIndex")
    if type(list_id) is not str or purpose != REVOCATION or form.get("statusSize", 1) != 1:
        raise InvalidInputError(
            "status entry is not one of revocation by one bit", got=str(purpose)
        )
    if type(digits) is not str or not digits.isascii() or not digits.isdigit():
        raise InvalidInputError("statusListIndex is malformed", got=repr(digits)[:40])
    if len(digits) > _INDEX_DIGITS_MAX or str(int(digits)) != digits:
        raise InvalidInputError("statusListIndex is out of range", got=digits[:40])
    return StatusEntry(list_id=list_id, index=int(digits), purpose=purpose)


def make_list_subject(list_id: str, bits: bytes) -> dict[str, str]:
    """The `credentialSubject` of a list credential."""
    return {
        "id": f"{list_id}#list",
        "type": LIST_TYPE,
        "statusPurpose": REVOCATION,
        "encodedList": encode_bits(bits),
    }


def read_bits(list_credential: Mapping[str, Any], entry: StatusEntry) -> bytes:
    """The bits of the list credential that `entry` names. Who signed it is the caller's duty.
    Raises InvalidInputError."""
    types, subject = list_credential.get("type"), list_credential.get("credentialSubject")
    if type(types) is not list or LIST_CREDENTIAL_TYPE not in types or type(subject) is not dict:
        raise InvalidInputError("not a status list", expected=LIST_CREDENTIAL_TYPE)
    if list_credential.get("id") != entry.list_id:
        raise InvalidInputError(
            "it is another status list",
            expected=entry.list_id[:200],
            got=repr(list_credential.get("id"))[:200],
        )
    if subject.get("type") != LIST_TYPE or subject.get("statusPurpose") != entry.purpose:
        raise InvalidInputError("status list has another purpose", expected=entry.purpose)
    bits = decode_bits(subject.get("encodedList"))
    if entry.index >= len(bits) * 8:
        raise InvalidInputError(
            "the status list has no such entry",
            expected=f"below {len(bits) * 8}",
            got=str(entry.index),
        )
    return bits


def is_set(bits: bytes, index: int) -> bool:
    return bool(bits[index // 8] >> (7 - index % 8) & 1)


def set_bit(bits: bytes, index: int) -> bytes:
    """`bits` with one more set. Raises UsageError."""
    if not 0 <= index < len(bits) * 8:
        raise UsageError("no such entry", expected=f"0..{len(bits) * 8 - 1}", got=str(index))
    changed = bytearray(bits)
    changed[index // 8] |= 0x80 >> index % 8
    return bytes(changed)


def encode_bits(bits: bytes) -> str:
    """`encodedList` of the bits. Raises UsageError for a length out of bounds."""
    if not LIST_BITS_MIN <= len(bits) * 8 <= LIST_BITS_MAX:
        raise UsageError(
            "status list has a wrong size", expected=f"{LIST_BITS_MIN}..{LIST_BITS_MAX} bits"
        )
    return "u" + encode_base64url(gzip.compress(bits, mtime=0))


def decode_bits(text: object) -> bytes:
    """Inverse of `encode_bits`, for any gzip of one member. Raises InvalidInputError."""
    if type(text) is not str or not text.startswith("u"):
        raise InvalidInputError("encodedList is malformed", expected="u and base64url")
    packed = decode_base64url(text[1:], bytes_max=ENCODED_BYTES_MAX)
    expander = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        bits = expander.decompress(packed, LIST_BITS_MAX // 8 + 1)
    except zlib.error as error:
        raise InvalidInputError("encodedList is not gzip", got=str(error)[:80]) from error
    if len(bits) * 8 > LIST_BITS_MAX or not expander.eof or expander.unused_data:
        raise InvalidInputError(
            "encodedList is not one gzip member of a bounded size",
            expected=f"at most {LIST_BITS_MAX} bits",
        )
    if len(bits) * 8 < LIST_BITS_MIN:
        raise InvalidInputError(
            "status list is too short", expected=f"{LIST_BITS_MIN} bits", got=f"{len(bits) * 8}"
        )
    return bits
