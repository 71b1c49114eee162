"""The rules by which this node votes, as pure predicates over its own votes (rules 2, 11, 14).

They stand apart from the machinery so that the tests can break one at a time and show that the
simulator notices; nothing but those tests passes another `Rules` to the core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from consensus.justify import CertificateBook, first_nullified_view, verify_justify
from consensus.messages import Propose
from consensus.statement import Statement, StatementKind
from ledger.certificate import SignatureCheck
from ledger.validator_set import ValidatorSet


@dataclass(slots=True)
class OwnStatements:
    """What this validator signed at the current height, by view. Durable in the sign guard."""

    notarized: dict[int, bytes] = field(default_factory=dict)
    finalized: dict[int, bytes] = field(default_factory=dict)
    nullified: set[int] = field(default_factory=set)
    proposed: dict[int, bytes] = field(default_factory=dict)

    def add(self, statement: Statement) -> None:
        match statement.kind:
            case StatementKind.NOTARIZE:
                self.notarized[statement.view] = statement.block_hash
            case StatementKind.FINALIZE:
                self.finalized[statement.view] = statement.block_hash
            case StatementKind.NULLIFY:
                self.nullified.add(statement.view)
            case StatementKind.PROPOSE:
                self.proposed[statement.view] = statement.block_hash

    def highest_view(self) -> int:
        """The last view with an own statement; 0 if there is none."""
        return max(
            (*self.notarized, *self.finalized, *self.nullified, *self.proposed),
            default=0,
        )


class Rules:
    """Simplex's voting rules."""

    def has_quorum(self, validators: ValidatorSet, signers: Iterable[bytes], power: int) -> bool:
        """Rule 2. `power` is the summed power of `signers`."""
        return validators.has_quorum(power)

    def may_notarize(self, own: OwnStatements, view: int) -> bool:
        """Rule 14: no N and no X of mine in the view."""
        return view not in own.notarized and view not in own.nullified

    def may_nullify(self, own: OwnStatements, view: int, *, is_notarized: bool) -> bool:
        """Rule 14: never X after F; a notarized view is left without it."""
        return not is_notarized and view not in own.nullified and view not in own.finalized

    def may_finalize(self, own: OwnStatements, view: int, block_hash: bytes) -> bool:
        """Rule 14: my own N is for this block, no X, no F."""
        return (
            own.notarized.get(view) == block_hash
            and view not in own.nullified
            and view not in own.finalized
        )

    def may_vote_after_commit(self, own: OwnStatements, view: int) -> bool:
        """Rule 15: nothing of mine in the view of the finalization that I heard of."""
        return view not in own.notarized and view not in own.nullified and view not in own.finalized

    def may_leave_notarized_view(self, *, expired: bool, later_view_seen: bool) -> bool:
        """Rule 11: with the second condition left out, skewed clocks can livelock a height."""
        return expired or later_view_seen

    def verify_justify(
        self,
        propose: Propose,
        validators: ValidatorSet,
        chain_id: str,
        is_valid: SignatureCheck,
    ) -> None:
        """Rule 6. Raises InvalidInputError."""
        verify_justify(propose, validators, chain_id, is_valid)

    def missing_for(self, propose: Propose, book: CertificateBook) -> tuple[int, ...]:
        """Rule 6: views whose nullification must be here before the proposal counts, and is not."""
        return book.missing_nullifications(first_nullified_view(propose), propose.view)
