"""What a validator puts its signature on, and which two statements of one signer contradict.

A statement is (kind, height, view, block hash); a nullification has an empty hash. The sign bytes
of the three votes are those of `ledger.certificate`; a proposal signs
`sign_bytes("propose", chain_id, [height, view, block_hash])`.

`is_conflict` is defined once: the sign guard refuses to make such a pair, and evidence is exactly
such a pair (rule 21). N with X is legal: a validator may have notarized a block and later found
the view dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from ledger import codec
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes


class StatementKind(IntEnum):
    """Wire numbers; 1..3 are those of `VoteKind`."""

    NOTARIZE = 1
    NULLIFY = 2
    FINALIZE = 3
    PROPOSE = 4


KIND_OF_VOTE = {kind: StatementKind(int(kind)) for kind in VoteKind}
"""A look-up costs a tenth of building the member from its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that a validator says about one view of one height."""

    kind: StatementKind
    height: int
    view: int
    block_hash: bytes

    @classmethod
    def of_certificate(cls, certificate: Certificate) -> Statement:
        """What each signer of `certificate` says."""
        return cls(
            kind=KIND_OF_VOTE[certificate.kind],
            height=certificate.height,
            view=certificate.view,
            block_hash=certificate.block_hash,
        )


def is_conflict(a: Statement, b: Statement) -> bool:
    """True if no honest validator signs both. Kinds: N/N', F/F', P/P' (other hash), F/X, F/N'."""
    if (a.height, a.view) != (b.height, b.view):
        return False
    kinds = (min(a.kind, b.kind), max(a.kind, b.kind))
    if kinds == (StatementKind.NULLIFY, StatementKind.FINALIZE):
        return True
    if a.kind == b.kind or kinds == (StatementKind.NOTARIZE, StatementKind.FINALIZE):
        return a.block_hash != b.block_hash
    return False


@lru_cache(maxsize=256)
def propose_sign_bytes(chain_id: str, height: int, view: int, block_hash: bytes) -> bytes:
    """What the signature of a proposal covers; its justify is checked by itself."""
    return codec.sign_bytes("propose", chain_id, [height, view, block_hash])


@lru_cache(maxsize=256)
def status_sign_bytes(chain_id: str, height: int, view: int) -> bytes:
    """What the signature of a Status covers."""
    return codec.sign_bytes("status", chain_id, [height, view])


def statement_sign_bytes(chain_id: str, statement: Statement) -> bytes:
    """The bytes that the signature of `statement` covers."""
    s = statement
    if s.kind is StatementKind.PROPOSE:
        return propose_sign_bytes(chain_id, s.height, s.view, s.block_hash)
    return vote_sign_bytes(chain_id, VoteKind(int(s.kind)), s.height, s.view, s.block_hash)
