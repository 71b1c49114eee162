"""Why a leader may propose what it proposes (rules 5, 6, 13), and the certificates of a height.

A fresh block in view v needs the nullifications of exactly 1..v-1. A block notarized in view p is
proposed again with that notarization and the nullifications of exactly p+1..v-1. The order in a
message is: the notarization if there is one, then the nullifications by ascending view.

A message carries the newest `JUSTIFY_NULLIFICATIONS_MAX` of these nullifications, exactly; whoever
takes it in must hold the older ones, and asks the sender for those that it lacks. So the size of
a proposal does not depend on how many views failed, and a height has no last view.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from consensus.messages import JUSTIFY_NULLIFICATIONS_MAX, NEED_MAX, Propose
from ledger.certificate import Certificate, SignatureCheck, VoteKind, verify_certificate
from ledger.errors import InvalidInputError
from ledger.validator_set import ValidatorSet

Justify = tuple[bytes | None, tuple[Certificate, ...]]
"""(hash of the block to propose again, or None for a fresh one; the certificates)."""


class CertificateBook:
    """The verified certificates of one height."""

    def __init__(self) -> None:
        self.nullified: dict[int, Certificate] = {}
        self.notarized: dict[int, dict[bytes, Certificate]] = {}
        self.finalized: dict[tuple[int, bytes], Certificate] = {}
        self.highest_nullified = 0
        self.highest_notarized = 0

    def get(self, kind: VoteKind, view: int, block_hash: bytes) -> Certificate | None:
        if kind is VoteKind.NULLIFY:
            return self.nullified.get(view)
        if kind is VoteKind.NOTARIZE:
            by_hash = self.notarized.get(view)
            return None if by_hash is None else by_hash.get(block_hash)
        return self.finalized.get((view, block_hash))

    def holds(self, kind: VoteKind, view: int, block_hash: bytes) -> bool:
        return self.get(kind, view, block_hash) is not None

    def add(self, certificate: Certificate) -> None:
        view = certificate.view
        match certificate.kind:
            case VoteKind.NULLIFY:
                self.nullified[view] = certificate
                self.highest_nullified = max(self.highest_nullified, view)
            case VoteKind.NOTARIZE:
                self.notarized.setdefault(view, {})[certificate.block_hash] = certificate
                self.highest_notarized = max(self.highest_notarized, view)
            case VoteKind.FINALIZE:
                self.finalized[view, certificate.block_hash] = certificate

    def all(self) -> Iterator[Certificate]:
        yield from self.nullified.values()
        for by_hash in self.notarized.values():
            yield from by_hash.values()
        yield from self.finalized.values()

    def notarization(self, view: int) -> Certificate | None:
        """The notarization of `view` (the lowest hash, should a fork have made two)."""
        by_hash = self.notarized.get(view)
        return by_hash[min(by_hash)] if by_hash else None

    def entry_to(self, view: int) -> Certificate | None:
        """A certificate that lets a peer enter `view`, or the view before it."""
        return (
            self.nullified.get(view - 1) or self.notarization(view) or self.notarization(view - 1)
        )

    def needed(self, view: int) -> tuple[int, ...]:
        """Rule 5: views below `view` without nullification, down to the first notarization."""
        missing: list[int] = []
        for below in range(view - 1, 0, -1):
            if below in self.notarized or len(missing) == NEED_MAX:
                break
            if below not in self.nullified:
                missing.append(below)
        return tuple(missing)

    def missing_nullifications(self, first_view: int, view: int) -> tuple[int, ...]:
        """Rule 6: views of first_view..view-1 without nullification, the newest NEED_MAX."""
        missing = (v for v in range(view - 1, first_view - 1, -1) if v not in self.nullified)
        return tuple(islice(missing, NEED_MAX))

    def justify_for(self, view: int) -> Justify | None:
        """Rule 13: what a leader of `view` may propose by these certificates; None: nothing."""
        nullifications: list[Certificate] = []
        for below in range(view - 1, 0, -1):
            notarization = self.notarization(below)
            if notarization is not None:
                return notarization.block_hash, (notarization, *_newest(nullifications))
            nullification = self.nullified.get(below)
            if nullification is None:
                return None
            nullifications.append(nullification)
        return None, _newest(nullifications)


def _newest(nullifications: list[Certificate]) -> tuple[Certificate, ...]:
    """Those that a message carries, in its order, of all by descending view."""
    return tuple(reversed(nullifications[:JUSTIFY_NULLIFICATIONS_MAX]))


def first_nullified_view(propose: Propose) -> int:
    """From this view on, all views below the proposal's must be nullified."""
    if propose.justify and propose.justify[0].kind is VoteKind.NOTARIZE:
        return propose.justify[0].view + 1
    return 1


def verify_justify(
    propose: Propose, validators: ValidatorSet, chain_id: str, is_valid: SignatureCheck
) -> None:
    """Check rule 6 for a proposal whose block is of this height, as far as the message goes: that
    the older nullifications are held is for the caller to see. Raises InvalidInputError."""
    nullifications = propose.justify
    if propose.justify and propose.justify[0].kind is VoteKind.NOTARIZE:
        notarization, nullifications = propose.justify[0], propose.justify[1:]
        if notarization.view >= propose.view:
            raise InvalidInputError("justify notarizes a view that is not below the proposal's")
        if notarization.block_hash != propose.block.hash:
            raise InvalidInputError("justify notarizes another block")
        if not 1 <= propose.block.header.origin_view <= notarization.view:
            raise InvalidInputError("block is younger than its notarization")
    elif propose.block.header.origin_view != propose.view:
        raise InvalidInputError(
            "fresh block has another origin view",
            expected=str(propose.view),
            got=str(propose.block.header.origin_view),
        )
    first_view = max(first_nullified_view(propose), propose.view - JUSTIFY_NULLIFICATIONS_MAX)
    if any(c.kind is not VoteKind.NULLIFY for c in nullifications) or [
        c.view for c in nullifications
    ] != list(range(first_view, propose.view)):
        raise InvalidInputError(
            "justify does not nullify exactly the views before the proposal",
            expected=f"{first_view}..{propose.view - 1}",
        )
    for certificate in propose.justify:
        if certificate.height != propose.height:
            raise InvalidInputError("justify is of another height")
        verify_certificate(certificate, validators, chain_id, is_valid)
