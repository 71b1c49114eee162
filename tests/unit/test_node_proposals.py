"""Compact proposals that lack txs: where the rest comes from, and that floods push nobody out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from consensus.messages import Propose
from ledger.block import Block
from ledger.errors import InvalidInputError
from ledger.mempool import Mempool
from ledger.store import MemoryStore
from node import wire
from node.proposals import PENDING_MAX, PENDING_PER_PEER_MAX, ProposalExchange
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import FAUCET, advance, build, open_chain, transfer
from tests.unit.node_fixture import FakeLink

TO = bytes(range(32))
TXS = [transfer(FAUCET, nonce, TO, 1) for nonce in range(3)]


class World:
    """An exchange above a real pool; `done` holds what was completed."""

    def __init__(self) -> None:
        self.chain = open_chain(MemoryStore())
        self.block: Block = build(self.chain, TXS)
        self.link = FakeLink(peers=("a", "b"))
        self.signatures = SignaturePool(threads=1)
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: None,
        )
        self.done: list[tuple[str, Propose]] = []
        self.exchange = ProposalExchange(
            link=cast(P2PLink, self.link),
            txpool=self.pool,
            on_complete=lambda peer, propose: self.done.append((peer, propose)),
            on_offence=lambda *_: None,
        )

    def compact(self, view: int = 1) -> wire.CompactProposal:
        header = replace(self.block.header, origin_view=view)
        block = replace(self.block, header=header)
        propose = Propose(
            height=1, view=view, block=block, justify=(), signer=TO, signature=bytes(64)
        )
        return wire.CompactProposal.of(propose, lambda _: True)

    def answer(self, peer: str, block_hash: bytes, txs: list[bytes]) -> None:
        message = wire.BlockTxs(block_hash=block_hash, txs=tuple(txs)).encode()
        self.exchange.on_message(peer, message[0], message[1:])

    def asked(self) -> list[tuple[str, tuple[bytes, ...]]]:
        return [
            (peer, wire.BlockTxRequest.decode(payload[1:]).tx_ids)
            for peer, _, payload in self.link.sent
        ]


def run(test: Callable[[World], object]) -> None:
    async def body() -> None:
        world = World()
        await world.pool.submit([tx.encoded for tx in TXS[:2]])
        world.link.sent.clear()
        try:
            test(world)
        finally:
            await world.pool.stop()
            world.signatures.close()

    asyncio.run(body())


def test_only_what_the_mempool_lacks_is_asked_for() -> None:
    def test(world: World) -> None:
        world.exchange.on_compact("a", world.compact())
        assert world.asked() == [("a", (TXS[2].id,))]
        world.answer("a", world.block.hash, [TXS[2].encoded])
        [(peer, propose)] = world.done
        assert (peer, propose.block) == ("a", world.block)
        assert world.exchange.pending_count == 0

    run(test)


def test_a_commit_meanwhile_does_not_take_the_held_txs_away() -> None:
    def test(world: World) -> None:
        compact = replace(world.compact(), height=2)
        world.exchange.on_compact("a", compact)
        commit = advance(world.chain, TXS[:2])
        world.pool.on_commit(commit)
        world.exchange.on_commit(commit.height)
        assert len(world.pool.mempool) == 0
        world.answer("a", world.block.hash, [TXS[2].encoded])
        assert [propose.block for _, propose in world.done] == [world.block]

    run(test)


@pytest.mark.parametrize("txs", [[], [TXS[1].encoded], [TXS[2].encoded[:-1]], [b"?"]])
def test_an_answer_with_other_txs_is_an_offence_and_ends_the_wait(txs: list[bytes]) -> None:
    def test(world: World) -> None:
        world.exchange.on_compact("a", world.compact())
        with pytest.raises(InvalidInputError, match="missing"):
            world.answer("a", world.block.hash, txs)
        assert not world.done
        assert world.exchange.pending_count == 0
        world.answer("a", world.block.hash, [TXS[2].encoded])  # late: nobody waits for it
        assert not world.done

    run(test)


def test_a_flood_of_made_up_proposals_pushes_out_its_own() -> None:
    """The oldest of all went: a few strangers could keep every honest proposal from completing."""

    def test(world: World) -> None:
        world.exchange.on_compact("honest", world.compact())
        for round_ in range(3 * PENDING_PER_PEER_MAX):
            for stranger in range(2 * PENDING_MAX // PENDING_PER_PEER_MAX):
                world.exchange.on_compact(f"stranger-{stranger}", world.compact(2 + round_))
        assert world.exchange.pending_count == PENDING_MAX
        world.answer("honest", world.block.hash, [TXS[2].encoded])
        assert [peer for peer, _ in world.done] == ["honest"]

    run(test)


def test_a_proposal_said_again_takes_no_second_place() -> None:
    def test(world: World) -> None:
        for view in range(1, PENDING_PER_PEER_MAX + 1):
            world.exchange.on_compact("a", world.compact(view))
        first = world.compact(1)
        world.exchange.on_compact("a", world.compact(PENDING_PER_PEER_MAX))
        world.exchange.on_compact("a", first)
        assert world.exchange.pending_count == PENDING_PER_PEER_MAX
        world.answer("a", first.header.hash, [TXS[2].encoded])
        assert len(world.done) == 1

    run(test)


def test_only_remembered_blocks_are_served_and_each_tx_once() -> None:
    def test(world: World) -> None:
        ask = wire.BlockTxRequest(block_hash=world.block.hash, tx_ids=(TXS[1].id,) * 9 + (TO,))
        world.exchange.on_message("b", wire.TAG_BLOCK_TX_REQUEST, ask.encode()[1:])
        assert not world.link.sent, "not proposed here"
        world.exchange.remember(world.block)
        world.exchange.on_message("b", wire.TAG_BLOCK_TX_REQUEST, ask.encode()[1:])
        [(peer, channel, payload)] = world.link.sent
        assert (peer, channel) == ("b", wire.CHANNEL_CONSENSUS)
        assert wire.BlockTxs.decode(payload[1:]).txs == (TXS[1].encoded,)
        with pytest.raises(InvalidInputError):
            world.exchange.on_message("b", 0x09, b"")

    run(test)
