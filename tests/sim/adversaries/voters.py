"""Voters that vote too much, too little, or to too few."""

from __future__ import annotations

from consensus.effects import Effect, SendTo, ServeFinal
from consensus.inputs import Input, Received, StartHeight
from consensus.messages import CertificateMessage, ConsensusMessage, Propose, Vote
from ledger.certificate import VoteKind
from tests.sim.adversaries.pen import Byzantine


class EquivocatingVoter(Byzantine):
    """Votes for whatever it is shown, in every way at once: N, F and X."""

    def step(self, event: Input) -> None:
        if isinstance(event, Received) and isinstance(event.message, Propose | Vote):
            m = event.message
            shown = m.block.hash if isinstance(m, Propose) else m.block_hash
            if shown and (m.height, m.view, shown) not in self._seen and len(self._seen) < 300:
                self._seen.add((m.height, m.view, shown))
                for target in self.others():
                    kind = self.sim.rng.choice(list(VoteKind))
                    block_hash = b"" if kind is VoteKind.NULLIFY else shown
                    vote = self.signed_vote(kind, m.height, m.view, block_hash)
                    self.sim.send(self.index, target, vote)
        super().step(event)

    @property
    def _seen(self) -> set[tuple[int, int, bytes]]:
        seen: set[tuple[int, int, bytes]] = self.__dict__.setdefault("seen", set())
        return seen


class NullifySpammer(Byzantine):
    """Nullifies every view ahead of time, and goes on voting."""

    def step(self, event: Input) -> None:
        super().step(event)
        if isinstance(event, StartHeight):
            for view in range(1, 8):
                self.sim.broadcast(
                    self.index, self.signed_vote(VoteKind.NULLIFY, event.height, view, b"")
                )


class FinalizeWithholder(Byzantine):
    """Helps notarizations along and never finalizes or nullifies."""

    def broadcast(self, message: ConsensusMessage) -> None:
        withheld = isinstance(message, Vote) and message.kind is not VoteKind.NOTARIZE
        if not withheld and not isinstance(message, CertificateMessage):
            super().broadcast(message)


class Mute(Byzantine):
    """Is dead, as far as anyone can tell."""

    def broadcast(self, message: ConsensusMessage) -> None:
        pass

    def _act(self, effect: Effect) -> None:
        if not isinstance(effect, SendTo | ServeFinal):
            super()._act(effect)


class OneShotNotarizer(Mute):
    """Helps a block to its notarization in view 1, tells some only, and is never heard again."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Vote) and message.kind is VoteKind.NOTARIZE:
            told: set[tuple[int, int]] = self.__dict__.setdefault("told", set())
            if (message.height, message.view) not in told:
                told.add((message.height, message.view))
                others = self.others()
                for index in others[: self.sim.rng.randint(1, len(others))]:
                    self.sim.send(self.index, index, message)
