"""Leaders whose justify has one defect each (rule 6). All lead honestly but for that."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from consensus.inputs import Input, Received
from consensus.messages import CertificateMessage, ConsensusMessage, Propose
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from tests.sim.adversaries.pen import Byzantine

CERTIFICATES_MAX = 32


class DefectiveJustify(Byzantine):
    """Spoils each proposal after view 1 that can be. `spoiled` and `sound`: (height, view) of those
    that were sent so, and of those that were sent as they should be."""

    def step(self, event: Input) -> None:
        if isinstance(event, Received) and isinstance(event.message, CertificateMessage):
            self.seen.append(event.message.certificate)
            del self.seen[:-CERTIFICATES_MAX]
        super().step(event)

    @property
    def spoiled(self) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = self.__dict__.setdefault("places", [])
        return places

    @property
    def sound(self) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = self.__dict__.setdefault("sound_places", [])
        return places

    @property
    def seen(self) -> list[Certificate]:
        """The last certificates that it received."""
        found: list[Certificate] = self.__dict__.setdefault("found", [])
        return found

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose) and message.view > 1:
            spoiled = self.spoil(message, message.view, message.justify)
            place = (message.height, message.view)
            if spoiled is not None:
                message = spoiled
            (self.sound if spoiled is None else self.spoiled).append(place)
        super().broadcast(message)

    @abstractmethod
    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        """The defective proposal, or None if this one can't be spoiled so."""

    def fresh(self, honest: Propose) -> Block:
        return self.make_block(honest.height, honest.view)


class Gap(DefectiveJustify):
    """Leaves out the first certificate: a view that may have finalized a block."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        return self.signed_proposal(view, self.fresh(honest), justify[1:]) if justify else None


class MissingLast(DefectiveJustify):
    """Leaves out the last certificate: the view right below."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        return self.signed_proposal(view, self.fresh(honest), justify[:-1]) if justify else None


class NotarizedTooLate(DefectiveJustify):
    """Keeps its turn of view v, and proposes in v once a block is notarized in a view p > v, with
    that true notarization. Whoever jumped over v has not voted there."""

    def step(self, event: Input) -> None:
        super().step(event)
        if isinstance(event, Received):
            if isinstance(event.message, Propose):
                self._blocks[event.message.block.hash] = event.message.block
            for view, height in list(self._turns):
                self._use(view, height)

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose) and message.view > 1:
            self._turns.add((message.view, message.height))
        else:
            super().broadcast(message)

    def _use(self, view: int, height: int) -> None:
        for c in self.seen:
            block = self._blocks.get(c.block_hash)
            is_later = c.kind is VoteKind.NOTARIZE and c.height == height and c.view > view
            if is_later and block is not None:
                self._turns.discard((view, height))
                proposal = self.signed_proposal(view, block, (c,))
                self.spoiled.append((height, view))
                self.sim.broadcast(self.index, proposal)
                return

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        return None

    @property
    def _turns(self) -> set[tuple[int, int]]:
        turns: set[tuple[int, int]] = self.__dict__.setdefault("turns", set())
        return turns

    @property
    def _blocks(self) -> dict[bytes, Block]:
        blocks: dict[bytes, Block] = self.__dict__.setdefault("blocks", {})
        return blocks


class WrongHash(DefectiveJustify):
    """Shows the notarization of another block than the one it proposes."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if not justify or justify[0].kind is not VoteKind.NOTARIZE:
            return None
        return self.signed_proposal(view, self.fresh(honest), justify)


class MinorityCertificate(DefectiveJustify):
    """Each certificate has one signer only."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if not justify:
            return None
        few = tuple(self._minority(c) for c in justify)
        block = honest.block if few[0].kind is VoteKind.NOTARIZE else self.fresh(honest)
        return self.signed_proposal(view, block, few)

    def _minority(self, certificate: Certificate) -> Certificate:
        voters = self.voters()
        key, signature = certificate.signed_by(voters)[0]
        return Certificate.of(
            certificate.kind,
            certificate.height,
            certificate.view,
            certificate.block_hash,
            {key: signature},
            voters,
        )


class DuplicateSignature(DefectiveJustify):
    """One signature stands in every place."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if not justify:
            return None
        same = tuple(replace(c, signatures=c.signatures[:1] * len(c.signatures)) for c in justify)
        block = honest.block if same[0].kind is VoteKind.NOTARIZE else self.fresh(honest)
        return self.signed_proposal(view, block, same)


class WrongOriginView(DefectiveJustify):
    """A fresh block that claims to be of another view."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if any(c.kind is not VoteKind.NULLIFY for c in justify):
            return None
        other = view + 1 if self.sim.rng.random() < 0.5 else view - 1
        return self.signed_proposal(view, self.make_block(honest.height, other), justify)


class StrayCertificates(DefectiveJustify):
    """Certificates of this height that do not belong there."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        here = tuple(c for c in self.seen if c.height == honest.height)
        if justify:
            here = (*justify, here[-1] if here else justify[0])
        if not here:
            return None
        return self.signed_proposal(view, self.fresh(honest), here)


class MadeUpNullifications(DefectiveJustify):
    """Another certificate's signatures under nullifications that nobody signed."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if not justify:
            return None
        made_up = tuple(
            replace(justify[-1], kind=VoteKind.NULLIFY, view=below, block_hash=b"")
            for below in range(1, view)
        )
        if made_up == justify:
            return None
        return self.signed_proposal(view, self.fresh(honest), made_up)


DEFECTS: tuple[type[DefectiveJustify], ...] = (
    Gap,
    MissingLast,
    NotarizedTooLate,
    WrongHash,
    MinorityCertificate,
    DuplicateSignature,
    WrongOriginView,
    StrayCertificates,
    MadeUpNullifications,
)
