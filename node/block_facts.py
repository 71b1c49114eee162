"""What a block of ours says besides its txs: VRF proof, parent certificate, votes, evidence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from consensus.beacon import vrf_alpha
from consensus.core import Core
from consensus.liveness import LateVote, late_vote_signatures, wanted_votes
from consensus.messages import Vote
from consensus.vrf import prove
from ledger.block import Block
from ledger.certificate import Certificate
from ledger.chain import Chain
from ledger.errors import UsageError
from ledger.execution import BlockFacts
from ledger.staking_rows import read_consensus_key, read_validator, vrf_key_at
from ledger.validator_set import VALIDATORS_MAX
from node.evidence_pool import EvidencePool
from node.signature_pool import SignatureJob
from node.voting import VrfSeeds

LATE_VOTES_MAX = 4 * VALIDATORS_MAX
"""In one block of ours. A height can lack all but one of its validators, so with less than one
height's worth in a block the backlog would grow until some are counted as missing. Four make up
for leaders that carry none: what was left out goes out oldest first, four heights a block, while
one height a block falls due. Each vote costs every validator a signature check (80 us, in threads,
and none if it heard the vote itself) and 115 B, once."""

FindVotes = Callable[[int, Collection[bytes]], Collection[Vote]]
"""(height, signers) -> the finalize votes that are known of them."""


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
        return choose_late_votes(wanted, self._core.finalize_votes)


def late_votes_of(chain: Chain, block: Block) -> list[SignatureJob]:
    """The signatures of late votes that executing `block` on the tip will check."""
    if not block.late_votes:
        return []
    parent = (chain.height, chain.head_hash)
    return late_vote_signatures(chain.tree, chain.chain_id, parent, block.late_votes)


def choose_late_votes(
    wanted: Mapping[int, Collection[bytes]], find: FindVotes
) -> tuple[bytes, ...]:
    """Of the absent, by height, those whose votes are known; the heights that fall due first."""
    votes: list[bytes] = []
    for height in sorted(wanted):
        for vote in find(height, wanted[height]):
            late = LateVote(
                height=vote.height, view=vote.view, signer=vote.signer, signature=vote.signature
            )
            votes.append(late.encode())
        if len(votes) >= LATE_VOTES_MAX:
            break
    return tuple(votes[:LATE_VOTES_MAX])
