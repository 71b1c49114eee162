"""What all adversaries share: no guard, no crashes, and a pen for their own key."""

from __future__ import annotations

from consensus.leader import leader
from consensus.messages import Propose, Vote
from consensus.statement import Statement, StatementKind, statement_sign_bytes
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from ledger.validator_set import ValidatorSet
from tests.sim.node import Node
from tests.sim.plan import CHAIN_ID


class Byzantine(Node):
    """What all adversaries share: no guard, no crashes, and a pen."""

    is_honest = False

    def signed_vote(self, kind: VoteKind, height: int, view: int, block_hash: bytes) -> Vote:
        statement = Statement(
            kind=StatementKind(int(kind)), height=height, view=view, block_hash=block_hash
        )
        return Vote(
            kind=kind,
            height=height,
            view=view,
            block_hash=block_hash,
            signer=self.key,
            signature=self._sign(statement),
        )

    def signed_proposal(self, view: int, block: Block, justify: tuple[Certificate, ...]) -> Propose:
        statement = Statement(
            kind=StatementKind.PROPOSE, height=block.height, view=view, block_hash=block.hash
        )
        return Propose(
            height=block.height,
            view=view,
            block=block,
            justify=justify,
            signer=self.key,
            signature=self._sign(statement),
        )

    def _sign(self, statement: Statement) -> bytes:
        return self.sim.scheme.signer(self.key)(statement_sign_bytes(CHAIN_ID, statement))

    def leads(self, view: int) -> bool:
        voters = self.voters()
        return leader(self.parent_hash(), view, voters, voters) == self.key

    def voters(self) -> ValidatorSet:
        """Of the height in work."""
        return self.validators_at(len(self.disk.chain) + 1)

    def others(self) -> list[int]:
        indexes = [n.index for n in self.sim.nodes if n is not self]
        self.sim.rng.shuffle(indexes)
        return indexes
