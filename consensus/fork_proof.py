"""Fork proof: two blocks are final at one height, and these validators made that possible.

Wire, canonical msgpack, self-contained but for a validator set that the reader trusts:

    ["fork-proof/1", header, certificate, certificate, [certificate, ...], [handoff, ...]]
    handoff = [header, certificate, validator_set bin], as in a finality proof

The header is that of one of the two blocks; the first certificate finalizes it, the second
finalizes another block of the same height. The header names the validator set of the height, and
the handoffs lead to that set from the trusted one (none if it is the trusted one). The
certificates between are others of this height, at most one for a (view, kind, block hash), in that
order.

Why it names the guilty. Say F-cert(v, h) and F-cert(w, h') with v <= w. If v = w, each member of
both quorums finalized two blocks. Else an honest signer of the later one (there is one, with less
than 2/3 Byzantine) holds a certificate of view v that contradicts F-cert(v, h): X-cert(v) or
N-cert(v, h') (docs/adr/0002-simplex.md). With it here, each member of both quorums signed a pair of
rule 21 in view v: at least `2 * quorum - total` of the power.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from consensus.evidence import Evidence, find_evidence
from ledger import codec
from ledger.block import Header
from ledger.certificate import Certificate, SignatureCheck, VoteKind, verify_certificate
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.finality import HANDOFFS_MAX, Handoff, verify_final_header, verify_handoffs
from ledger.validator_set import ValidatorSet

MAGIC = "fork-proof/1"
BETWEEN_MAX = 64
FORK_PROOF_BYTES_MAX = 8 * 1024 * 1024


class IncompleteForkProofError(InvalidInputError):
    """The fork is real, but the certificates that name enough of the guilty are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkProof:
    """See the module docstring. `first` finalizes `header`."""

    header: Header
    first: Certificate
    second: Certificate
    between: tuple[Certificate, ...] = ()
    handoffs: tuple[Handoff, ...] = ()

    @property
    def height(self) -> int:
        return self.header.height

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        return (self.first, self.second, *self.between)

    def voters(self, trusted: ValidatorSet) -> ValidatorSet:
        """The validator set of the forked height, once the proof is verified from `trusted`."""
        return self.handoffs[-1].next_validators if self.handoffs else trusted

    @classmethod
    def of(
        cls,
        header: Header,
        first: Certificate,
        second: Certificate,
        certificates: Iterable[Certificate],
    ) -> ForkProof:
        """With those of `certificates` (all of this height) that bear on the fork: views from the
        earlier finalization to the later, the earlier first if there are too many."""
        low, high = sorted((first.view, second.view))
        by_slot = {_slot(c): c for c in certificates if low <= c.view <= high}
        for known in (first, second):
            by_slot.pop(_slot(known), None)
        slots = sorted(by_slot)[:BETWEEN_MAX]
        return cls(
            header=header,
            first=first,
            second=second,
            between=tuple(by_slot[slot] for slot in slots),
        )

    @classmethod
    def decode(cls, data: bytes) -> ForkProof:
        """Inverse of `encode`. Checks the form, not the signatures. Raises InvalidInputError."""
        magic, header, first, second, between, handoffs = codec.read_array(
            codec.decode(data, bytes_max=FORK_PROOF_BYTES_MAX), 6, "fork proof"
        )
        if magic != MAGIC:
            raise InvalidInputError("this is no fork proof", expected=MAGIC, got=repr(magic)[:40])
        proof = cls(
            header=Header.from_value(header),
            first=Certificate.from_value(first),
            second=Certificate.from_value(second),
            between=tuple(
                Certificate.from_value(c)
                for c in codec.read_list(between, BETWEEN_MAX, "certificates between")
            ),
            handoffs=tuple(
                Handoff.from_value(h) for h in codec.read_list(handoffs, HANDOFFS_MAX, "handoffs")
            ),
        )
        slots = [_slot(c) for c in proof.between]
        if any(a >= b for a, b in pairwise(slots)):
            raise InvalidInputError("certificates between are not in order")
        return proof

    def encode(self) -> bytes:
        return codec.encode(
            [
                MAGIC,
                self.header.to_value(),
                self.first.to_value(),
                self.second.to_value(),
                [c.to_value() for c in self.between],
                [h.to_value() for h in self.handoffs],
            ]
        )


def _slot(certificate: Certificate) -> tuple[int, int, bytes]:
    return (certificate.view, int(certificate.kind), certificate.block_hash)


def compute_culprit_power_min(validators: ValidatorSet) -> int:
    """What two quorums share at least: 2 * (least quorum) - total."""
    quorum = 2 * validators.total_power // 3 + 1
    assert validators.has_quorum(quorum), "the least power above 2/3"
    assert not validators.has_quorum(quorum - 1), "the least power above 2/3"
    return 2 * quorum - validators.total_power


def find_culprits(proof: ForkProof, validators: ValidatorSet) -> dict[bytes, Evidence]:
    """Who contradicted itself in these (verified) certificates, by signer."""
    return find_evidence(proof.certificates, validators)


def verify_fork_proof(
    proof: ForkProof,
    trusted: ValidatorSet,
    chain_id: str,
    is_valid: SignatureCheck = is_valid_signature,
) -> dict[bytes, Evidence]:
    """Check a proof whole, from a trusted validator set; return the culprits with their evidence.

    Raises InvalidInputError if it shows no fork, IncompleteForkProofError if it shows one and names
    less than `compute_culprit_power_min`.
    """
    validators = verify_fork(proof, trusted, chain_id, is_valid)
    culprits = find_culprits(proof, validators)
    named = sum(validators.power_of(signer) for signer in culprits)
    if named < compute_culprit_power_min(validators):
        raise IncompleteForkProofError(
            "the chain has forked, but this proof lacks certificates that name the guilty",
            expected=f"{compute_culprit_power_min(validators)} of {validators.total_power} power",
            got=str(named),
        )
    return culprits


def verify_fork(
    proof: ForkProof,
    trusted: ValidatorSet,
    chain_id: str,
    is_valid: SignatureCheck = is_valid_signature,
) -> ValidatorSet:
    """Check that two blocks are final at one height; return its validator set.

    Raises InvalidInputError.
    """
    header, first, second = proof.header, proof.first, proof.second
    validators = verify_handoffs(proof.handoffs, trusted, chain_id, is_valid)
    if proof.handoffs and proof.handoffs[-1].header.height >= header.height:
        raise InvalidInputError("handoff is not below the height of the fork")
    verify_final_header(header, first, validators, chain_id, is_valid=is_valid)
    if second.kind is not VoteKind.FINALIZE or second.height != header.height:
        raise InvalidInputError("second certificate does not finalize a block of this height")
    if second.block_hash == first.block_hash:
        raise InvalidInputError("this is no fork: both certificates finalize the same block")
    verify_certificate(second, validators, chain_id, is_valid)
    for certificate in proof.between:
        if certificate.height != header.height:
            raise InvalidInputError("certificate between is of another height")
        verify_certificate(certificate, validators, chain_id, is_valid)
    return validators
