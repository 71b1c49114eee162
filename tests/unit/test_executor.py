"""Execution: what is admissible, what a failing tx leaves, fees, log, limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from ledger import codec
from ledger.accounts import FEES_KEY, TransferBody, account_key, read_account
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import BlockFacts, HandlerError
from ledger.executor import BlockPlace, Execution, Executor
from ledger.fees import compute_fee_min
from ledger.genesis_state import AUDIT_FRONTIER_KEY
from ledger.merkle import compute_inclusion_proof, compute_leaf_hash, verify_inclusion_proof
from ledger.params import ChainParams
from ledger.state import StateTree
from ledger.store import Batch, MemoryStore
from ledger.tx import Message, Tx
from ledger.tx_result import TxResult
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    PARAMS,
    PROPOSER,
    LeafListLog,
    handlers,
    key_of,
    probe,
    transfer,
)

A, B = key_of(1), key_of(2)
EXECUTOR = Executor(CHAIN_ID, handlers(), LeafListLog())


def new_tree() -> StateTree:
    """The genesis state."""
    store = MemoryStore()
    tree = StateTree.open(store)
    overlay, batch = tree.compute(GENESIS.state_rows(), None), Batch()
    tree.add_rows(overlay, batch, height=0, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    return tree


def place_at(height: int) -> BlockPlace:
    return BlockPlace(height=height, time_ms=1000, parent_time_ms=0, parent_hash=bytes(32))


def execute(
    tree: StateTree,
    txs: Sequence[Tx],
    *,
    height: int = 1,
    params: ChainParams = PARAMS,
    building: bool = False,
) -> Execution:
    return EXECUTOR.execute(
        tree,
        None,
        place=place_at(height),
        facts=BlockFacts(proposer=PROPOSER),
        txs=txs,
        params=params,
        skip_inadmissible=building,
    )


def supply(execution: Execution, keys: Sequence[KeyPair]) -> int:
    accounts = [read_account(execution.overlay, key.public_key).balance for key in keys]
    fees: int = codec.decode(execution.overlay.get(FEES_KEY) or b"", bytes_max=9)
    return sum(accounts) + fees


def test_a_transfer_moves_the_amount_and_takes_the_fee_once() -> None:
    tree = new_tree()
    before = read_account(tree, FAUCET.public_key).balance
    tx = transfer(FAUCET, 0, A.public_key, 1000)
    done = execute(tree, [tx])
    assert [r.code for r in done.results] == [""]
    assert read_account(done.overlay, A.public_key).balance == 1000
    faucet = read_account(done.overlay, FAUCET.public_key)
    assert (faucet.balance, faucet.nonce) == (before - 1000 - tx.fee, 1)
    assert done.overlay.get(FEES_KEY) == codec.encode(tx.fee)
    assert supply(done, [FAUCET, A]) == before
    assert (done.next_nonces, done.balances) == (
        {FAUCET.public_key: 1},
        {FAUCET.public_key: faucet.balance},
    )
    assert read_account(tree, A.public_key).balance == 0, "the tree itself has not changed"


def test_a_transfer_to_oneself_costs_the_fee_alone() -> None:
    tree = new_tree()
    before = read_account(tree, FAUCET.public_key).balance
    tx = transfer(FAUCET, 0, FAUCET.public_key, 1000)
    done = execute(tree, [tx])
    assert read_account(done.overlay, FAUCET.public_key).balance == before - tx.fee


def test_money_received_in_a_block_can_be_spent_in_it() -> None:
    txs = [transfer(FAUCET, 0, A.public_key, 5000), transfer(A, 0, B.public_key, 100)]
    done = execute(new_tree(), txs)
    assert [r.code for r in done.results] == ["", ""]
    assert read_account(done.overlay, B.public_key).balance == 100


def test_a_failed_tx_pays_its_fee_and_leaves_nothing_else() -> None:
    tree = new_tree()
    before = read_account(tree, FAUCET.public_key).balance
    fund = transfer(FAUCET, 0, A.public_key, 1000)
    poor = transfer(A, 0, B.public_key, 1000)
    failed = probe(FAUCET, 1, "fail", "x")
    done = execute(tree, [fund, poor, failed])
    assert [r.code for r in done.results] == ["", "bank/insufficient-balance", "probe/asked"]
    assert done.results[2].events == ()
    assert done.results[2].fee == failed.fee
    assert read_account(done.overlay, A.public_key).balance == 1000 - poor.fee
    assert read_account(done.overlay, A.public_key).nonce == 1
    assert read_account(done.overlay, FAUCET.public_key).nonce == 2
    assert done.overlay.get(account_key(B.public_key)) is None
    assert done.overlay.get(b"probe\0x") is None
    assert (done.side_rows, done.log_entries, done.audit_size) == ({}, [], 0)
    assert supply(done, [FAUCET, A, B]) == before


def test_all_messages_of_a_failing_tx_are_undone() -> None:
    pay = Message("bank/transfer", TransferBody(to=A.public_key, amount=10).encode())
    fail = Message("test/probe", codec.encode(["fail", "x"]))
    tx = Tx.sign(FAUCET, chain_id=CHAIN_ID, nonce=0, fee=9999, valid_until=10, messages=[pay, fail])
    done = execute(new_tree(), [tx])
    assert done.results[0].weight == 11
    assert done.overlay.get(account_key(A.public_key)) is None


def test_a_balance_past_u64_is_a_typed_failure() -> None:
    tree = new_tree()
    store_row = {account_key(A.public_key): codec.encode([codec.U64_MAX, 0])}
    full = tree.compute(store_row, None)
    done = EXECUTOR.execute(
        tree,
        full,
        place=place_at(1),
        facts=BlockFacts(proposer=PROPOSER),
        txs=[transfer(FAUCET, 0, A.public_key, 1)],
        params=PARAMS,
        skip_inadmissible=False,
    )
    assert done.results[0].code == "bank/overflow"
    assert read_account(done.overlay, A.public_key).balance == codec.U64_MAX


def test_rows_log_entries_and_events_of_good_txs_come_in_tx_order() -> None:
    txs = [
        probe(FAUCET, 0, "run", "one"),
        probe(FAUCET, 1, "fail", "two"),
        probe(FAUCET, 2, "delete", "three"),
    ]
    done = execute(new_tree(), txs)
    assert done.log_entries == [b"one", b"three"]
    assert done.audit_size == 2
    assert done.overlay.get(b"probe\0one") == txs[0].id
    assert done.overlay.get(b"probe\0three") is None
    assert sorted(done.side_rows) == [b"d/probe\0one", b"d/probe\0three"]
    indexes = [dict(r.events[0].attributes)["index"] for r in done.results if r.events]
    assert indexes == ["0", "1"], "a failed tx uses up no leaf index"
    frontier = done.overlay.get(AUDIT_FRONTIER_KEY)
    assert frontier is not None
    assert LeafListLog().size_and_root(frontier) == (2, done.audit_root)


def test_a_bug_in_a_handler_is_not_taken_for_a_failed_tx() -> None:
    tx = probe(FAUCET, 0, "bug", "x")
    with pytest.raises(HandlerError) as caught:
        execute(new_tree(), [tx])
    assert caught.value.tx_id == tx.id
    assert isinstance(caught.value.__cause__, KeyError)


INADMISSIBLE = {
    "nonce too high": transfer(FAUCET, 1, A.public_key, 1),
    "fee too low": transfer(FAUCET, 0, A.public_key, 1, fee=100),
    "payer has nothing": transfer(A, 0, B.public_key, 0),
    "fee over balance": transfer(FAUCET, 0, A.public_key, 1, fee=2 * 10**18),
    "expired": transfer(FAUCET, 0, A.public_key, 1, valid_until=4),
    "valid for too long": transfer(
        FAUCET, 0, A.public_key, 1, valid_until=6 + PARAMS.tx_valid_blocks_max
    ),
    "another chain": transfer(FAUCET, 0, A.public_key, 1, chain_id="other"),
    "malformed body": probe(FAUCET, 0, "malformed", ""),
    "unknown type": Tx.sign(
        FAUCET,
        chain_id=CHAIN_ID,
        nonce=0,
        fee=9999,
        valid_until=10,
        messages=[Message("no/such", b"")],
    ),
}


@pytest.mark.parametrize("why", INADMISSIBLE)
def test_an_inadmissible_tx_makes_a_block_invalid_and_is_left_out_when_building(why: str) -> None:
    tree, tx = new_tree(), INADMISSIBLE[why]
    good = transfer(FAUCET, 0, A.public_key, 1)
    with pytest.raises(InvalidInputError):
        execute(tree, [tx], height=5)
    built = execute(tree, [tx, good], height=5, building=True)
    assert built.included == (good,)
    assert built.overlay.root == execute(tree, [good], height=5).overlay.root


def test_the_same_tx_twice_is_refused() -> None:
    tx = transfer(FAUCET, 0, A.public_key, 1)
    with pytest.raises(InvalidInputError, match="nonce"):
        execute(new_tree(), [tx, tx])
    assert execute(new_tree(), [tx, tx], building=True).included == (tx,)


@pytest.mark.parametrize(
    ("limit", "value", "fit"),
    [("block_txs_max", 2, 2), ("block_weight_max", 25, 2), ("block_bytes_max", 64 * 1024, 63)],
)
def test_block_limits_hold_when_building_and_when_judging(limit: str, value: int, fit: int) -> None:
    tree = new_tree()
    params = dataclasses.replace(PARAMS, **{limit: value})
    if limit == "block_bytes_max":
        txs = [transfer(FAUCET, n, A.public_key, 1, memo=bytes(860)) for n in range(64)]
    else:
        txs = [probe(FAUCET, n, "run", "x") for n in range(4)]
    built = execute(tree, txs, params=params, building=True)
    assert len(built.included) == fit
    execute(tree, built.included, params=params)
    with pytest.raises(InvalidInputError, match="limits"):
        execute(tree, txs, params=params)


def test_a_tx_heavier_than_any_block_is_refused_at_admission() -> None:
    params = dataclasses.replace(PARAMS, block_weight_max=9)
    with pytest.raises(InvalidInputError, match="larger than a block"):
        EXECUTOR.check(probe(FAUCET, 0, "run", "x"), params)


def test_a_remembered_check_does_not_outlive_a_change_of_fees() -> None:
    tx = transfer(FAUCET, 0, A.public_key, 1)
    EXECUTOR.check(tx, PARAMS)
    with pytest.raises(InvalidInputError, match="fee"):
        EXECUTOR.check(tx, dataclasses.replace(PARAMS, fee_base=10**6))


def test_the_least_fee_is_enough_and_one_less_is_not() -> None:
    messages = [Message("bank/transfer", TransferBody(to=A.public_key, amount=1).encode())]
    at_most = compute_fee_min(PARAMS, chain_id=CHAIN_ID, nonce=0, valid_until=9, messages=messages)
    fees = range(at_most - 20, at_most + 1)
    txs = [
        Tx.sign(FAUCET, chain_id=CHAIN_ID, nonce=0, fee=f, valid_until=9, messages=messages)
        for f in fees
    ]
    for tx in txs:
        if tx.fee >= PARAMS.compute_fee_min(len(tx.encoded)):
            EXECUTOR.check(tx, PARAMS)
        else:
            with pytest.raises(InvalidInputError, match="fee"):
                EXECUTOR.check(tx, PARAMS)
    assert txs[-1].fee >= PARAMS.compute_fee_min(len(txs[-1].encoded))


def test_the_results_root_proves_each_result() -> None:
    txs = [transfer(FAUCET, n, A.public_key, n) for n in range(5)]
    done = execute(new_tree(), txs)
    leaves = [compute_leaf_hash(r.leaf_bytes()) for r in done.results]
    for index, leaf in enumerate(leaves):
        path = compute_inclusion_proof(leaves, index)
        verify_inclusion_proof(done.results_root, 5, index, leaf, path)


def test_the_wording_of_a_failure_is_not_part_of_the_results_root() -> None:
    result = execute(new_tree(), [probe(FAUCET, 0, "fail", "x")]).results[0]
    assert result.message
    assert dataclasses.replace(result, message="").leaf_bytes() == result.leaf_bytes()
    assert TxResult.from_value(codec.decode(codec.encode(result.to_value()), bytes_max=999)) == (
        result
    )


def test_a_handler_under_a_wrong_name_is_our_own_mistake() -> None:
    with pytest.raises(UsageError):
        Executor(CHAIN_ID, {"bank/other": handlers()["bank/transfer"]}, LeafListLog())
