"""A leader that keeps the validators' views apart: what rule 11 is against."""

from __future__ import annotations

from consensus.inputs import Input, Received
from consensus.messages import ConsensusMessage, Propose, Vote
from ledger.certificate import VoteKind
from tests.sim.adversaries.pen import Byzantine


class ShowsLateToTheSlow(Byzantine):
    """Never votes. Shows its proposal to the fast validators at once, and to the slowest only when
    a fast one has nullified the view: the slowest's notarize vote then completes a notarization,
    which the fast leave at once and the slowest stays with."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose):
            self._held[message.height, message.view] = message
            for node in self.sim.nodes:
                if node.index != self._slowest:
                    self.sim.send(self.index, node.index, message)
        elif not isinstance(message, Vote):
            super().broadcast(message)

    def step(self, event: Input) -> None:
        if isinstance(event, Received) and isinstance(event.message, Vote):
            vote = event.message
            is_fast = vote.signer != self.sim.keys[self._slowest]
            if vote.kind is VoteKind.NULLIFY and is_fast:
                shown = self._held.get((vote.height, vote.view))
                if shown is not None:
                    self.sim.send(self.index, self._slowest, shown)
        super().step(event)

    @property
    def _slowest(self) -> int:
        return min(self.sim.nodes, key=lambda node: node.clock_percent).index

    @property
    def _held(self) -> dict[tuple[int, int], Propose]:
        held: dict[tuple[int, int], Propose] = self.__dict__.setdefault("held", {})
        return held
