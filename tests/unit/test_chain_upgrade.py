"""Governance and upgrades on a whole chain: headers, the software that is too old, the one that is
not."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import pytest

from ledger.block import PROTOCOL_VERSION, PROTOCOL_VERSIONS, Block
from ledger.chain import Chain, Commit
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import TxHandler
from ledger.fees import sign_tx
from ledger.finality import verify_final_header, verify_finality
from ledger.governance import GovernanceModule, governance_handlers
from ledger.governance_proposal import (
    Change,
    Choice,
    ParamsChange,
    ProposeBody,
    UpgradeChange,
    VoteBody,
)
from ledger.staking_record import POWER_UNIT
from ledger.store import MemoryStore
from ledger.tx import Message, Tx
from ledger.upgrade import NOTICE_HEIGHTS_MIN, Upgrade, UpgradeModule, UpgradeNeeded
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    PROPOSER,
    LeafListLog,
    certify,
    handlers,
    key_of,
    transfer,
)
from tests.unit.governance_world import stake_rows

OPERATORS = [key_of(20 + i) for i in range(4)]
BOND = 10 * POWER_UNIT
VOTING_MS = 10_000
PARAMS = dataclasses.replace(GENESIS.params, gov_deposit=1000, gov_voting_ms=VOTING_MS)
GOVERNED = dataclasses.replace(
    GENESIS,
    params=PARAMS,
    accounts=(*GENESIS.accounts, *((key.public_key, 10**9) for key in OPERATORS)),
    module_rows=stake_rows(
        (BOND,) * 4,
        [key.public_key for key in OPERATORS],
        [v.public_key for v in GENESIS.validators.validators],
    ),
    pooled=4 * BOND,
)
OLD: Collection[int] = PROTOCOL_VERSIONS
NEW: Collection[int] = {*PROTOCOL_VERSIONS, PROTOCOL_VERSION + 1}
INFO = "install zynk 2.0"


def all_handlers() -> dict[str, TxHandler]:
    return handlers() | governance_handlers()


def open_governed(store: MemoryStore, versions: Collection[int] = OLD) -> Chain:
    return Chain.open(
        store,
        GOVERNED,
        all_handlers(),
        LeafListLog(),
        modules=(UpgradeModule(), GovernanceModule(lambda _: None)),
        protocol_versions=versions,
    )


def message(chain: Chain, key: KeyPair, kind: str, body: bytes) -> Tx:
    return sign_tx(
        key,
        chain_id=CHAIN_ID,
        nonce=chain.account(key.public_key).nonce,
        valid_until=chain.height + 100,
        messages=[Message(kind, body)],
        params=chain.params,
    )


def build(chain: Chain, txs: Sequence[Tx] = (), *, after_ms: int = 1000) -> Block:
    return chain.build(
        view=1,
        facts=chain.plain_facts(PROPOSER),
        time_ms=chain.head_time_ms + after_ms,
        candidates=txs,
    )


def advance(chain: Chain, txs: Sequence[Tx] = (), *, after_ms: int = 1000) -> Commit:
    """One more height; every tx must be in it, and succeed."""
    block = build(chain, txs, after_ms=after_ms)
    commit = chain.commit(block, certify(block))
    assert [r.code for r in commit.results] == [""] * len(txs)
    chain.check_invariants()
    return commit


def decide(chain: Chain, change: Change, proposal: int = 1) -> Commit:
    """Propose, vote and let the time pass; the block that closes the proposal."""
    body = ProposeBody(title="A title", summary="", change=change)
    advance(chain, [message(chain, OPERATORS[0], "gov/propose", body.encode())])
    votes = [
        message(
            chain,
            key,
            "gov/vote",
            VoteBody(proposal_id=proposal, operator=key.public_key, choice=Choice.YES).encode(),
        )
        for key in OPERATORS[:3]
    ]
    advance(chain, votes)
    return advance(chain, after_ms=VOTING_MS)


def schedule(chain: Chain, height: int) -> None:
    upgrade = Upgrade(height=height, version=PROTOCOL_VERSION + 1, info=INFO)
    decide(chain, UpgradeChange(upgrade=upgrade))
    assert chain.upgrades.scheduled == upgrade


def grow(chain: Chain, height: int) -> None:
    while chain.height < height:
        advance(chain)


HALT = 3 + NOTICE_HEIGHTS_MIN


def test_voted_parameters_rule_the_next_block() -> None:
    chain = open_governed(MemoryStore())
    cheap = transfer(FAUCET, 0, key_of(1).public_key, 5, fee=220)
    assert not build(chain, [cheap]).txs
    commit = decide(chain, ParamsChange(values=(("fee_base", 1), ("block_txs_max", 64))))
    assert [e.type for e in commit.events] == ["gov.closed"]
    assert (chain.params.fee_base, chain.params.block_txs_max) == (1, 64)
    advance(chain, [cheap])
    assert chain.params == dataclasses.replace(PARAMS, fee_base=1, block_txs_max=64)


def test_a_proposal_of_a_value_that_no_vote_can_set_reaches_no_block() -> None:
    chain = open_governed(MemoryStore())
    change = ParamsChange(values=(("fee_base", 2**40),))
    body = ProposeBody(title="unpayable", summary="", change=change)
    tx = message(chain, FAUCET, "gov/propose", body.encode())
    with pytest.raises(InvalidInputError, match="fee_base") as caught:
        chain.executor.check(tx, chain.params)
    assert caught.value.expected == "1..1000000"
    assert not build(chain, [tx]).txs


def test_headers_carry_the_version_that_is_in_force_at_their_height() -> None:
    chain = open_governed(MemoryStore(), NEW)
    schedule(chain, HALT)
    grow(chain, HALT - 1)
    commit = advance(chain)
    assert [e.type for e in commit.events] == ["gov.upgraded"]
    grow(chain, HALT + 2)
    versions = [chain.header(h).protocol_version for h in range(1, chain.height + 1)]
    assert versions == [PROTOCOL_VERSION] * (HALT - 1) + [PROTOCOL_VERSION + 1] * 3
    assert chain.upgrades.current == Upgrade(height=HALT, version=PROTOCOL_VERSION + 1, info=INFO)


def test_software_that_is_too_old_stops_before_the_height_and_changes_nothing() -> None:
    store, new = MemoryStore(), open_governed(MemoryStore(), NEW)
    chain = open_governed(store)
    schedule(chain, HALT)
    schedule(new, HALT)
    grow(chain, HALT - 2)
    grow(new, HALT - 2)
    assert chain.upgrade_needed() is None
    grow(chain, HALT - 1)
    grow(new, HALT - 1)
    assert chain.head_hash == new.head_hash
    block, root = build(new), chain.tree.root
    for attempt in (
        lambda: build(chain),
        lambda: chain.judge(block, [], now_ms=None),
        lambda: chain.commit(block, certify(block)),
    ):
        with pytest.raises(UpgradeNeeded) as caught:
            attempt()
        error = caught.value
        assert isinstance(error, UsageError)
        assert (error.height, error.version, error.info) == (HALT, PROTOCOL_VERSION + 1, INFO)
        assert str(error) == (
            f"this node must be upgraded: height {HALT} needs protocol "
            f"version {PROTOCOL_VERSION + 1}, and this software speaks {PROTOCOL_VERSION} ({INFO})"
        )
    assert (chain.height, chain.tree.root) == (HALT - 1, root)
    again = open_governed(store)
    assert str(again.upgrade_needed()) == str(error)


def test_new_software_goes_on_with_the_same_store_and_old_software_stays_out() -> None:
    store = MemoryStore()
    schedule(open_governed(store), HALT)
    grow(open_governed(store), HALT - 1)
    new = open_governed(store, NEW)
    grow(new, HALT + 3)
    needed = open_governed(store).upgrade_needed()
    assert needed is not None
    assert (needed.height, needed.version, needed.info) == (HALT + 4, PROTOCOL_VERSION + 1, INFO)


def test_a_block_of_the_other_version_is_refused_on_both_sides_of_the_height() -> None:
    chain = open_governed(MemoryStore(), NEW)
    schedule(chain, HALT)
    for height in (HALT - 1, HALT):
        grow(chain, height - 1)
        block = build(chain)
        wrong = 2 * PROTOCOL_VERSION + 1 - block.header.protocol_version
        header = dataclasses.replace(block.header, protocol_version=wrong)
        bad = dataclasses.replace(block, header=header)
        with pytest.raises(InvalidInputError, match="wrong protocol version"):
            chain.judge(bad, [], now_ms=None)
        chain.judge(block, [], now_ms=None)


def test_light_verification_accepts_the_versions_that_its_software_speaks() -> None:
    chain = open_governed(MemoryStore(), NEW)
    schedule(chain, HALT)
    grow(chain, HALT)
    old, new = chain.finality(HALT - 1), chain.finality(HALT)
    assert verify_finality(old, GOVERNED.validators, CHAIN_ID).height == HALT - 1
    with pytest.raises(InvalidInputError, match="another protocol version"):
        verify_finality(new, GOVERNED.validators, CHAIN_ID)
    verify_final_header(
        new.header, new.certificate, GOVERNED.validators, CHAIN_ID, versions=frozenset(NEW)
    )


def test_a_chain_without_the_row_is_at_the_first_version() -> None:
    chain = open_governed(MemoryStore())
    assert chain.next_protocol_version == PROTOCOL_VERSION
    assert chain.upgrade_needed() is None
    later = open_governed(MemoryStore(), {PROTOCOL_VERSION + 1})
    needed = later.upgrade_needed()
    assert needed is not None
    assert (needed.height, needed.version) == (1, PROTOCOL_VERSION)
