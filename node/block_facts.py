"""What a block of ours says besides its txs: VRF proof, parent certificate, votes, evidence."""

from __future__ import annotations

from consensus.beacon import vrf_alpha
from consensus.core import Core
from consensus.liveness import LateVote, wanted_votes
from consensus.vrf import prove
from ledger.certificate import Certificate
from ledger.chain import Chain
from ledger.errors import UsageError
from ledger.execution import BlockFacts
from ledger.staking_rows import read_consensus_key, read_validator, vrf_key_at
from node.evidence_pool import EvidencePool
from node.voting import VrfSeeds

LATE_VOTES_MAX = 64
"""In one block of ours: each costs every validator a signature check before it votes."""


class BlockFactsMaker:
    """Gathers the facts for the block after the tip. `vrf_seeds` has the secret of the VRF key that
    the chain knows for this validator."""

    def __init__(
        self,
        *,
        chain: Chain,
        core: Core,
        evidence: EvidencePool,
        proposer: bytes,
        vrf_seeds: VrfSeeds,
    ) -> None:
        self._chain = chain
        self._core = core
        self._evidence = evidence
        self._proposer = proposer
        self._vrf_seeds = vrf_seeds

    def make(self, time_ms: int) -> BlockFacts:
        """For a block of `time_ms` or later. Raises UsageError without the VRF key."""
        chain = self._chain
        height = chain.height + 1
        certificate = self._core.parent_certificate() or chain.head_certificate
        return BlockFacts(
            proposer=self._proposer,
            vrf_proof=prove(self._vrf_seed(height), vrf_alpha(chain.seed, height)),
            parent_certificate=certificate,
            late_votes=self._late_votes(certificate),
            evidence=self._evidence.pick(time_ms),
        )

    def _vrf_seed(self, height: int) -> bytes:
        owner = read_consensus_key(self._chain.tree, self._proposer)
        record = None if owner is None else read_validator(self._chain.tree, owner.operator)
        if record is None:
            raise UsageError("the chain knows no validator with this key")
        return self._vrf_seeds.seed_of(vrf_key_at(record, height))

    def _late_votes(self, certificate: Certificate | None) -> tuple[bytes, ...]:
        """Finalize votes of who is still absent. The parent's height is judged by `certificate`."""
        wanted = dict(wanted_votes(self._chain.tree))
        if certificate is not None:
            validators = self._chain.last_validators
            signers = {
                validators.validators[i].public_key for i in certificate.signer_indexes(validators)
            }
            absent = frozenset(validators.index_by_key) - signers
            if absent:
                wanted[certificate.height] = absent
        votes: list[bytes] = []
        for height in sorted(wanted):
            for vote in self._core.finalize_votes(height, wanted[height]):
                late = LateVote(
                    height=vote.height, view=vote.view, signer=vote.signer, signature=vote.signature
                )
                votes.append(late.encode())
        return tuple(votes[:LATE_VOTES_MAX])
