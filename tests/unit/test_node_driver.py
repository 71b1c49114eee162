"""The driver with the real core, guard file and chain, on a store that forgets what was not synced.

One validator alone: each of its heights is a proposal, both votes and a commit, so that a few
heights hold every kind of write. The store crashes before and after each of them in turn.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from consensus.core import Core
from consensus.messages import Vote, decode_message
from consensus.statement import Statement, StatementKind, is_conflict
from consensus.timing import Timing
from genesis.network import generate_network
from ledger.chain import Chain, Commit
from ledger.mempool import Mempool
from ledger.store import CrashStore, SimulatedCrash
from node import wire
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.guard import GuardFile
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import GENESIS_TIME_MS, LeafListLog, handlers, transfer
from tests.unit.node_fixture import FakeLink

CHAIN_ID = "test-1"
NETWORK = generate_network(
    1, CHAIN_ID, genesis_time_ms=GENESIS_TIME_MS, entropy=b"one validator alone, for crashes"
)
KEY = NETWORK.nodes[0].validator_key
GENESIS = NETWORK.document.to_state()
TIMING = Timing(block_interval_min_ms=1, empty_interval_ms=1, heartbeat_ms=5)
HEIGHTS = 3


class Life:
    """One life of the node, from opening its disk to its end."""

    def __init__(self, store: CrashStore, guard_path: Path) -> None:
        self.store = store
        self.chain = Chain.open(store, GENESIS, handlers(), LeafListLog())
        self.guard = GuardFile.open(guard_path, CHAIN_ID, KEY.public_key)
        self.link = FakeLink()
        self.commits: list[Commit] = []
        self.signatures = SignaturePool(threads=1)
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: None,
        )
        self.driver = ConsensusDriver(
            chain=self.chain,
            core=Core(chain_id=CHAIN_ID, key=KEY.public_key, sign=KEY.sign, timing=TIMING),
            make_facts=lambda _: self.chain.plain_facts(KEY.public_key),
            evidence=EvidencePool(self.chain, self.store, lambda *_: None),
            guard=self.guard,
            link=cast(P2PLink, self.link),
            txpool=self.pool,
            wall_ms=lambda: GENESIS_TIME_MS + 60_000,
            on_commit=self.commits.append,
            on_need_sync=lambda *_: None,
            on_offence=lambda *_: None,
            on_fork=lambda _: None,
        )

    async def run(self, heights: int) -> None:
        """Until `heights` more are final, or the driver stops. Raises SimulatedCrash."""
        crashed: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: crashed.append(cast(BaseException, context["exception"]))
        )
        goal = self.chain.height + heights
        self.driver.start_height()
        for _ in range(2000):
            if self.chain.height >= goal or self.driver.stop_reason or crashed:
                break
            await asyncio.sleep(0.002)
        else:
            raise AssertionError("no progress")
        if crashed:
            raise crashed[0]

    def end(self) -> None:
        self.driver.stop("node is stopping")
        self.guard.close()
        self.signatures.close()

    def statements(self) -> list[Statement]:
        """All that left for the network, in order."""
        found = []
        for channel, payload in self.link.broadcasts:
            assert channel == wire.CHANNEL_CONSENSUS
            if payload[0] == wire.TAG_COMPACT:
                compact = wire.CompactProposal.decode(payload[1:])
                place = (compact.height, compact.view, compact.header.hash)
                found.append(_statement(StatementKind.PROPOSE, *place))
                continue
            message = decode_message(payload[1:])
            if isinstance(message, Vote):
                kind = StatementKind(int(message.kind))
                place = (message.height, message.view, message.block_hash)
                found.append(_statement(kind, *place))
        return found


def _statement(kind: StatementKind, height: int, view: int, block_hash: bytes) -> Statement:
    return Statement(kind=kind, height=height, view=view, block_hash=block_hash)


def new_guard(folder: Path) -> Path:
    path = folder / "sign.guard"
    GuardFile.create(path, CHAIN_ID, KEY.public_key).close()
    return path


def with_loop(make: Callable[[], Life], heights: int) -> tuple[Life, bool]:
    """Lives are made on a running loop."""

    async def body() -> tuple[Life, bool]:
        life = make()
        try:
            await life.run(heights)
        except SimulatedCrash:
            return life, True
        finally:
            life.end()
        return life, False

    return asyncio.run(body())


def count_writes(tmp_path: Path) -> int:
    store = CrashStore()
    path = new_guard(tmp_path)
    with_loop(lambda: Life(store, path), HEIGHTS)
    return store.writes


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_write_loses_nothing_final_and_never_signs_twice(
    tmp_path: Path, when: str
) -> None:
    (tmp_path / "count").mkdir()
    writes = count_writes(tmp_path / "count")
    assert writes > 2 * HEIGHTS, "each height stores its votes' ground and its commit"
    for number in range(2, writes + 1):
        folder = tmp_path / f"{when}-{number}"
        folder.mkdir()
        path = new_guard(folder)
        store = CrashStore()
        lives: list[Life] = []

        def first_life(store: CrashStore = store, path: Path = path, n: int = number) -> Life:
            life = Life(store, path)
            stop = store.stop_before if when == "before" else store.stop_after
            stop(n - 1)
            return life

        life, has_crashed = with_loop(first_life, HEIGHTS + 2)
        assert has_crashed, f"write {number}"
        lives.append(life)
        survived = store.crash(rng=random.Random(number))
        again, has_crashed = with_loop(
            lambda survived=survived, path=path: Life(survived, path),  # type: ignore[misc]
            HEIGHTS,
        )
        assert not has_crashed
        lives.append(again)
        for commit in life.commits:
            assert again.chain.header(commit.height).hash == commit.block_hash, f"write {number}"
        said = [statement for one in lives for statement in one.statements()]
        for i, statement in enumerate(said):
            assert not any(is_conflict(other, statement) for other in said[:i]), f"write {number}"
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_failed_write_stops_the_driver_before_anything_else_leaves(tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    for number in range(1, count_writes(tmp_path / "count")):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = new_guard(folder)
        store = CrashStore()

        def make(store: CrashStore = store, path: Path = path, n: int = number) -> Life:
            life = Life(store, path)
            store.fail_after(n - 1)
            return life

        life, _ = with_loop(make, HEIGHTS + 2)
        reason = life.driver.stop_reason or ""
        assert "write failed" in reason, f"write {number}: {reason}"
        sent = len(life.link.broadcasts)
        final = life.chain.height
        life.driver.wake()
        assert len(life.link.broadcasts) == sent
        assert life.chain.view().height == final if final else True
        guard = GuardFile.open(path, CHAIN_ID, KEY.public_key)
        on_record = {r for height in range(1, final + 3) for r in guard.records_at(height)}
        guard.close()
        open_heights = [s for s in life.statements() if s.height > final]
        assert set(open_heights) <= on_record, f"write {number}: sent what the guard does not hold"


def test_a_tx_becomes_final_and_the_mempool_forgets_it(tmp_path: Path) -> None:
    path = new_guard(tmp_path)

    async def body() -> None:
        life = Life(CrashStore(), path)
        tx = transfer(NETWORK.faucet_key, 0, bytes(range(32)), 1)
        life.driver.stop_reason = None
        await life.pool.submit([tx.encoded])
        await life.run(2)
        assert life.chain.tx_location(tx.id) is not None
        life.end()

    asyncio.run(body())
