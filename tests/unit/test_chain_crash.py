"""Crashes and a full disk at every write of a chain's life."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from ledger.block import Block
from ledger.certificate import VoteKind
from ledger.chain import Chain
from ledger.errors import DurabilityError
from ledger.store import CrashStore, SimulatedCrash, Store
from tests.unit.chain_fixture import (
    FAUCET,
    advance,
    build,
    certify,
    key_of,
    open_chain,
    probe,
    transfer,
)

A = key_of(1)
HEIGHTS = 3
WRITES = 1 + 2 * HEIGHTS  # genesis, then a candidate and a commit a height


def tiles(_store: Store, old_size: int, entries: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return [(b"a/" + (old_size + i).to_bytes(8, "big"), e) for i, e in enumerate(entries)]


def live(store: CrashStore, done: list[Block]) -> Chain:
    """Open the chain and run it to HEIGHTS; a block is `done` once its commit returned."""
    chain = open_chain(store, tiles)
    while chain.height < HEIGHTS:
        advance_once(chain, done)
    return chain


def advance_once(chain: Chain, done: list[Block]) -> None:
    nonce = 2 * chain.height
    txs = [transfer(FAUCET, nonce, A.public_key, 10), probe(FAUCET, nonce + 1, "run", "x")]
    block = build(chain, txs)
    chain.store_consensus([block], [certify(block, kind=VoteKind.NOTARIZE)])
    chain.commit(block, certify(block))
    done.append(block)


def check_whole(chain: Chain, done: list[Block]) -> None:
    """Everything announced is there, and the store agrees with itself."""
    assert chain.height >= len(done)
    chain.check_invariants()
    assert chain.account(A.public_key).balance == 10 * chain.height
    assert chain.account(FAUCET.public_key).nonce == 2 * chain.height
    for block in done:
        assert chain.block(block.height) == block
    for height in range(1, chain.height + 1):
        block = chain.block(height)
        assert chain.certificate(height).block_hash == block.hash
        assert [chain.tx_location(i) for i in block.tx_ids] == [(height, 0), (height, 1)]
        assert [r.tx_id for r in chain.results(height)] == list(block.tx_ids)
        assert chain.view_at(height).side_get(b"a/" + (height - 1).to_bytes(8, "big")) == b"x"
        assert chain.load_consensus(height) == ([], [])
    if chain.head is not None:
        assert chain.tree.root == chain.head.state_root


@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("applied", [False, True])
def test_after_a_crash_at_any_write_the_chain_is_whole_and_goes_on(
    write: int, applied: bool
) -> None:
    store = CrashStore()
    if applied:
        store.stop_after(write)
    else:
        store.stop_before(write)
    done: list[Block] = []
    with pytest.raises(SimulatedCrash):
        live(store, done)
    assert store.unsynced == 0, "each write of a chain is synced"
    found = store.crash(rng=random.Random(write))
    chain = open_chain(found, tiles)
    check_whole(chain, done)
    height = (write - (0 if applied else 1) - 1) // 2
    assert chain.height == max(height, 0)
    check_whole(live(found, done), [])


@pytest.mark.parametrize("write", range(2, WRITES + 1))
def test_a_full_disk_stops_the_chain_and_changes_nothing(write: int) -> None:
    store = CrashStore()
    store.fail_after(write - 1)
    done: list[Block] = []
    chain = open_chain(store, tiles)
    for _ in range((write - 2) // 2):
        advance_once(chain, done)
    with pytest.raises(DurabilityError):
        advance_once(chain, done)
    assert chain.height == len(done) == (write - 2) // 2
    check_whole_reads(chain)
    with pytest.raises(DurabilityError):
        advance(chain)
    check_whole_reads(chain)
    found = open_chain(store.crash(), tiles)
    check_whole(found, done)
    assert found.height == chain.height


def check_whole_reads(chain: Chain) -> None:
    """Reads still answer for the last height that is durable."""
    assert chain.account(A.public_key).balance == 10 * chain.height
    genesis_hash = chain.genesis.genesis_hash
    assert chain.head_hash == (chain.header(chain.height).hash if chain.height else genesis_hash)
    if chain.head is not None:
        assert chain.tree.root == chain.head.state_root
        assert chain.view().prove(b"params\0")[0] is not None


def test_a_full_disk_at_the_genesis_leaves_an_empty_store() -> None:
    store = CrashStore()
    store.fail_after(0)
    with pytest.raises(DurabilityError):
        open_chain(store)
    found = store.crash()
    assert list(found.iterate(prefix=b"")) == []
    assert open_chain(found).height == 0


def test_what_consensus_stored_survives_a_crash_before_the_commit() -> None:
    store = CrashStore()
    chain = open_chain(store)
    block = build(chain, [transfer(FAUCET, 0, A.public_key, 1)])
    certificate = certify(block, kind=VoteKind.NOTARIZE)
    chain.store_consensus([block], [certificate])
    again = open_chain(store.crash())
    assert again.load_consensus(1) == ([block], [certificate])
    again.commit(block, certify(block))
    assert again.height == 1
