"""The chain on LevelDB itself."""

from __future__ import annotations

from pathlib import Path

from ledger.store import LevelStore
from tests.unit.chain_fixture import FAUCET, advance, key_of, open_chain, transfer


def test_a_chain_on_leveldb_is_found_again(tmp_path: Path) -> None:
    store = LevelStore.open(tmp_path / "db")
    chain = open_chain(store)
    for nonce in range(4):
        advance(chain, [transfer(FAUCET, nonce, key_of(1).public_key, 5)])
    head, root = chain.head_hash, chain.tree.root
    store.close()
    again_store = LevelStore.open(tmp_path / "db", create=False)
    again = open_chain(again_store)
    assert (again.height, again.head_hash, again.tree.root) == (4, head, root)
    again.check_invariants()
    again_store.close()
