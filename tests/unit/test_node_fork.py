"""A fork as a node meets it: real core, chain, store and signatures; heights are looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import islice
from typing import cast

import pytest

from consensus.core import Core
from consensus.fork_proof import ForkProof, IncompleteForkProofError, verify_fork_proof
from consensus.messages import CertificateMessage, Status
from consensus.timing import Timing
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.chain import Commit
from ledger.mempool import Mempool
from ledger.store import MemoryStore
from node import wire
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    GENESIS_TIME_MS,
    PARAMS,
    PROPOSER,
    VALIDATOR_KEYS,
    build,
    certify,
    open_chain,
    transfer,
)
from tests.unit.node_fixture import FakeLink

HEIGHTS = 30
FORKED = 2
LIARS = dict(islice(sorted(VALIDATOR_KEYS.items()), 3))


class Follower:
    """A full node that was started on a chain of 30 heights: nothing is in its core's memory."""

    def __init__(self, age_ms: int) -> None:
        self.chain = open_chain(MemoryStore())
        self.blocks: list[Block] = []
        for height in range(1, HEIGHTS + 1):
            tx = transfer(FAUCET, height - 1, bytes(32), 1)
            block = build(self.chain, [tx], time_ms=GENESIS_TIME_MS + height)
            self.chain.commit(block, certify(block))
            self.blocks.append(block)
        self.link = FakeLink(peers=("a",))
        self.signatures = SignaturePool(threads=1)
        self.proofs: list[ForkProof] = []
        self.commits: list[Commit] = []
        self.offences: list[str] = []
        self.driver = ConsensusDriver(
            chain=self.chain,
            core=Core(chain_id=CHAIN_ID, key=None, sign=None, timing=Timing()),
            make_facts=lambda _: self.chain.plain_facts(PROPOSER),
            evidence=EvidencePool(self.chain, MemoryStore(), lambda *_: None),
            guard=None,
            link=cast(P2PLink, self.link),
            txpool=TxPool(
                chain=self.chain,
                mempool=Mempool(),
                signatures=self.signatures,
                link=cast(P2PLink, self.link),
                topic="tx/test",
                on_pending=lambda: None,
            ),
            wall_ms=lambda: GENESIS_TIME_MS + age_ms,
            on_commit=self.commits.append,
            on_need_sync=lambda *_: None,
            on_offence=lambda _, reason: self.offences.append(reason),
            on_fork=self.proofs.append,
        )
        self.driver.start_height()

    def receive(self, certificate: Certificate) -> None:
        message = CertificateMessage(certificate=certificate)
        self.driver.on_message("a", bytes([wire.TAG_CONSENSUS]) + message.encode())

    def other_finalization(self, view: int) -> Certificate:
        """Three of four finalize a block of height 2 that this node never saw."""
        header = replace(self.blocks[FORKED - 1].header, audit_root=b"\x01" * 32)
        return certify(Block(header, (), None), view=view, keys=LIARS)


def run(test: Callable[[Follower], Awaitable[None]], age_ms: int = 60_000) -> None:
    async def body() -> None:
        follower = Follower(age_ms)
        try:
            await test(follower)
        finally:
            follower.driver.stop("node is stopping")
            follower.signatures.close()

    asyncio.run(body())


def verify(proof: ForkProof) -> set[bytes]:
    return set(verify_fork_proof(ForkProof.decode(proof.encode()), GENESIS.validators, CHAIN_ID))


def nullify(height: int) -> Certificate:
    signed = vote_sign_bytes(CHAIN_ID, VoteKind.NULLIFY, height, 1, b"")
    votes = {public: key.sign(signed) for public, key in LIARS.items()}
    return Certificate.of(VoteKind.NULLIFY, height, 1, b"", votes, GENESIS.validators)


def test_a_second_finalization_of_an_old_height_stops_the_node_with_a_proof() -> None:
    async def test(follower: Follower) -> None:
        follower.receive(follower.other_finalization(view=1))
        assert "forked" in (follower.driver.stop_reason or "")
        [proof] = follower.proofs
        assert proof.header == follower.blocks[FORKED - 1].header
        assert verify(proof) == set(LIARS)
        shown = [payload for _, payload in follower.link.broadcasts]
        assert len(shown) == 1 + 2, "its first Status, and both finalizations"

    run(test)


def test_certificates_that_come_after_the_halt_make_the_proof_name_the_guilty() -> None:
    async def test(follower: Follower) -> None:
        follower.receive(follower.other_finalization(view=2))
        [first] = follower.proofs
        with pytest.raises(IncompleteForkProofError):
            verify(first)
        follower.receive(nullify(FORKED))
        assert verify(follower.proofs[-1]) == set(LIARS)
        sent = len(follower.link.sent)
        status = Status(height=3, view=1, need=())
        follower.driver.on_message("b", bytes([wire.TAG_CONSENSUS]) + status.encode())
        assert len(follower.link.sent) == sent + 3

    run(test)


def test_past_the_trusting_period_a_second_finalization_stops_nothing() -> None:
    async def test(follower: Follower) -> None:
        follower.receive(follower.other_finalization(view=1))
        assert follower.driver.stop_reason is None
        assert not follower.proofs
        assert not follower.offences

    run(test, age_ms=PARAMS.trusting_period_ms + 60_000)


def test_a_forged_second_finalization_is_the_senders_fault() -> None:
    async def test(follower: Follower) -> None:
        good = follower.other_finalization(view=1)
        follower.receive(replace(good, view=2))
        assert follower.driver.stop_reason is None
        assert len(follower.offences) == 1
        assert not follower.proofs

    run(test)
