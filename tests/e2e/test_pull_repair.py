"""A tx that gossip loses reaches the other nodes by offers, over real p2p processes."""

from __future__ import annotations

import asyncio

import pytest

from ledger.mempool import Mempool
from ledger.store import MemoryStore
from node import wire
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.e2e.p2p_network import Node, network, until
from tests.unit.chain_fixture import FAUCET, open_chain, transfer

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TO = bytes(range(32))


class LosesGossip(P2PLink):
    """Publishes nothing; all else is the real link."""

    def publish(self, topic: str, payload: bytes) -> None:
        pass


class PoolNode(Node):
    """A recorder whose tx channel goes to a real pool."""

    pool: TxPool

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        super().on_frame(peer, channel, payload)
        if channel == wire.CHANNEL_TX:
            self.pool.on_message(peer, payload)


def test_what_gossip_loses_comes_by_offers() -> None:
    async def scenario() -> None:
        async with network(3, make=PoolNode, link=LosesGossip) as nodes:
            signatures = SignaturePool(threads=1)
            for node in nodes:
                assert isinstance(node, PoolNode)
                node.pool = TxPool(
                    chain=open_chain(MemoryStore()),
                    mempool=Mempool(),
                    signatures=signatures,
                    link=node.link,
                    topic="tx/test-chain",
                    on_pending=lambda: None,
                )
                node.pool.start()
            pools = [node.pool for node in nodes if isinstance(node, PoolNode)]
            txs = [transfer(FAUCET, nonce, TO, 1) for nonce in range(50)]
            assert await pools[0].submit([tx.encoded for tx in txs]) == [tx.id for tx in txs]
            await until(lambda: all(len(pool.mempool) == len(txs) for pool in pools))
            assert not any(node.gossip for node in nodes), "gossip lost it all"
            for pool in pools:
                await pool.stop()
            signatures.close()

    asyncio.run(scenario())
