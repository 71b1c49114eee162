"""Read-only seams between the packages above: state with proofs, and who may act for a DID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ledger.execution import StateView
from ledger.finality import FinalityProof


class ProvenView(Protocol):
    """The state after one final height. Every read can be proven to anyone who trusts a
    validator set: value + state proof -> header's state root -> certificate."""

    height: int
    time_ms: int
    finality: FinalityProof

    def get(self, key: bytes) -> bytes | None: ...

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        """(value or None, state proof bytes of that value's presence or absence)."""

    def prove_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """(values, state multiproof bytes) of different keys; `ledger.state.multiproof`."""

    def side_get(self, key: bytes) -> bytes | None:
        """A row outside the tree (`ExecutionContext.side_put`). Not proven by itself."""


class DidAuthority(Protocol):
    """Judges whether signatures act for a DID. Implemented in `did`, used by `audit`."""

    def verify_authority(
        self,
        state: StateView,
        did: str,
        message: bytes,
        signatures: Sequence[tuple[str, bytes]],
    ) -> None:
        """Raise TxFailure (`did/not-found`, `did/deactivated`, `did/not-authorised`) unless
        `signatures`, pairs of (Multikey of a current control key, 64 B Ed25519 signature over
        `message`), reach the DID's control threshold."""
