"""The parts of a node at a height that needs newer software: the driver ends before it and still
helps others to the last one; block sync takes what it can and blames nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from consensus.messages import CertificateMessage, Status, decode_message
from ledger.block import PROTOCOL_VERSION, PROTOCOL_VERSIONS
from ledger.certificate import VoteKind
from ledger.chain import Chain, Commit
from ledger.genesis_state import GenesisState
from ledger.mempool import Mempool
from ledger.store import CrashStore, MemoryStore, Store
from ledger.upgrade import UPGRADE_KEY, Upgrade, UpgradeState
from node import wire
from node.signature_pool import SignaturePool
from node.sync import BlockSync
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit import test_node_driver as one
from tests.unit.chain_fixture import GENESIS, LeafListLog, advance, handlers
from tests.unit.node_fixture import FakeLink

HALT = 4
NEW = frozenset({*PROTOCOL_VERSIONS, PROTOCOL_VERSION + 1})
ROW = UpgradeState(
    scheduled=Upgrade(height=HALT, version=PROTOCOL_VERSION + 1, info="zynk 2.0")
).encode()
REASON = (
    f"this node must be upgraded: height {HALT} needs protocol version {PROTOCOL_VERSION + 1}, and "
    f"this software speaks {PROTOCOL_VERSION} (zynk 2.0)"
)


def open_scheduled(
    store: Store, genesis: GenesisState, versions: Collection[int] = PROTOCOL_VERSIONS
) -> Chain:
    """A chain in whose state an upgrade is scheduled from genesis on."""
    state = replace(genesis, module_rows={UPGRADE_KEY: ROW})
    return Chain.open(store, state, handlers(), LeafListLog(), protocol_versions=versions)


@pytest.mark.slow
def test_the_driver_ends_before_the_height_and_serves_the_last_one(tmp_path: Path) -> None:
    async def run() -> None:
        store = CrashStore()
        open_scheduled(store, one.GENESIS)
        life = one.Life(store, one.new_guard(tmp_path))
        try:
            await life.run(HALT + 5)
            assert life.chain.height == HALT - 1
            assert life.driver.stop_reason == REASON
            assert max(s.height for s in life.statements()) == HALT - 1
            final = decode_message(life.link.broadcasts[-1][1][1:])
            assert isinstance(final, CertificateMessage), "others learn of the last height"
            assert final.certificate.kind is VoteKind.FINALIZE
            assert final.certificate.height == HALT - 1
            ask = Status(height=HALT - 1, view=1, need=())
            life.driver.on_message("slow", bytes([wire.TAG_CONSENSUS]) + ask.encode())
            answers = [decode_message(p[1:]) for peer, _, p in life.link.sent if peer == "slow"]
            assert final in answers
            sent = len(life.link.broadcasts)
            life.driver.wake()
            life.driver.start_height()
            await asyncio.sleep(0.1)
            assert len(life.link.broadcasts) == sent, "it has nothing more to say"
            assert not life.driver.failures_total
        finally:
            life.end()
        assert life.driver.stop_reason == REASON, "stopping the node does not hide the reason"

    asyncio.run(run())


@pytest.mark.slow
def test_a_driver_whose_height_came_by_sync_stops_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        source, store = CrashStore(), CrashStore()
        for each in (source, store):
            open_scheduled(each, one.GENESIS)
        (tmp_path / "other").mkdir()
        other = one.Life(source, one.new_guard(tmp_path / "other"))
        await other.run(HALT + 5)
        other.end()
        life = one.Life(store, one.new_guard(tmp_path))
        try:
            life.driver.start_height()
            for height in range(1, HALT):
                life.chain.commit(other.chain.block(height), other.chain.certificate(height))
            life.driver.start_height()
            assert life.driver.stop_reason == REASON
            sent = len(life.link.broadcasts)
            life.driver.wake()
            await asyncio.sleep(0.05)
            assert len(life.link.broadcasts) == sent
        finally:
            life.end()

    asyncio.run(run())


class Syncer:
    """A BlockSync against one peer that serves `server`."""

    def __init__(self, server: Chain, versions: Collection[int]) -> None:
        self.chain = open_scheduled(MemoryStore(), GENESIS, versions)
        self.link = FakeLink()
        self.link.on_send = self._answer
        self.bad: list[str] = []
        self.commits: list[Commit] = []
        self.caught_up = 0
        self.requests = 0
        self.signatures = SignaturePool(threads=1)
        self._server = server
        self.sync = BlockSync(
            chain=self.chain,
            txpool=TxPool(
                chain=self.chain,
                mempool=Mempool(),
                signatures=self.signatures,
                link=cast(P2PLink, self.link),
                topic="tx/test",
                on_pending=lambda: None,
            ),
            link=cast(P2PLink, self.link),
            on_commit=self.commits.append,
            on_caught_up=self._on_caught_up,
            on_bad_peer=lambda peer, error: self.bad.append(f"{peer}: {error}"),
            on_failure=self.bad.append,
        )

    def _on_caught_up(self) -> None:
        self.caught_up += 1

    def _answer(self, peer: str, channel: int, payload: bytes) -> None:
        self.requests += 1
        request = wire.RangeRequest.decode(payload[1:])
        heights = range(request.height_from, self._server.height + 1)
        items = tuple(
            (self._server.block(h).encoded, self._server.certificate(h).encode()) for h in heights
        )
        answer = wire.Range(tip_height=self._server.height, items=items)
        asyncio.get_running_loop().call_soon(self.sync.on_range, peer, answer.encode())

    async def run(self) -> None:
        self.sync.on_peer_up("peer", self._server.height)
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not self.sync.progress.is_syncing:
                break
        await self.sync.stop()
        self.signatures.close()


def grown_server(height: int) -> Chain:
    server = open_scheduled(MemoryStore(), GENESIS, NEW)
    while server.height < height:
        advance(server)
    return server


def test_sync_ends_before_the_height_and_blames_nobody() -> None:
    async def run() -> None:
        syncer = Syncer(grown_server(HALT + 4), PROTOCOL_VERSIONS)
        await syncer.run()
        assert syncer.chain.height == HALT - 1
        assert (syncer.bad, syncer.caught_up, syncer.requests) == ([], 1, 1)
        syncer.sync.on_peer_height("peer", HALT + 50)
        assert not syncer.sync.progress.is_syncing, "it does not begin again"

    asyncio.run(run())


def test_newer_software_syncs_across_the_height() -> None:
    async def run() -> None:
        syncer = Syncer(grown_server(HALT + 4), NEW)
        await syncer.run()
        assert syncer.chain.height == HALT + 4
        assert syncer.chain.header(HALT + 4).protocol_version == PROTOCOL_VERSION + 1
        assert not syncer.bad

    asyncio.run(run())
