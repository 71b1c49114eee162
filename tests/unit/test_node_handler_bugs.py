"""A handler with a bug: the leader builds around the tx, nobody votes for it, the chain goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ledger.errors import InvalidInputError
from ledger.execution import HandlerError
from ledger.store import CrashStore, MemoryStore
from tests.unit.chain_fixture import FAUCET, GENESIS_TIME_MS, PROPOSER, open_chain, probe, transfer
from tests.unit.test_node_driver import NETWORK, Life, new_guard

TO = bytes(range(32))


def test_the_leader_bars_the_tx_and_finalises_the_others(tmp_path: Path) -> None:
    path = new_guard(tmp_path)

    async def body() -> None:
        life = Life(CrashStore(), path)
        good = transfer(NETWORK.faucet_key, 0, TO, 1)
        bad = probe(NETWORK.faucet_key, 1, "bug", "x")
        after = transfer(NETWORK.faucet_key, 2, TO, 1)
        await life.pool.submit([good.encoded, bad.encoded, after.encoded])
        await life.run(3)
        assert life.chain.tx_location(good.id) is not None
        assert life.chain.tx_location(bad.id) is None
        assert bad.id not in life.pool.mempool
        assert after.id not in life.pool.mempool, "it can not be executed without the one before"
        assert life.driver.stop_reason is None
        assert life.driver.failures_total == 1
        assert "can not be executed" in life.driver.last_failure
        (outcome,) = await life.pool.submit([bad.encoded])
        assert isinstance(outcome, InvalidInputError)
        life.end()

    asyncio.run(body())


def test_a_block_with_such_a_tx_is_neither_built_nor_judged_valid() -> None:
    chain = open_chain(MemoryStore())
    with pytest.raises(HandlerError):
        chain.build(
            view=1,
            facts=chain.plain_facts(PROPOSER),
            time_ms=GENESIS_TIME_MS + 1000,
            candidates=[probe(FAUCET, 0, "bug", "x")],
        )
    assert chain.height == 0
