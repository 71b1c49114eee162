"""The consensus messages and their bytes (rule 4).

Wire: canonical msgpack, an array whose first field is the type:

    1 Propose      [1, height, view, block bin, [certificate, ...], signer bin32, signature bin64]
    2 Vote         [2, kind, height, view, block_hash bin(32|0), signer bin32, signature bin64]
    3 Certificate  [3, certificate]
    4 Status       [4, height, view, [view, ...], signer bin(32|0), signature bin(64|0)]
    5 BodyRequest  [5, height, block_hash bin32]
    6 Body         [6, block bin]
    7 Final        [7, block bin, certificate]

Heights and views start at 1. `decode_message` checks form and bounds only; signatures, quorums and
rules are the core's. The signer of a Status is empty for a full node, which has no key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ledger import codec
from ledger.block import BLOCK_BYTES_MAX, Block
from ledger.certificate import VIEW_MAX, Certificate, VoteKind
from ledger.ed25519 import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from ledger.errors import InvalidInputError

NEED_MAX = 64
JUSTIFY_NULLIFICATIONS_MAX = NEED_MAX
JUSTIFY_MAX = 1 + JUSTIFY_NULLIFICATIONS_MAX
"""A notarization and the newest nullifications. With the largest block and certificates of 256
validators this stays below the 4 MiB of a frame; older nullifications are asked for (rule 6)."""
MESSAGE_BYTES_MAX = BLOCK_BYTES_MAX + 2 * 1024 * 1024
HEIGHT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """A leader's block for a view. The signature covers (height, view, block hash)."""

    height: int
    view: int
    block: Block
    justify: tuple[Certificate, ...]
    signer: bytes
    signature: bytes

    def encode(self) -> bytes:
        return codec.encode(
            [
                1,
                self.height,
                self.view,
                self.block.encoded,
                [c.to_value() for c in self.justify],
                self.signer,
                self.signature,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """Notarize, nullify (empty hash) or finalize."""

    kind: VoteKind
    height: int
    view: int
    block_hash: bytes
    signer: bytes
    signature: bytes

    def encode(self) -> bytes:
        return codec.encode(
            [
                2,
                int(self.kind),
                self.height,
                self.view,
                self.block_hash,
                self.signer,
                self.signature,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateMessage:
    certificate: Certificate

    @property
    def height(self) -> int:
        return self.certificate.height

    def encode(self) -> bytes:
        return codec.encode([3, self.certificate.to_value()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where the sender is, and the views whose nullifications it lacks (rule 5)."""

    height: int
    view: int
    need: tuple[int, ...]
    signer: bytes = b""
    signature: bytes = b""

    def encode(self) -> bytes:
        return codec.encode(
            [4, self.height, self.view, list(self.need), self.signer, self.signature]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyRequest:
    height: int
    block_hash: bytes

    def encode(self) -> bytes:
        return codec.encode([5, self.height, self.block_hash])


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    block: Block

    @property
    def height(self) -> int:
        return self.block.height

    def encode(self) -> bytes:
        return codec.encode([6, self.block.encoded])


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A finalized block with its finalization certificate."""

    block: Block
    certificate: Certificate

    @property
    def height(self) -> int:
        return self.certificate.height

    def encode(self) -> bytes:
        return codec.encode([7, self.block.encoded, self.certificate.to_value()])


ConsensusMessage = Propose | Vote | CertificateMessage | Status | BodyRequest | Body | Final


def decode_message(data: bytes) -> ConsensusMessage:
    """Inverse of each message's `encode`. Raises InvalidInputError."""
    value = codec.decode(data, bytes_max=MESSAGE_BYTES_MAX)
    if type(value) is not list or not value:
        raise InvalidInputError("consensus message is malformed", expected="a non-empty array")
    decoder = _DECODERS.get(value[0]) if type(value[0]) is int else None
    if decoder is None:
        raise InvalidInputError("consensus message has an unknown type", got=repr(value[0])[:40])
    return decoder(value)


def _read_height(value: object) -> int:
    height = codec.read_int(value, "height", HEIGHT_MAX)
    if height == 0:
        raise InvalidInputError("height is malformed", expected=">= 1", got="0")
    return height


def _read_view(value: object) -> int:
    view = codec.read_int(value, "view", VIEW_MAX)
    if view == 0:
        raise InvalidInputError("view is malformed", expected=">= 1", got="0")
    return view


def _read_block(value: object) -> Block:
    block = Block.decode(codec.read_bytes(value, "block", maximum=BLOCK_BYTES_MAX))
    _read_height(block.height)
    return block


def _read_certificate(value: object) -> Certificate:
    certificate = Certificate.from_value(value)
    _read_height(certificate.height)
    _read_view(certificate.view)
    return certificate


def _decode_propose(value: list[Any]) -> Propose:
    _, height, view, block, justify, signer, signature = codec.read_array(value, 7, "proposal")
    propose = Propose(
        height=_read_height(height),
        view=_read_view(view),
        block=_read_block(block),
        justify=tuple(
            _read_certificate(c) for c in codec.read_list(justify, JUSTIFY_MAX, "justify")
        ),
        signer=codec.read_bytes(signer, "signer", length=PUBLIC_KEY_BYTES),
        signature=codec.read_bytes(signature, "signature", length=SIGNATURE_BYTES),
    )
    if propose.block.height != propose.height:
        raise InvalidInputError(
            "proposal is for another height than its block",
            expected=str(propose.block.height),
            got=str(propose.height),
        )
    return propose


def _decode_vote(value: list[Any]) -> Vote:
    _, kind, height, view, block_hash, signer, signature = codec.read_array(value, 7, "vote")
    kind = codec.read_int(kind, "vote kind", 3)
    if kind == 0:
        raise InvalidInputError("vote kind is unknown", expected="1..3", got="0")
    hash_bytes = 0 if kind == VoteKind.NULLIFY else codec.HASH_BYTES
    return Vote(
        kind=VoteKind(kind),
        height=_read_height(height),
        view=_read_view(view),
        block_hash=codec.read_bytes(block_hash, "vote block hash", length=hash_bytes),
        signer=codec.read_bytes(signer, "signer", length=PUBLIC_KEY_BYTES),
        signature=codec.read_bytes(signature, "signature", length=SIGNATURE_BYTES),
    )


def _decode_certificate(value: list[Any]) -> CertificateMessage:
    _, certificate = codec.read_array(value, 2, "certificate message")
    return CertificateMessage(certificate=_read_certificate(certificate))


def _decode_status(value: list[Any]) -> Status:
    _, height, view, need, signer, signature = codec.read_array(value, 6, "status")
    status = Status(
        height=_read_height(height),
        view=_read_view(view),
        need=tuple(_read_view(v) for v in codec.read_list(need, NEED_MAX, "needed views")),
    )
    if signer == b"" and signature == b"":
        return status
    return replace(
        status,
        signer=codec.read_bytes(signer, "signer", length=PUBLIC_KEY_BYTES),
        signature=codec.read_bytes(signature, "signature", length=SIGNATURE_BYTES),
    )


def _decode_body_request(value: list[Any]) -> BodyRequest:
    _, height, block_hash = codec.read_array(value, 3, "body request")
    return BodyRequest(
        height=_read_height(height),
        block_hash=codec.read_bytes(block_hash, "block hash", length=codec.HASH_BYTES),
    )


def _decode_body(value: list[Any]) -> Body:
    _, block = codec.read_array(value, 2, "body")
    return Body(block=_read_block(block))


def _decode_final(value: list[Any]) -> Final:
    _, block, certificate = codec.read_array(value, 3, "final")
    final = Final(block=_read_block(block), certificate=_read_certificate(certificate))
    if final.certificate.kind is not VoteKind.FINALIZE:
        raise InvalidInputError("final carries no finalization", got=final.certificate.kind.name)
    if (final.certificate.height, final.certificate.block_hash) != (
        final.block.height,
        final.block.hash,
    ):
        raise InvalidInputError("final's certificate is for another block")
    return final


_DECODERS: dict[int, Callable[[list[Any]], ConsensusMessage]] = {
    1: _decode_propose,
    2: _decode_vote,
    3: _decode_certificate,
    4: _decode_status,
    5: _decode_body_request,
    6: _decode_body,
    7: _decode_final,
}
