"""Votes' sign bytes and quorum certificates.

A vote of kind `notarize` | `nullify` | `finalize` signs (chain id, height, view, block hash); the
hash of a nullify vote is empty. A certificate is the votes of more than 2/3 of the power of the
height's validator set: a bitmap in set order (most significant bit first) and the signatures in
the same order. Every signature is verified; nothing is aggregated.

Wire: [kind u8, height, view, block_hash bin(32|0), bitmap bin, [signature bin64, ...]].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from ledger import codec
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.validator_set import VALIDATORS_MAX, ValidatorSet

CERTIFICATE_BYTES_MAX = 32 * 1024
VIEW_MAX = 2**32

SignatureCheck = Callable[[bytes, bytes, bytes], bool]
"""(public_key, message, signature) -> valid?"""


class VoteKind(IntEnum):
    """The three votes of Simplex; the numbers are wire format."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3


@lru_cache(maxsize=4096)
def vote_sign_bytes(
    chain_id: str, kind: VoteKind, height: int, view: int, block_hash: bytes
) -> bytes:
    """What a vote's signature covers."""
    return codec.sign_bytes("vote", chain_id, [int(kind), height, view, block_hash])


@dataclass(frozen=True)
class Certificate:
    """More than 2/3 of the power voted the same. `block_hash` is empty for NULLIFY."""

    kind: VoteKind
    height: int
    view: int
    block_hash: bytes
    bitmap: bytes
    signatures: tuple[bytes, ...]

    @classmethod
    def of(
        cls,
        kind: VoteKind,
        height: int,
        view: int,
        block_hash: bytes,
        signature_by_key: Mapping[bytes, bytes],
        validators: ValidatorSet,
    ) -> Certificate:
        """Assemble from verified votes; signers outside the set are left out."""
        bitmap = bytearray((len(validators) + 7) // 8)
        signatures = []
        for index, validator in enumerate(validators.validators):
            signature = signature_by_key.get(validator.public_key)
            if signature is not None:
                bitmap[index // 8] |= 0x80 >> index % 8
                signatures.append(signature)
        return cls(kind, height, view, block_hash, bytes(bitmap), tuple(signatures))

    @classmethod
    def from_value(cls, value: object) -> Certificate:
        """Read the decoded array form. Raises InvalidInputError."""
        kind, height, view, block_hash, bitmap, signatures = codec.read_array(
            value, 6, "certificate"
        )
        kind = codec.read_int(kind, "certificate kind", 3)
        if kind == 0:
            raise InvalidInputError("certificate kind is unknown", expected="1..3", got="0")
        hash_bytes = 0 if kind == VoteKind.NULLIFY else 32
        return cls(
            VoteKind(kind),
            codec.read_int(height, "certificate height"),
            codec.read_int(view, "certificate view", VIEW_MAX),
            codec.read_bytes(block_hash, "certificate block hash", length=hash_bytes),
            codec.read_bytes(bitmap, "certificate bitmap", maximum=VALIDATORS_MAX // 8),
            tuple(
                codec.read_bytes(s, "certificate signature", length=64)
                for s in codec.read_list(signatures, VALIDATORS_MAX, "certificate signatures")
            ),
        )

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Inverse of `encode`. Raises InvalidInputError."""
        return cls.from_value(codec.decode(data, bytes_max=CERTIFICATE_BYTES_MAX))

    def to_value(self) -> list[codec.Value]:
        return [
            int(self.kind),
            self.height,
            self.view,
            self.block_hash,
            self.bitmap,
            list(self.signatures),
        ]

    def encode(self) -> bytes:
        return codec.encode(self.to_value())

    def signer_indexes(self, validators: ValidatorSet) -> list[int]:
        """Positions in the set of the signers. Raises InvalidInputError for a bad bitmap."""
        if len(self.bitmap) != (len(validators) + 7) // 8:
            raise InvalidInputError(
                "certificate bitmap has a wrong length",
                expected=f"{(len(validators) + 7) // 8} B",
                got=f"{len(self.bitmap)} B",
            )
        indexes = [i for i in range(len(self.bitmap) * 8) if self.bitmap[i // 8] & 0x80 >> i % 8]
        if indexes and indexes[-1] >= len(validators):
            raise InvalidInputError("certificate names a validator that does not exist")
        if len(indexes) != len(self.signatures):
            raise InvalidInputError(
                "certificate has a wrong number of signatures",
                expected=str(len(indexes)),
                got=str(len(self.signatures)),
            )
        return indexes

    def signed_by(self, validators: ValidatorSet) -> list[tuple[bytes, bytes]]:
        """(public key, signature) of each signer. Raises InvalidInputError for a bad bitmap."""
        keys = [validators.validators[i].public_key for i in self.signer_indexes(validators)]
        return list(zip(keys, self.signatures, strict=True))


def verify_certificate(
    certificate: Certificate,
    validators: ValidatorSet,
    chain_id: str,
    is_valid: SignatureCheck = is_valid_signature,
) -> None:
    """Check quorum first, then each signature. Raises InvalidInputError."""
    indexes = certificate.signer_indexes(validators)
    power = sum(validators.validators[i].power for i in indexes)
    if not validators.has_quorum(power):
        raise InvalidInputError(
            "certificate has no quorum",
            expected=f"more than 2/3 of {validators.total_power}",
            got=str(power),
        )
    message = vote_sign_bytes(
        chain_id, certificate.kind, certificate.height, certificate.view, certificate.block_hash
    )
    for index, signature in zip(indexes, certificate.signatures, strict=True):
        key = validators.validators[index].public_key
        if not is_valid(key, message, signature):
            raise InvalidInputError("certificate has a bad signature", got=f"signer {key.hex()}")
