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
    """Spoils each proposal after view 1. `spoiled` counts those that were sent so."""

    spoiled = 0

    def step(self, event: Input) -> None:
        if isinstance(event, Received) and isinstance(event.message, CertificateMessage):
            self.seen.append(event.message.certificate)
            del self.seen[:-CERTIFICATES_MAX]
        super().step(event)

    @property
    def seen(self) -> list[Certificate]:
        """The last certificates that it received."""
        found: list[Certificate] = self.__dict__.setdefault("found", [])
        return found

    def broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose) and message.view > 1:
            spoiled = self.spoil(message, message.view, message.justify)
            if spoiled is not None:
                self.spoiled += 1
                message = spoiled
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
    """Proposes again a block whose notarization claims to be of the proposal's own view."""

    def spoil(self, honest: Propose, view: int, justify: tuple[Certificate, ...]) -> Propose | None:
        if not justify or justify[0].kind is not VoteKind.NOTARIZE:
            return None
        late = replace(justify[0], view=view)
        return self.signed_proposal(view, honest.block, (late, *justify[1:]))


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
