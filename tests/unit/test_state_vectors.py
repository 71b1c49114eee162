"""Frozen roots and proofs: a change of these bytes is a change of the protocol."""

from __future__ import annotations

import json
from pathlib import Path

from ledger.state import StateTree, verify_state_proof
from ledger.store import Batch, MemoryStore

VECTORS = Path(__file__).parent.parent / "vectors" / "state_tree.json"


def test_roots_and_proofs_are_the_frozen_ones() -> None:
    store = MemoryStore()
    tree = StateTree.open(store)
    kinds: set[int] = set()
    for height, step in enumerate(json.loads(VECTORS.read_text())["steps"], 1):
        overlay = tree.compute(
            {
                bytes.fromhex(key): None if value is None else bytes.fromhex(value)
                for key, value in step["writes"]
            }
        )
        batch = Batch()
        tree.add_rows(overlay, batch, height=height, time_ms=height)
        store.write(batch, sync=True)
        tree.adopt(overlay)
        assert tree.root.hex() == step["root"]
        for key_hex, value_hex, proof_hex in step["proofs"]:
            key, proof = bytes.fromhex(key_hex), bytes.fromhex(proof_hex)
            value = None if value_hex is None else bytes.fromhex(value_hex)
            assert tree.prove(key) == (value, proof)
            verify_state_proof(tree.root, key, value, proof)
            kinds.add(proof[2])
    assert kinds == {0, 1, 2}
    assert tree.root == bytes(32)
