"""Leaders that show a proposal late to one validator."""

from __future__ import annotations

from consensus.inputs import Input, Received
from consensus.messages import ConsensusMessage, Propose, Vote
from ledger.certificate import VoteKind
from tests.sim.adversaries.pen import Byzantine

VICTIM_DELAY_US = 120_000
"""Longer than a height takes, shorter than a view."""


class ShowsLastToOne(Byzantine):
    """Shows its proposals to one validator when the others have finalized them, and puts nothing of
    that validator into its blocks: it would make it miss every height that it leads."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if not isinstance(message, Propose):
            super().broadcast(message)
            return
        victim = (self.index + 1) % self.sim.count
        for node in self.sim.nodes:
            if node.index != victim:
                self.sim.send(self.index, node.index, message)
        self.sim.after(VICTIM_DELAY_US, lambda: self.sim.send(self.index, victim, message))

    def late_votes(self) -> tuple[bytes, ...]:
        return ()


class ShowsLateToTheSlow(Byzantine):
    """Keeps the validators' views apart: what rule 11 is against. Never votes. Shows its proposal
    to the fast validators at once, and to the slowest only when a fast one has nullified the view:
    the slowest's notarize vote then completes a notarization, which the fast leave at once and the
    slowest stays with."""

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
