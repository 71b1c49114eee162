"""Checkpoints: the log's head in the C2SP forms that other people's tools read.

Body (C2SP tlog-checkpoint): origin, size, root, each ending in a newline:

    <origin>\\n<size in decimal>\\n<base64 of the root hash>\\n

It is the text of a signed note (audit/note.py). Extension lines are allowed to others; this log has
none, since nothing could check them, and refuses them in its own checkpoints.

The origin names the chain, not the node: all nodes serve one log, each signs its head under the
log's name with a log key of its own, and validators cosign it (audit/cosign.py). What makes a head
true is the header with its certificate; the note carries the same head to tools that know logs but
not this chain.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from audit.note import (
    NOTE_BYTES_MAX,
    KeyType,
    Note,
    NoteKey,
    decode_base64,
    sign_text,
    verify_signed,
)
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError

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
        checkpoint = cls(origin=origin, tree_size=int(size), root_hash=decode_base64(root, 32))
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
    """The log's name, from which its keys' ids are derived too."""
    return f"zynk.log/{chain_id}"


def log_note_key(chain_id: str, public_key: bytes) -> NoteKey:
    """What verifies the line of a node's log key."""
    return NoteKey(name=compute_origin(chain_id), type=KeyType.ED25519, public_key=public_key)


def compute_key_id(name: str, public_key: bytes) -> bytes:
    """The 4 bytes that tell a note's signers apart (Ed25519)."""
    return NoteKey(name=name, type=KeyType.ED25519, public_key=public_key).key_id


def sign_note(body: str, name: str, key: KeyPair) -> str:
    """The signed note with one signature line."""
    return Note(text=body, signatures=(sign_text(body, name, key),)).encode()


def verify_note(note: str, name: str, public_key: bytes) -> Checkpoint:
    """The checkpoint of a note that `name` signed. Raises InvalidInputError."""
    decoded = Note.decode(note)
    verify_signed(decoded, NoteKey(name=name, type=KeyType.ED25519, public_key=public_key))
    return Checkpoint.decode(decoded.text)


def _verify_origin(origin: str) -> None:
    is_plain = origin.isascii() and origin.isprintable() and " " not in origin
    if not (0 < len(origin) <= ORIGIN_MAX and is_plain and "+" not in origin):
        raise InvalidInputError("checkpoint origin is malformed", got=repr(origin)[:80])
