"""Leaders that misuse their turn."""

from __future__ import annotations

from consensus.inputs import Input, StartHeight
from consensus.messages import CertificateMessage, ConsensusMessage, Propose, Vote
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from tests.sim.adversaries.pen import Byzantine


class SilentLeader(Byzantine):
    """Votes, but never proposes."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if not isinstance(message, Propose):
            super().broadcast(message)


class PartialLeader(Byzantine):
    """Shows its proposals to some validators only."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if not isinstance(message, Propose):
            super().broadcast(message)
            return
        others = self.others()
        for index in others[: self.sim.rng.randint(1, len(others) - 1)]:
            self.sim.send(self.index, index, message)


class LateLeader(Byzantine):
    """Proposes when the view is about to time out, so that the validators' views split."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose):
            delay_us = self.sim.rng.randint(80_000, 400_000)
            self.sim.after(delay_us, lambda: self.sim.broadcast(self.index, message))
        else:
            super().broadcast(message)


class EquivocatingLeader(Byzantine):
    """Shows one block to some and another to the rest, and notarizes and finalizes both."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if not isinstance(message, Propose):
            super().broadcast(message)
            return
        view, others = message.view, self.others()
        other = message
        if message.block.header.origin_view == view:
            block = self.make_block(message.height, view)
            other = self.signed_proposal(view, block, message.justify)
        split = self.sim.rng.randint(1, len(others) - 1)
        for position, index in enumerate(others):
            shown = message if position < split else other
            self.sim.send(self.index, index, shown)
            for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
                vote = self.signed_vote(kind, message.height, view, shown.block.hash)
                self.sim.send(self.index, index, vote)


class InvalidLeader(Byzantine):
    """Proposes blocks that are invalid, and votes for them."""

    def make_block(self, height: int, view: int, *, is_valid_block: bool = True) -> Block:
        return super().make_block(height, view, is_valid_block=False)


class RacingLeader(Byzantine):
    """Proposes in every view that it leads at once, before any certificate allows it."""

    def step(self, event: Input) -> None:
        super().step(event)
        if isinstance(event, StartHeight) and self.is_up:
            for view in range(1, 5):
                if self.leads(view):
                    block = self.make_block(event.height, view)
                    justify = tuple(self._nullifications(view))
                    self.sim.broadcast(self.index, self.signed_proposal(view, block, justify))

    def _nullifications(self, view: int) -> list[Certificate]:
        """What it holds itself, and its own lone vote in place of what it lacks."""
        found = []
        for below in range(1, view):
            vote = self.signed_vote(VoteKind.NULLIFY, len(self.disk.chain) + 1, below, b"")
            found.append(
                Certificate.of(
                    VoteKind.NULLIFY,
                    vote.height,
                    below,
                    b"",
                    {self.key: vote.signature},
                    self.voters(),
                )
            )
        return found


class FreshLeader(Byzantine):
    """Forgets what was notarized: after view 1 it proposes a new block with what nullifications
    it was about to show, so without the notarization and with a gap. It tells its finalize votes
    to one validator only, and nobody what is final."""

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Vote) and message.kind is VoteKind.FINALIZE:
            self.sim.send(self.index, (self.index + 1) % len(self.sim.nodes), message)
            return
        if isinstance(message, CertificateMessage):
            return
        if isinstance(message, Propose) and message.view > 1:
            nullifications = tuple(c for c in message.justify if c.kind is VoteKind.NULLIFY)
            block = self.make_block(message.height, message.view)
            message = self.signed_proposal(message.view, block, nullifications)
        super().broadcast(message)
