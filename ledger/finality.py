"""Finality: what makes a header true without believing anyone.

A `FinalityProof` is a header, the finalization certificate of its block and the validator-set
handoffs that lead from a trusted set to the set that signed. A handoff is a final header whose
`next_validators_hash` names the set it carries.

Wire: [header, certificate, [[header, certificate, validator_set bin], ...]].
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ledger import codec
from ledger.block import PROTOCOL_VERSIONS, Header
from ledger.certificate import Certificate, VoteKind, verify_certificate
from ledger.errors import InvalidInputError
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet

HANDOFFS_MAX = 1024
FINALITY_PROOF_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A final header that hands over to `next_validators`."""

    header: Header
    certificate: Certificate
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalityProof:
    """A final header, shown to be final from a trusted validator set."""

    header: Header
    certificate: Certificate
    handoffs: tuple[Handoff, ...] = ()

    @classmethod
    def from_value(cls, value: object) -> FinalityProof:
        """Read the decoded array form. Raises InvalidInputError."""
        header, certificate, handoffs = codec.read_array(value, 3, "finality proof")
        found = []
        for item in codec.read_list(handoffs, HANDOFFS_MAX, "handoffs"):
            h, c, next_set = codec.read_array(item, 3, "handoff")
            found.append(
                Handoff(
                    header=Header.from_value(h),
                    certificate=Certificate.from_value(c),
                    next_validators=ValidatorSet.decode(
                        codec.read_bytes(next_set, "validator set", maximum=VALIDATOR_SET_BYTES_MAX)
                    ),
                )
            )
        return cls(
            header=Header.from_value(header),
            certificate=Certificate.from_value(certificate),
            handoffs=tuple(found),
        )

    @classmethod
    def decode(cls, data: bytes) -> FinalityProof:
        """Inverse of `encode`. Raises InvalidInputError."""
        return cls.from_value(codec.decode(data, bytes_max=FINALITY_PROOF_BYTES_MAX))

    def to_value(self) -> list[codec.Value]:
        return [
            self.header.to_value(),
            self.certificate.to_value(),
            [
                [h.header.to_value(), h.certificate.to_value(), h.next_validators.encoded]
                for h in self.handoffs
            ],
        ]

    def encode(self) -> bytes:
        return codec.encode(self.to_value())


def verify_final_header(
    header: Header,
    certificate: Certificate,
    validators: ValidatorSet,
    chain_id: str,
    *,
    versions: Collection[int] = PROTOCOL_VERSIONS,
) -> None:
    """Check that `certificate` finalizes exactly `header` under `validators`. `versions`: the
    protocol versions that the caller speaks.

    Raises InvalidInputError naming the first thing that is wrong.
    """
    if header.protocol_version not in versions:
        raise InvalidInputError(
            "header is of another protocol version",
            expected=" | ".join(map(str, sorted(versions))),
            got=str(header.protocol_version),
        )
    if header.chain_id != chain_id:
        raise InvalidInputError(
            "header is of another chain", expected=chain_id, got=header.chain_id
        )
    if header.validators_hash != validators.hash:
        raise InvalidInputError(
            "header names another validator set",
            expected=validators.hash.hex(),
            got=header.validators_hash.hex(),
        )
    if certificate.kind is not VoteKind.FINALIZE:
        raise InvalidInputError("certificate does not finalize", got=certificate.kind.name)
    if certificate.height != header.height or certificate.block_hash != header.hash:
        raise InvalidInputError(
            "certificate is for another block",
            expected=header.hash.hex(),
            got=(certificate.block_hash.hex()),
        )
    verify_certificate(certificate, validators, chain_id)


def verify_finality(proof: FinalityProof, trusted: ValidatorSet, chain_id: str) -> Header:
    """Follow the handoffs from `trusted`, then check the header. Returns the header, now
    trusted. Raises InvalidInputError."""
    validators = verify_handoffs(proof.handoffs, trusted, chain_id)
    verify_final_header(proof.header, proof.certificate, validators, chain_id)
    return proof.header


def verify_handoffs(
    handoffs: Sequence[Handoff], trusted: ValidatorSet, chain_id: str
) -> ValidatorSet:
    """Return the validator set after all handoffs. Raises InvalidInputError."""
    validators, height = trusted, 0
    for handoff in handoffs:
        verify_final_header(handoff.header, handoff.certificate, validators, chain_id)
        if handoff.header.height <= height:
            raise InvalidInputError("handoffs are not in order of height")
        if handoff.next_validators.hash != handoff.header.next_validators_hash:
            raise InvalidInputError("handoff carries a validator set that its header does not name")
        validators, height = handoff.next_validators, handoff.header.height
    return validators
