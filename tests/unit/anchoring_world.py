"""Anchoring, tx pool and chain together, as the node wires them; a test makes the blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from audit.leaf import decode_stream_text
from audit.stream import read_stream
from audit.tree_store import LogTree, commit_rows
from did.build import create_operation
from did.control import Control
from did.operation import decode_operation
from ledger.chain import Chain, Commit
from ledger.ed25519 import KeyPair
from ledger.execution import BlockModule
from ledger.fees import sign_tx
from ledger.mempool import Mempool
from ledger.store import MemoryStore, Store
from ledger.tx import Message
from node.anchoring import Anchoring
from node.handlers import AUDIT_LOG, build_handlers
from node.signature_pool import SignaturePool
from node.streams import create_stream_message
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    PARAMS,
    PROPOSER,
    ChangingSeed,
    certify,
    key_of,
    transfer,
)
from tests.unit.node_fixture import FakeLink

ANCHOR = key_of(7)
OWNER = key_of(8)


class AnchoringWorld:
    """`chain_store` and `store` outlive it, as disks do."""

    def __init__(
        self,
        chain_store: Store | None = None,
        store: Store | None = None,
        modules: Sequence[BlockModule] = (),
        peers: tuple[str, ...] = (),
        copies: int = 2,
        key: KeyPair = ANCHOR,
    ) -> None:
        self.chain_store = chain_store or MemoryStore()
        self.store = store or MemoryStore()
        self.chain = Chain.open(
            self.chain_store,
            GENESIS,
            build_handlers(CHAIN_ID),
            AUDIT_LOG,
            commit_rows,
            modules=(ChangingSeed(), *modules),
        )
        self.log_tree = LogTree(self.chain_store)
        self.link = FakeLink(peers)
        self.signatures = SignaturePool(threads=1)
        self.failures: list[str] = []
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: None,
        )
        self.anchoring = Anchoring(
            chain=self.chain,
            store=self.store,
            log_tree=self.log_tree,
            key=key,
            txpool=self.pool,
            link=cast(P2PLink, self.link),
            copies=copies,
            on_failure=self.failures.append,
        )

    async def stop(self) -> None:
        await self.anchoring.stop()
        await self.pool.stop()
        self.signatures.close()

    def commit(self) -> Commit:
        """A block of what is pending."""
        block = self.chain.build(
            view=1,
            facts=self.chain.plain_facts(PROPOSER),
            time_ms=time.time_ns() // 1_000_000,
            candidates=self.pool.mempool.candidates(bytes_max=10**6, count_max=100),
        )
        commit = self.chain.commit(block, certify(block, voters=self.chain.validators))
        self.pool.on_commit(commit)
        self.anchoring.on_commit(commit)
        return commit

    async def fund(self, amount: int = 10**12) -> None:
        """Pay the anchor account."""
        nonce = self.chain.account(FAUCET.public_key).nonce
        await self._pay_for(transfer(FAUCET, nonce, ANCHOR.public_key, amount).encoded)

    async def make_stream(self, submitter: bytes = ANCHOR.public_key) -> str:
        """An owner DID and a stream; its id as text."""
        operation = create_operation(
            net=CHAIN_ID,
            exp_height=1000,
            document={},
            control=Control.of([OWNER.public_key]),
            signers=[OWNER],
        )
        stream, message = create_stream_message(
            chain_id=CHAIN_ID,
            owner=decode_operation(operation).did_text,
            submitters=[submitter],
            description="a stream",
            keys=[OWNER],
        )
        nonce = self.chain.account(FAUCET.public_key).nonce
        tx = sign_tx(
            FAUCET,
            chain_id=CHAIN_ID,
            nonce=nonce,
            valid_until=1000,
            messages=[Message("did/op", operation), message],
            params=PARAMS,
        )
        await self._pay_for(tx.encoded)
        assert read_stream(self.chain.view(), decode_stream_text(stream)) is not None
        return stream

    async def _pay_for(self, encoded: bytes) -> None:
        assert isinstance((await self.pool.submit([encoded]))[0], bytes)
        assert [result.code for result in self.commit().results] == [""]

    async def until_pending(self, count: int = 1) -> None:
        """Until so many txs wait in the mempool."""
        for _ in range(500):
            if len(self.pool.mempool) == count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.pool.mempool)} txs are pending")
