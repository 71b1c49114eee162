"""Adversaries, one class each. Each signs with its own key only.

All but the pure noise makers run the honest core underneath, so that they take part well enough
to do harm, and bend what goes out.
"""

from __future__ import annotations

from dataclasses import replace

from consensus.effects import Effect, SendTo, ServeFinal
from consensus.inputs import Input, Received, StartHeight
from consensus.leader import leader
from consensus.messages import CertificateMessage, ConsensusMessage, Propose, Status, Vote
from consensus.statement import Statement, StatementKind, statement_sign_bytes, status_sign_bytes
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from tests.sim.crypto import sign_with
from tests.sim.node import Node


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
        from tests.sim.network import CHAIN_ID

        return sign_with(self.key)(statement_sign_bytes(CHAIN_ID, statement))

    def leads(self, view: int) -> bool:
        validators = self.sim.validators
        return leader(self.parent_hash(), view, validators, validators) == self.key

    def others(self) -> list[int]:
        indexes = [n.index for n in self.sim.nodes if n is not self]
        self.sim.rng.shuffle(indexes)
        return indexes


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


class FalseViews(Byzantine):
    """Claims to be in views far ahead."""

    def step(self, event: Input) -> None:
        from tests.sim.network import CHAIN_ID

        super().step(event)
        if isinstance(event, StartHeight):
            for view in (3, 50, 10_000, 2**31):
                signature = sign_with(self.key)(status_sign_bytes(CHAIN_ID, event.height, view))
                self.sim.broadcast(
                    self.index,
                    Status(
                        height=event.height,
                        view=view,
                        need=tuple(range(1, 20)),
                        signer=self.key,
                        signature=signature,
                    ),
                )
                self.sim.broadcast(
                    self.index, self.signed_vote(VoteKind.NULLIFY, event.height, view, b"")
                )


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
                    self.sim.validators,
                )
            )
        return found


class BadJustifyLeader(Byzantine):
    """Proposes a fresh block whatever was notarized, with one defect in its justify at a time."""

    def step(self, event: Input) -> None:
        if isinstance(event, Received) and isinstance(event.message, CertificateMessage):
            self._certificates.append(event.message.certificate)
        super().step(event)

    @property
    def _certificates(self) -> list[Certificate]:
        found: list[Certificate] = self.__dict__.setdefault("found", [])
        del found[:-32]
        return found

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose) and message.view > 1:
            message = self._spoil(message)
        super().broadcast(message)

    def _spoil(self, honest: Propose) -> Propose:
        view, justify = honest.view, honest.justify
        fresh = self.make_block(honest.height, view)
        here = [c for c in self._certificates if c.height == honest.height]
        match self.sim.rng.randrange(8):
            case 0:  # gap
                return self.signed_proposal(view, fresh, justify[1:])
            case 1:  # notarization of another block
                return self.signed_proposal(view, fresh, justify)
            case 2:  # p >= v
                late = tuple(replace(c, view=view) for c in justify[:1])
                return self.signed_proposal(view, honest.block, late + justify[1:])
            case 3:  # minority certificate
                few = tuple(self._minority(c) for c in justify)
                return self.signed_proposal(view, fresh, few)
            case 4:  # one signature in every place
                same = tuple(
                    replace(c, signatures=c.signatures[:1] * len(c.signatures)) for c in justify
                )
                return self.signed_proposal(view, fresh, same)
            case 5:  # wrong origin view
                old = self.make_block(honest.height, view + 1)
                return self.signed_proposal(view, old, justify)
            case 6:  # certificates that do not belong there
                return self.signed_proposal(view, fresh, tuple(here))
            case _:  # a nullification made up from another view's
                made_up = tuple(
                    replace(justify[-1], kind=VoteKind.NULLIFY, view=v, block_hash=b"")
                    for v in range(1, view)
                )
                return self.signed_proposal(view, fresh, made_up)

    def _minority(self, certificate: Certificate) -> Certificate:
        bitmap = bytearray(len(certificate.bitmap))
        first = certificate.signer_indexes(self.sim.validators)[0]
        bitmap[first // 8] |= 0x80 >> first % 8
        return replace(certificate, bitmap=bytes(bitmap), signatures=certificate.signatures[:1])


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


ADVERSARIES: tuple[type[Byzantine], ...] = (
    SilentLeader,
    PartialLeader,
    LateLeader,
    EquivocatingLeader,
    InvalidLeader,
    EquivocatingVoter,
    NullifySpammer,
    FinalizeWithholder,
    FalseViews,
    RacingLeader,
    BadJustifyLeader,
    FreshLeader,
    Mute,
    OneShotNotarizer,
)
