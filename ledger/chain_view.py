"""The state after one final height, with proofs that end in signatures (`views.ProvenView`)."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.finality import FinalityProof
from ledger.state import StateTree
from ledger.store import Store


class ChainView:
    """Reads at `height`. At the tip they come from the tree; once the chain has moved on, or for an
    older height, from the tree's history, which raises InvalidInputError when it no longer
    reaches back that far."""

    def __init__(self, tree: StateTree, store: Store, finality: FinalityProof) -> None:
        self.height = finality.header.height
        self.time_ms = finality.header.time_ms
        self.finality = finality
        self._tree = tree
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        """The row's value at this height."""
        if self._tree.height == self.height:
            return self._tree.get(key)
        return self._tree.prove_at(self.height, key)[0]

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        """(value or None, state proof bytes under `finality.header.state_root`)."""
        if self._tree.height == self.height:
            return self._tree.prove(key)
        value, proof, _root = self._tree.prove_at(self.height, key)
        return value, proof

    def prove_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        """(values, one proof of them all under `finality.header.state_root`)."""
        return self._tree.prove_many(self.height, keys)

    def side_get(self, key: bytes) -> bytes | None:
        """A row outside the tree, as the store has it now; not proven by itself."""
        return self._store.get(key)
