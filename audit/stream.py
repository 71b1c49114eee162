"""Streams: who may anchor, how much, and for whom. Message type `audit/stream`.

Body:
    create = ["create", owner str, [submitter bin32, ...], quota, description_hash bin32,
              salt bin16, [[multikey str, signature bin64], ...]]
    update = ["update", stream bin32, sequence, [submitter bin32, ...], quota,
              description_hash bin32, [[multikey str, signature bin64], ...]]

- The signatures are the owner DID's control keys over
  sign_bytes("audit-stream", chain id, the body's fields without the signatures). A create counts
  as sequence 0 and can not be replayed, since its stream then exists; each update carries the next
  sequence number. Anyone may pay.
- stream id = H("audit-stream", [chain id, create fields without the signatures]). The salt lets an
  owner have two streams that are otherwise the same.
- Submitters are account public keys, ascending and distinct: a payer among them may anchor.
- The quota is leaves a UTC day of block time.
- An update replaces submitters, quota and description hash. The owner never changes. The
  description itself stays off the chain.

State row `audit-stream` | stream: [owner, sequence, [submitter, ...], quota, description_hash,
created_ms, updated_ms].
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from audit.leaf import STREAM_BYTES, encode_stream_text
from audit.rows import INDEX_OWNER, INDEX_STREAM
from ledger import codec
from ledger.errors import InvalidInputError
from ledger.execution import Event, ExecutionContext, TxFailure
from ledger.state import state_key
from ledger.views import DidAuthority

MESSAGE_TYPE = "audit/stream"
STREAM_DOMAIN = "audit-stream"
BODY_BYTES_MAX = 8 * 1024
SUBMITTERS_MAX = 64
SIGNATURES_MAX = 8
OWNER_MAX = 256
MULTIKEY_MAX = 128
QUOTA_MAX = 2**53 - 1
SALT_BYTES = 16

Signatures = tuple[tuple[str, bytes], ...]


class Rows(Protocol):
    """Whatever gives state rows: a handler's view or a proven view."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a state row, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStream:
    """A create body; see the module docstring. `signatures` are (Multikey, 64 B)."""

    owner: str
    submitters: tuple[bytes, ...]
    quota: int
    description_hash: bytes
    salt: bytes
    signatures: Signatures = ()

    def unsigned_value(self) -> list[codec.Value]:
        return [
            "create",
            self.owner,
            list(self.submitters),
            self.quota,
            self.description_hash,
            self.salt,
        ]

    def stream(self, chain_id: str) -> bytes:
        """The id of the stream that this body creates, 32 B."""
        return codec.hash_tagged("audit-stream", codec.encode([chain_id, *self.unsigned_value()]))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStream:
    """An update body; `sequence` is the record's plus one."""

    stream: bytes
    sequence: int
    submitters: tuple[bytes, ...]
    quota: int
    description_hash: bytes
    signatures: Signatures = ()

    def unsigned_value(self) -> list[codec.Value]:
        return [
            "update",
            self.stream,
            self.sequence,
            list(self.submitters),
            self.quota,
            self.description_hash,
        ]


StreamBody = CreateStream | UpdateStream


def stream_sign_bytes(chain_id: str, body: StreamBody) -> bytes:
    """What the owner's control keys sign."""
    return codec.sign_bytes("audit-stream", chain_id, body.unsigned_value())


def encode_stream_body(body: StreamBody) -> bytes:
    """Wire bytes of the message body, signatures included."""
    return codec.encode([*body.unsigned_value(), body.signatures])


def decode_stream_body(data: bytes) -> StreamBody:
    """Inverse of `encode_stream_body`. Raises InvalidInputError."""
    v = codec.read_array(codec.decode(data, bytes_max=BODY_BYTES_MAX), 7, "stream body")
    if v[0] == "create":
        return CreateStream(
            owner=_read_owner(v[1]),
            submitters=_read_submitters(v[2]),
            quota=_read_quota(v[3]),
            description_hash=codec.read_bytes(v[4], "description hash", length=32),
            salt=codec.read_bytes(v[5], "stream salt", length=SALT_BYTES),
            signatures=_read_signatures(v[6]),
        )
    if v[0] == "update":
        return UpdateStream(
            stream=codec.read_bytes(v[1], "stream id", length=STREAM_BYTES),
            sequence=codec.read_int(v[2], "stream sequence"),
            submitters=_read_submitters(v[3]),
            quota=_read_quota(v[4]),
            description_hash=codec.read_bytes(v[5], "description hash", length=32),
            signatures=_read_signatures(v[6]),
        )
    raise InvalidInputError(
        "stream action is unknown", expected="create or update", got=repr(v[0])[:40]
    )


def _read_owner(value: object) -> str:
    owner = codec.read_str(value, "stream owner", OWNER_MAX)
    if not owner.startswith("did:") or not owner.isascii() or not owner.isprintable():
        raise InvalidInputError("stream owner is no DID", got=repr(owner)[:80])
    return owner


def _read_submitters(value: object) -> tuple[bytes, ...]:
    items = codec.read_list(value, SUBMITTERS_MAX, "stream submitters")
    found = tuple(codec.read_bytes(item, "submitter key", length=32) for item in items)
    if any(a >= b for a, b in pairwise(found)):
        raise InvalidInputError("stream submitters are not ascending and distinct")
    return found


def _read_quota(value: object) -> int:
    return codec.read_int(value, "stream quota", QUOTA_MAX)


def _read_signatures(value: object) -> Signatures:
    found = []
    for item in codec.read_list(value, SIGNATURES_MAX, "stream signatures"):
        key, signature = codec.read_array(item, 2, "stream signature")
        found.append(
            (
                codec.read_str(key, "signing key", MULTIKEY_MAX),
                codec.read_bytes(signature, "stream signature", length=64),
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """A stream as the state tree has it; times are block times in Unix milliseconds."""

    owner: str
    sequence: int
    submitters: tuple[bytes, ...]
    quota: int
    description_hash: bytes
    created_ms: int
    updated_ms: int

    @classmethod
    def decode(cls, data: bytes) -> StreamRecord:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=BODY_BYTES_MAX), 7, "stream record")
        return cls(
            owner=_read_owner(v[0]),
            sequence=codec.read_int(v[1], "stream sequence"),
            submitters=_read_submitters(v[2]),
            quota=_read_quota(v[3]),
            description_hash=codec.read_bytes(v[4], "description hash", length=32),
            created_ms=codec.read_int(v[5], "stream creation time"),
            updated_ms=codec.read_int(v[6], "stream update time"),
        )

    def encode(self) -> bytes:
        return codec.encode(
            [
                self.owner,
                self.sequence,
                list(self.submitters),
                self.quota,
                self.description_hash,
                self.created_ms,
                self.updated_ms,
            ]
        )


def stream_key(stream: bytes) -> bytes:
    """State row of a stream's record."""
    return state_key(STREAM_DOMAIN, stream)


def read_stream(rows: Rows, stream: bytes) -> StreamRecord | None:
    """The stream's record, or None."""
    data = rows.get(stream_key(stream))
    return None if data is None else StreamRecord.decode(data)


class StreamHandler:
    """`TxHandler` for `audit/stream`.

    Failure codes: `audit/stream-exists`, `audit/no-stream`, `audit/bad-sequence`, and those of
    `DidAuthority`.
    """

    type = MESSAGE_TYPE

    def weight_of(self, body: bytes) -> int:
        """Signatures to check, and rows."""
        return 4

    def __init__(self, authority: DidAuthority) -> None:
        self._authority = authority

    def check(self, body: bytes) -> None:
        if not decode_stream_body(body).signatures:
            raise InvalidInputError("stream body is not signed", expected="a control key's")

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        match decode_stream_body(body):
            case CreateStream() as create:
                self._apply_create(context, create)
            case UpdateStream() as update:
                self._apply_update(context, update)

    def _apply_create(self, context: ExecutionContext, body: CreateStream) -> None:
        stream = body.stream(context.chain_id)
        if context.state.get(stream_key(stream)) is not None:
            raise TxFailure("audit/stream-exists", "stream exists", got=encode_stream_text(stream))
        self._verify_owner(context, body.owner, body)
        record = StreamRecord(
            owner=body.owner,
            sequence=0,
            submitters=body.submitters,
            quota=body.quota,
            description_hash=body.description_hash,
            created_ms=context.time_ms,
            updated_ms=context.time_ms,
        )
        context.state.put(stream_key(stream), record.encode())
        context.side_put(INDEX_STREAM + stream, b"")
        owner_hash = hashlib.sha256(body.owner.encode()).digest()
        context.side_put(INDEX_OWNER + owner_hash + stream, b"")
        _emit(context, "audit.stream-created", stream, record)

    def _apply_update(self, context: ExecutionContext, body: UpdateStream) -> None:
        record = read_stream(context.state, body.stream)
        if record is None:
            raise TxFailure(
                "audit/no-stream", "no such stream", got=encode_stream_text(body.stream)
            )
        if body.sequence != record.sequence + 1:
            raise TxFailure(
                "audit/bad-sequence",
                "stream update is out of sequence",
                expected=str(record.sequence + 1),
                got=str(body.sequence),
            )
        self._verify_owner(context, record.owner, body)
        updated = StreamRecord(
            owner=record.owner,
            sequence=body.sequence,
            submitters=body.submitters,
            quota=body.quota,
            description_hash=body.description_hash,
            created_ms=record.created_ms,
            updated_ms=context.time_ms,
        )
        context.state.put(stream_key(body.stream), updated.encode())
        _emit(context, "audit.stream-updated", body.stream, updated)

    def _verify_owner(self, context: ExecutionContext, owner: str, body: StreamBody) -> None:
        message = stream_sign_bytes(context.chain_id, body)
        self._authority.verify_authority(context.state, owner, message, body.signatures)


def _emit(context: ExecutionContext, kind: str, stream: bytes, record: StreamRecord) -> None:
    context.emit(
        Event(
            kind,
            (
                ("owner", record.owner),
                ("sequence", str(record.sequence)),
                ("stream", encode_stream_text(stream)),
            ),
        )
    )
