"""Who said what at one height: verified statements, their power, and contradictions.

Bounded: only validators are counted, at most `HASHES_MAX` blocks for one signer, view and kind
(rule 8; two are enough to prove a contradiction), and the caller drops views too far ahead.
"""

from __future__ import annotations

from consensus.evidence import Evidence
from consensus.statement import KIND_OF_VOTE, Statement, StatementKind, is_conflict
from ledger.certificate import VoteKind
from ledger.validator_set import ValidatorSet

HASHES_MAX = 2
Choice = tuple[StatementKind, int, bytes]
"""(kind, view, block hash)."""


class Tally:
    """Count statements that the caller has verified."""

    def __init__(self, height: int, validators: ValidatorSet) -> None:
        self._height = height
        self._validators = validators
        self._signatures: dict[Choice, dict[bytes, bytes]] = {}
        self._power: dict[Choice, int] = {}
        self._said: dict[tuple[int, bytes], list[tuple[Statement, bytes]]] = {}
        self._framed: set[tuple[int, bytes]] = set()

    def accepts(self, kind: StatementKind, view: int, block_hash: bytes, signer: bytes) -> bool:
        """False for strangers, for what is known, and for a third hash of one kind and view."""
        if signer not in self._validators.index_by_key:
            return False
        said = self._said.get((view, signer))
        if said is None:
            return True
        count = 0
        for statement, _ in said:
            if statement.kind is kind:
                if statement.block_hash == block_hash:
                    return False
                count += 1
        return count < HASHES_MAX

    def add(
        self, kind: StatementKind, view: int, block_hash: bytes, signer: bytes, signature: bytes
    ) -> Evidence | None:
        """`add_statement` of this height."""
        statement = Statement(kind=kind, height=self._height, view=view, block_hash=block_hash)
        return self.add_statement(statement, signer, signature)

    def add_statement(
        self, statement: Statement, signer: bytes, signature: bytes
    ) -> Evidence | None:
        """Count a verified statement that `accepts` let through.

        Returns evidence at the first contradiction of this signer in this view.
        """
        assert statement.height == self._height, "a tally is of one height"
        view = statement.view
        choice = (statement.kind, view, statement.block_hash)
        self._signatures.setdefault(choice, {})[signer] = signature
        self._power[choice] = self._power.get(choice, 0) + self._validators.power_of(signer)
        said = self._said.setdefault((view, signer), [])
        evidence = None
        if (view, signer) not in self._framed:
            for other in said:
                if is_conflict(other[0], statement):
                    evidence = Evidence.of(signer, other, (statement, signature))
                    self._framed.add((view, signer))
                    break
        said.append((statement, signature))
        return evidence

    def power(self, kind: VoteKind, view: int, block_hash: bytes) -> int:
        """Summed power of the voters."""
        return self._power.get((KIND_OF_VOTE[kind], view, block_hash), 0)

    def signatures(self, kind: VoteKind, view: int, block_hash: bytes) -> dict[bytes, bytes]:
        """Signature by signer."""
        return self._signatures.get((KIND_OF_VOTE[kind], view, block_hash), {})

    def signature_of(
        self, kind: StatementKind, view: int, block_hash: bytes, signer: bytes
    ) -> bytes | None:
        """The signature of one counted statement."""
        return self._signatures.get((kind, view, block_hash), {}).get(signer)

    def first_signature(
        self, kind: StatementKind, block_hash: bytes, signer: bytes
    ) -> tuple[int, bytes] | None:
        """(view, signature) of the signer's statement of this kind on a block, lowest view."""
        views = [
            v
            for (k, v, h), s in self._signatures.items()
            if (k, h) == (kind, block_hash) and signer in s
        ]
        if not views:
            return None
        return min(views), self._signatures[kind, min(views), block_hash][signer]

    def power_of_kind(self, kind: VoteKind, view: int) -> int:
        """Summed power of the votes of a kind in a view, whatever they name (for status)."""
        return sum(p for (k, v, _), p in self._power.items() if k == int(kind) and v == view)
