"""Finality: what makes a header true without believing anyone.

A `FinalityProof` is a header, the finalization certificate of its block and the steps (handoffs)
that lead from a trusted validator set to the set that signed.

Wire: [header, certificate, [[header, certificate, validator_set bin], ...]].

A step carries a set, and comes in two kinds, told apart by whether the header names the set that
is trusted so far as the one that voted on it:

    adjacent   validators_hash is the trusted set's: a quorum of it signed the header, and the
               carried set is the one that next_validators_hash names;
    skipping   otherwise: the carried set is the one that validators_hash names, a quorum of it
               signed the header, and the signers hold more than 1/3 of the power of the set
               trusted so far.

From step to step, and to the proven header, height and time increase; or the same header comes
again, since a skip proves the set that voted on a header, and the next step may prove what that
header hands over to.

Why a skip is safe. Less than 1/3 of the trusted set's power is faulty, so one of the signers that
it shares with the certificate is honest. An honest validator votes for a header only on top of the
final blocks before it, so the header's validators_hash is the true set of its height; the quorum
of that set makes the header final. An adjacent step needs no more than that its signers are the
true set of its height. Both rest on "less than 1/3 faulty", which is promised only of validators
that can still lose their stake: whoever unbonds may sell its key afterwards. So a set may be
trusted for a trusting period that is shorter than the unbonding time, counted from the time of the
header that named it; `ledger.light` judges that, because it needs a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ledger import codec
from ledger.block import PROTOCOL_VERSIONS, Header
from ledger.certificate import Certificate, SignatureCheck, VoteKind, verify_certificate
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet

HANDOFFS_MAX = 1024
FINALITY_PROOF_BYTES_MAX = 4 * 1024 * 1024


class CannotTellError(InvalidInputError):
    """Neither right nor wrong: what is needed to judge it is not at hand."""


class UnknownVersionError(CannotTellError):
    """A header of a protocol version that this code does not know."""


class TooLittleOverlapError(InvalidInputError):
    """A skip whose signers hold 1/3 of the trusted power or less: a nearer header may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A step to another set: by an adjacent header the one that votes after it, by a skip the one
    that voted on it."""

    header: Header
    certificate: Certificate
    next_validators: ValidatorSet

    @classmethod
    def from_value(cls, value: object) -> Handoff:
        """Read the decoded array form. Raises InvalidInputError."""
        header, certificate, validators = codec.read_array(value, 3, "handoff")
        return cls(
            header=Header.from_value(header),
            certificate=Certificate.from_value(certificate),
            next_validators=ValidatorSet.decode(
                codec.read_bytes(validators, "validator set", maximum=VALIDATOR_SET_BYTES_MAX)
            ),
        )

    def to_value(self) -> list[codec.Value]:
        return [self.header.to_value(), self.certificate.to_value(), self.next_validators.encoded]


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
        return cls(
            header=Header.from_value(header),
            certificate=Certificate.from_value(certificate),
            handoffs=tuple(
                Handoff.from_value(item)
                for item in codec.read_list(handoffs, HANDOFFS_MAX, "handoffs")
            ),
        )

    @classmethod
    def decode(cls, data: bytes) -> FinalityProof:
        """Inverse of `encode`. Raises InvalidInputError."""
        return cls.from_value(codec.decode(data, bytes_max=FINALITY_PROOF_BYTES_MAX))

    def to_value(self) -> list[codec.Value]:
        return [
            self.header.to_value(),
            self.certificate.to_value(),
            [handoff.to_value() for handoff in self.handoffs],
        ]

    def encode(self) -> bytes:
        return codec.encode(self.to_value())


def verify_final_header(
    header: Header,
    certificate: Certificate,
    validators: ValidatorSet,
    chain_id: str,
    trusted: ValidatorSet | None = None,
    is_valid: SignatureCheck = is_valid_signature,
    *,
    versions: Collection[int] = PROTOCOL_VERSIONS,
) -> None:
    """Check that `certificate` finalizes exactly `header` under `validators`, and with `trusted`
    that its signers hold more than 1/3 of that set's power as well. `versions`: the protocol
    versions that the caller speaks.

    Raises InvalidInputError naming the first thing that is wrong.
    """
    if header.protocol_version not in versions:
        raise UnknownVersionError(
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
    if trusted is not None:  # before the signatures: counting is cheap
        _check_overlap(certificate, validators, trusted)
    verify_certificate(certificate, validators, chain_id, is_valid)


def verify_finality(proof: FinalityProof, trusted: ValidatorSet, chain_id: str) -> Header:
    """Follow the steps from `trusted`, then check the header. Returns the header, now trusted.
    Raises InvalidInputError."""
    validators = verify_handoffs(proof.handoffs, trusted, chain_id)
    if proof.handoffs:
        _check_order(proof.handoffs[-1].header, proof.header)
    verify_final_header(proof.header, proof.certificate, validators, chain_id)
    return proof.header


def verify_handoffs(
    handoffs: Sequence[Handoff],
    trusted: ValidatorSet,
    chain_id: str,
    is_valid: SignatureCheck = is_valid_signature,
) -> ValidatorSet:
    """Return the validator set after all steps. Raises InvalidInputError."""
    validators, previous = trusted, None
    for handoff in handoffs:
        if previous is not None:
            _check_order(previous, handoff.header)
        validators = verify_handoff(handoff, validators, chain_id, is_valid)
        previous = handoff.header
    return validators


def verify_handoff(
    handoff: Handoff,
    trusted: ValidatorSet,
    chain_id: str,
    is_valid: SignatureCheck = is_valid_signature,
) -> ValidatorSet:
    """Take one step of either kind and return the set it carries. Raises InvalidInputError, of a
    skip that reaches too far TooLittleOverlapError."""
    header, certificate, carried = handoff.header, handoff.certificate, handoff.next_validators
    if header.validators_hash == trusted.hash:
        verify_final_header(header, certificate, trusted, chain_id, is_valid=is_valid)
        if carried.hash != header.next_validators_hash:
            raise InvalidInputError("handoff carries a validator set that its header does not name")
        return carried
    verify_final_header(header, certificate, carried, chain_id, trusted, is_valid)
    return carried


def compute_overlap(certificate: Certificate, signers: ValidatorSet, trusted: ValidatorSet) -> int:
    """The power that those of `signers` who signed hold in `trusted`. Raises InvalidInputError."""
    return sum(
        trusted.power_of(signers.validators[i].public_key)
        for i in certificate.signer_indexes(signers)
    )


def _check_overlap(certificate: Certificate, signers: ValidatorSet, trusted: ValidatorSet) -> None:
    overlap = compute_overlap(certificate, signers, trusted)
    if not trusted.has_third(overlap):
        raise TooLittleOverlapError(
            "too few of the trusted validators signed",
            expected=f"more than 1/3 of {trusted.total_power}",
            got=str(overlap),
        )


def _check_order(previous: Header, header: Header) -> None:
    if header.hash == previous.hash:
        return
    if header.height <= previous.height:
        raise InvalidInputError("handoffs are not in order of height")
    if header.time_ms <= previous.time_ms:
        raise InvalidInputError(
            "time does not increase from one header to the next",
            expected=f"> {previous.time_ms}",
            got=str(header.time_ms),
        )
    if header.height == previous.height + 1 and header.parent_hash != previous.hash:
        raise InvalidInputError("the header does not follow the one before it")
