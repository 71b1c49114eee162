"""The invariants, broken on purpose, and after each block of the real executor."""

from __future__ import annotations

import dataclasses

import pytest

from ledger import codec
from ledger.errors import InvalidInputError
from ledger.execution import BlockFacts
from ledger.executor import BlockPlace, Executor
from ledger.fees import sign_tx
from ledger.genesis_state import SUPPLY_KEY, GenesisState
from ledger.params import DAY_MS
from ledger.pools import REWARDS_KEY, read_amount
from ledger.staking_genesis import GenesisStake, genesis_staking
from ledger.staking_handlers import stake_handlers
from ledger.staking_invariants import check_staking
from ledger.staking_messages import CONSENSUS, VRF
from ledger.staking_module import StakingModule
from ledger.staking_rows import (
    open_entries_key,
    read_validator,
    validator_key,
)
from ledger.state import StateTree
from ledger.store import Batch, MemoryStore
from ledger.tx import Message
from ledger.validator_rows import NEXT_KEY, SET_KEY
from ledger.validator_set import ValidatorSet
from tests.unit.chain_fixture import LeafListLog
from tests.unit.staking_txs import (
    create,
    delegate,
    retire,
    undelegate,
)
from tests.unit.staking_world import BALANCE, CHAIN_ID, PARAMS, World, account, key_of


def consensus(number: int) -> bytes:
    return key_of(CONSENSUS, number).public_key


def test_a_broken_invariant_is_named() -> None:
    broken = {
        "supply = balances": (SUPPLY_KEY, codec.encode(5)),
        "pool/rewards": (REWARDS_KEY, codec.encode(1)),
        "open entries": (open_entries_key(account(1), account(1)), codec.encode(2)),
        "power in force": None,
        "list of candidates": (b"validators\0candidates", codec.encode([])),
        "the next set": (NEXT_KEY, ValidatorSet.decode(World().state.get(SET_KEY) or b"").encoded),
    }
    for name, change in broken.items():
        world = World(accounts=12)
        world.block(delegate(5, 0, 10**9), undelegate(1, 1, 5))
        if name == "pool/rewards":  # at the cost of the fees, so that the supply is right
            world.state.rows[SUPPLY_KEY] = codec.encode(read_amount(world.state, SUPPLY_KEY) + 1)
        if change is None:
            record = read_validator(world.state, account(0))
            assert record is not None
            row = dataclasses.replace(record, power=7).encode()
            change = (validator_key(account(0)), row)
        world.state.rows[change[0]] = change[1]
        with pytest.raises(InvalidInputError, match=name):
            world.check()


# --- on the real executor ---


def test_the_executor_runs_staking_and_every_invariant_holds_in_the_tree() -> None:
    params = dataclasses.replace(PARAMS, inflation_ppm=70_000)
    stakes = [
        GenesisStake(
            operator=account(n),
            consensus_key=consensus(n),
            vrf_key=key_of(VRF, n).public_key,
            cosign_key=key_of("cosign", n).public_key,
            name=f"validator {n}",
            commission_ppm=0,
            bond=10**9,
        )
        for n in range(3)
    ]
    staking = genesis_staking(stakes, params)
    genesis = GenesisState(
        chain_id=CHAIN_ID,
        genesis_hash=bytes(32),
        params=params,
        validators=staking.validators,
        accounts=tuple((account(n), BALANCE) for n in range(8)),
        time_ms=1000,
        module_rows=staking.rows,
        pooled=staking.pooled,
    )
    store = MemoryStore()
    tree = StateTree.open(store)
    overlay, batch = tree.compute(genesis.state_rows(), None), Batch()
    tree.add_rows(overlay, batch, height=0, time_ms=0)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    executor = Executor(
        CHAIN_ID, stake_handlers(CHAIN_ID), LeafListLog(), modules=(StakingModule(),)
    )
    plan = [[create(5, 5)], [delegate(6, 5, 10**8)], [], [undelegate(6, 5, 5)], [retire(0)], []]
    nonces = dict.fromkeys(range(8), 0)
    for height, messages in enumerate(plan, 1):
        txs = []
        for number, kind, body in messages:
            txs.append(
                sign_tx(
                    key_of("account", number),
                    chain_id=CHAIN_ID,
                    nonce=nonces[number],
                    valid_until=100,
                    messages=[Message(kind, body)],
                    params=params,
                )
            )
            nonces[number] += 1
        done = executor.execute(
            tree,
            None,
            place=BlockPlace(
                height=height,
                time_ms=height * DAY_MS,
                parent_time_ms=(height - 1) * DAY_MS,
                parent_hash=bytes(32),
            ),
            facts=BlockFacts(proposer=consensus(0)),
            txs=txs,
            params=params,
            skip_inadmissible=False,
        )
        assert [result.code for result in done.results] == [""] * len(txs)
        batch = Batch()
        tree.add_rows(done.overlay, batch, height=height, time_ms=height)
        store.write(batch, sync=True)
        tree.adopt(done.overlay)
        report = check_staking(tree)
    assert report.validators == 4
    assert report.supply > genesis.supply
    assert consensus(0) not in ValidatorSet.decode(tree.get(NEXT_KEY) or b"")
    assert consensus(5) in ValidatorSet.decode(tree.get(SET_KEY) or b"")
