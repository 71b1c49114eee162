"""What a client knows beforehand, so that it need not believe a node: a trust point, and the time.

`node.light_trust` reads trust points from the files that users have; every check of a proof begins
at one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ledger.block import Header
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.light import TrustPoint, format_span, verify_trusted
from ledger.state import verify_state_proof
from rpc.params import bytes_of_text

GENESIS_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A trust point, where it comes from, and when proofs are judged by it: at `at_ms` (Unix ms),
    or whenever that is done."""

    point: TrustPoint
    source: str
    at_ms: int | None = None

    @property
    def chain_id(self) -> str:
        return self.point.chain_id

    @property
    def text(self) -> str:
        """In words, for people."""
        where = f"block {self.point.height}" if self.point.height else "genesis"
        return (
            f"chain {self.chain_id} from {where} on, "
            f"{len(self.point.validators.validators)} validators from {self.source}, for "
            f"{format_span(self.point.trusting_period_ms)}"
        )

    def now_ms(self) -> int:
        """The time at which to judge."""
        return time.time_ns() // 1_000_000 if self.at_ms is None else self.at_ms

    def verify(self, proof: FinalityProof) -> Header:
        """See `ledger.light.verify_trusted`."""
        return verify_trusted(proof, self.point, self.chain_id, now_ms=self.now_ms())


def verify_row(trust: Trust, proof: object, key: bytes) -> tuple[bytes | None, list[str]]:
    """Check an RPC `proof` member about state row `key`. Returns the row (None: absent), now
    trusted, and the steps in words. Raises InvalidInputError."""
    if not isinstance(proof, dict):
        raise InvalidInputError("answer has no proof", got=type(proof).__name__)
    finality = FinalityProof.decode(_blob(proof, "finality"))
    header = trust.verify(finality)
    value = None if proof.get("value") is None else _blob(proof, "value")
    verify_state_proof(header.state_root, key, value, _blob(proof, "state_proof"))
    steps = [
        f"Validators with more than 2/3 of the stake made block {header.height} of "
        f"{trust.chain_id} final ({len(finality.handoffs)} handoffs from the trusted set).",
        f"That block's state {'holds no row' if value is None else 'holds the row'} shown.",
    ]
    return value, steps


def _blob(proof: dict[str, object], name: str) -> bytes:
    text = proof.get(name)
    if not isinstance(text, str):
        raise InvalidInputError(f"proof has no {name}", expected="base64url")
    try:
        return bytes_of_text(text)
    except ValueError as error:
        raise InvalidInputError(f"proof's {name} is not base64url", got=text[:40]) from error
