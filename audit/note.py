"""Signed notes (C2SP signed-note v1): a text, and lines that say who signed it.

    <text, which ends in a newline>
    <empty line>
    — <name> <base64(key id 4 B || signature)>\\n          (the dash is U+2014), one or more

    key id = sha256(name || 0x0A || type byte || public key)[:4]
    vkey   = <name>+<key id in hex>+<base64(type byte || public key)>

Type 1 is Ed25519 over the text, type 4 a cosignature of a checkpoint (audit/cosign.py). The text
ends at the last empty line. Nothing in a note means anything before a signature of a key that the
reader knows has been verified; lines of other keys are passed over, but must be well formed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from enum import IntEnum

from ledger.ed25519 import PUBLIC_KEY_BYTES, KeyPair, is_valid_signature
from ledger.errors import InvalidInputError, UsageError

NOTE_BYTES_MAX = 128 * 1024
SIGNATURES_MAX = 512
"""256 validators at most, a log key, and witnesses."""
NAME_BYTES_MAX = 256
KEY_ID_BYTES = 4
SIGNATURE_BYTES_MAX = 8 * 1024
"""Post-quantum signatures of others have up to nearly 5 KB."""
VKEY_BYTES_MAX = 512
DASH = "—"


class KeyType(IntEnum):
    """The signature types that this code verifies."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """A verifier key: whose signature, and how it is made."""

    name: str
    type: KeyType
    public_key: bytes

    @classmethod
    def decode(cls, vkey: str) -> NoteKey:
        """Inverse of `vkey`. Raises InvalidInputError, also for a type that is not known here."""
        if len(vkey) > VKEY_BYTES_MAX:
            raise InvalidInputError("verifier key is too long", expected=f"<= {VKEY_BYTES_MAX}")
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise InvalidInputError(
                "verifier key is malformed", expected="name+key id+key", got=vkey[:80]
            )
        name, key_id, encoded = parts
        material = decode_base64(encoded, 1 + PUBLIC_KEY_BYTES)
        if material[0] not in (KeyType.ED25519, KeyType.COSIGNATURE):
            raise InvalidInputError(
                "verifier key has a type that is not known here",
                expected="1 (Ed25519) or 4 (cosignature/v1)",
                got=str(material[0]),
            )
        verify_name(name)
        key = cls(name=name, type=KeyType(material[0]), public_key=material[1:])
        if key.key_id.hex() != key_id:
            raise InvalidInputError(
                "verifier key has a wrong key id", expected=key.key_id.hex(), got=key_id[:16]
            )
        return key

    @property
    def key_id(self) -> bytes:
        material = bytes([self.type]) + self.public_key
        return hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as text."""
        material = base64.b64encode(bytes([self.type]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{material}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line; `signature` comes after the key id."""

    name: str
    key_id: bytes
    signature: bytes

    @classmethod
    def decode(cls, line: str) -> NoteSignature:
        """A line without its newline. Raises InvalidInputError."""
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != DASH:
            raise InvalidInputError(
                "signature line is malformed", expected=f"{DASH} name signature", got=line[:80]
            )
        verify_name(parts[1])
        data = decode_base64(parts[2])
        if not KEY_ID_BYTES < len(data) <= KEY_ID_BYTES + SIGNATURE_BYTES_MAX:
            raise InvalidInputError("signature line has a wrong length", got=f"{len(data)} B")
        return cls(name=parts[1], key_id=data[:KEY_ID_BYTES], signature=data[KEY_ID_BYTES:])

    @property
    def line(self) -> str:
        """With its newline."""
        encoded = base64.b64encode(self.key_id + self.signature).decode()
        return f"{DASH} {self.name} {encoded}\n"

    def is_of(self, key: NoteKey) -> bool:
        """True if it claims to be made with `key`."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text and its signature lines, none of them verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def decode(cls, note: str) -> Note:
        """Inverse of `encode`. Raises InvalidInputError."""
        data = _encode_text(note)
        if len(data) > NOTE_BYTES_MAX:
            raise InvalidInputError("note is too long", expected=f"at most {NOTE_BYTES_MAX} B")
        if any(byte < 0x20 and byte != 0x0A for byte in data):
            raise InvalidInputError("note has a control character")
        text, separator, lines = note.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise InvalidInputError("note has no signature lines")
        return cls(text=text + "\n", signatures=decode_signatures(lines))

    def encode(self) -> str:
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"

    def find(self, key: NoteKey) -> NoteSignature | None:
        """The first line that claims to be made with `key`."""
        return next((found for found in self.signatures if found.is_of(key)), None)


def decode_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """One or more signature lines, each with its newline. Raises InvalidInputError."""
    if not lines.endswith("\n"):
        raise InvalidInputError("signature lines do not end in a newline")
    found = lines[:-1].split("\n")
    if len(found) > SIGNATURES_MAX:
        raise InvalidInputError(
            "note has too many signatures", expected=f"<= {SIGNATURES_MAX}", got=str(len(found))
        )
    return tuple(NoteSignature.decode(line) for line in found)


def sign_text(text: str, name: str, key: KeyPair) -> NoteSignature:
    """Ed25519 over the text (type 1)."""
    note_key = NoteKey(name=name, type=KeyType.ED25519, public_key=key.public_key)
    return NoteSignature(name=name, key_id=note_key.key_id, signature=key.sign(text.encode()))


def verify_signed(note: Note, key: NoteKey) -> None:
    """Raises InvalidInputError unless a type 1 `key` signed the note and each line that claims to
    be its own holds."""
    if key.type is not KeyType.ED25519:
        raise UsageError("not a key that signs the text", expected="type 1", got=str(key.type))
    claims = [found for found in note.signatures if found.is_of(key)]
    if not claims:
        raise InvalidInputError("note is not signed by the expected key", expected=key.name)
    for claim in claims:
        if not is_valid_signature(key.public_key, note.text.encode(), claim.signature):
            raise InvalidInputError("note has a bad signature", got=key.name)


def verify_name(name: str) -> None:
    """Raises InvalidInputError for what can not name a key."""
    is_plain = name.isprintable() and "+" not in name and not any(c.isspace() for c in name)
    if not (0 < len(_encode_text(name)) <= NAME_BYTES_MAX and is_plain):
        raise InvalidInputError("key name is malformed", got=repr(name)[:80])


def decode_base64(text: str, length: int | None = None) -> bytes:
    """Standard base64 in its one canonical form. Raises InvalidInputError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("base64 is malformed", got=text[:80]) from error
    if base64.b64encode(data).decode() != text or length not in (None, len(data)):
        raise InvalidInputError(
            "base64 is malformed",
            expected="canonical" if length is None else f"{length} B",
            got=text[:80],
        )
    return data


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("text is not UTF-8") from error
