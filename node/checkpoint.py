"""Trust points: what a client knows beforehand, so that it need not believe a node.

A trust point is a chain id and a validator set. It comes from a genesis file that its user got
from somewhere they trust; every check of a proof begins there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genesis.document import GenesisDocument
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FinalityProof, verify_finality
from ledger.state import verify_state_proof
from ledger.validator_set import ValidatorSet
from node.files import read_small
from rpc.params import bytes_of_text

GENESIS_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPoint:
    """Validators of chain `chain_id` that are trusted; `source` says where that comes from."""

    chain_id: str
    validators: ValidatorSet
    source: str

    @property
    def text(self) -> str:
        """In words, for people."""
        return (
            f"chain {self.chain_id}, {len(self.validators.validators)} validators from "
            f"{self.source}"
        )


def load_trust_point(path: Path) -> TrustPoint:
    """Read a genesis file. Raises UsageError (missing, unreadable, no genesis file)."""
    data = read_small(path, "trust file", GENESIS_BYTES_MAX)
    try:
        state = GenesisDocument.parse(data).to_state()
    except InvalidInputError as error:
        raise UsageError(
            f"trust file {path} is not a genesis file: {error.message}",
            expected=error.expected,
            got=error.got,
        ) from error
    return TrustPoint(chain_id=state.chain_id, validators=state.validators, source=str(path))


def verify_row(trust: TrustPoint, proof: object, key: bytes) -> tuple[bytes | None, list[str]]:
    """Check an RPC `proof` member about state row `key`. Returns the row (None: absent), now
    trusted, and the steps in words. Raises InvalidInputError."""
    if not isinstance(proof, dict):
        raise InvalidInputError("answer has no proof", got=type(proof).__name__)
    finality = FinalityProof.decode(_blob(proof, "finality"))
    header = verify_finality(finality, trust.validators, trust.chain_id)
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
