"""Checkpoints: the log's head in the C2SP forms that other people's tools read.

Body (C2SP tlog-checkpoint): origin, size, root, then extension lines, each ending in a newline:

    <origin>\\n<size in decimal>\\n<base64 of the root hash>\\n

Signed note (C2SP signed-note): the body, an empty line, and a line a signature:

    — <name> <base64(key id 4 B || signature)>\\n        (the dash is U+2014)

with key id = sha256(name || 0x0A || 0x01 || public key)[:4] for Ed25519, whose signature covers the
body. A checkpoint is unsigned here unless the caller has a log key: what makes a head true is the
header with its certificate; validators' cosignatures come with their own keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.errors import InvalidInputError, UsageError

NOTE_BYTES_MAX = 64 * 1024
SIGNATURE_TYPE_ED25519 = b"\x01"
KEY_ID_BYTES = 4
ORIGIN_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head under its log's name."""

    origin: str
    tree_size: int
    root_hash: bytes

    @classmethod
    def decode(cls, body: str) -> Checkpoint:
        """Inverse of `body`; extension lines are refused. Raises InvalidInputError."""
        lines = body.split("\n")
        if len(body) > NOTE_BYTES_MAX or len(lines) != 4 or lines[3]:
            raise InvalidInputError("checkpoint is malformed", expected="three lines")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdigit() and len(size) <= 19) or str(int(size)) != size:
            raise InvalidInputError("checkpoint size is malformed", got=size[:40])
        checkpoint = cls(origin=origin, tree_size=int(size), root_hash=_decode_base64(root, 32))
        _verify_origin(origin)
        return checkpoint

    def body(self) -> str:
        """The text that signatures cover. Raises UsageError for an origin with odd characters."""
        try:
            _verify_origin(self.origin)
        except InvalidInputError as error:
            raise UsageError("origin has no place in a checkpoint", got=self.origin) from error
        root = base64.b64encode(self.root_hash).decode()
        return f"{self.origin}\n{self.tree_size}\n{root}\n"


def compute_origin(chain_id: str) -> str:
    """The log's name, from which its key's id is derived too."""
    return f"zynk.log/{chain_id}"


def compute_key_id(name: str, public_key: bytes) -> bytes:
    """The 4 bytes that tell a note's signers apart (Ed25519)."""
    return hashlib.sha256(name.encode() + b"\n" + SIGNATURE_TYPE_ED25519 + public_key).digest()[
        :KEY_ID_BYTES
    ]


def sign_note(body: str, name: str, key: KeyPair) -> str:
    """The signed note with one signature line."""
    signed = compute_key_id(name, key.public_key) + key.sign(body.encode())
    return f"{body}\n— {name} {base64.b64encode(signed).decode()}\n"


def verify_note(note: str, name: str, public_key: bytes) -> Checkpoint:
    """The checkpoint of a note that `name` signed. Raises InvalidInputError."""
    if len(note) > NOTE_BYTES_MAX:
        raise InvalidInputError("note is too long", expected=f"at most {NOTE_BYTES_MAX}")
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise InvalidInputError("note has no signature lines")
    body = text + "\n"
    key_id = compute_key_id(name, public_key)
    for line in signatures[:-1].split("\n"):
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        if dash != "—" or signer != name:
            continue
        signed = _decode_base64(encoded, KEY_ID_BYTES + 64)
        if signed[:KEY_ID_BYTES] != key_id:
            continue
        if is_valid_signature(public_key, body.encode(), signed[KEY_ID_BYTES:]):
            return Checkpoint.decode(body)
        raise InvalidInputError("note has a bad signature", got=name)
    raise InvalidInputError("note is not signed by the expected key", expected=name)


def _verify_origin(origin: str) -> None:
    is_plain = origin.isascii() and origin.isprintable() and " " not in origin
    if not (0 < len(origin) <= ORIGIN_MAX and is_plain and "+" not in origin):
        raise InvalidInputError("checkpoint origin is malformed", got=repr(origin)[:80])


def _decode_base64(text: str, length: int) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("base64 is malformed", got=text[:80]) from error
    if len(data) != length or base64.b64encode(data).decode() != text:
        raise InvalidInputError("base64 is malformed", expected=f"{length} B", got=text[:80])
    return data
