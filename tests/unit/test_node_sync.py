"""Block sync between two real chains, and against peers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

import pytest

from ledger.block import Block
from ledger.certificate import Certificate
from ledger.chain import Chain, Commit
from ledger.errors import InvalidInputError
from ledger.mempool import Mempool
from ledger.store import CrashStore, MemoryStore
from node import wire
from node.proposals import PENDING_PER_PEER_MAX, ProposalExchange
from node.signature_pool import SignaturePool
from node.sync import BlockSync
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    FAUCET,
    GENESIS_TIME_MS,
    PROPOSER,
    certify,
    open_chain,
    transfer,
)
from tests.unit.node_fixture import FakeLink

TO = bytes(range(32))
HEIGHTS = 40


def grow(chain: Chain, heights: int) -> Chain:
    """Commit blocks of one transfer each."""
    for _ in range(heights):
        height = chain.height
        block = chain.build(
            view=1,
            facts=chain.plain_facts(PROPOSER),
            time_ms=GENESIS_TIME_MS + 1000 * (height + 1),
            candidates=[transfer(FAUCET, height, TO, 1)],
        )
        chain.commit(block, certify(block))
    return chain


SERVER = grow(open_chain(MemoryStore()), HEIGHTS)


class Client:
    """A BlockSync whose peers are functions from a request to an answer (None: silence)."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.chain = open_chain(store or MemoryStore())
        self.link = FakeLink()
        self.link.on_send = self._answer
        self.peers: dict[str, Callable[[wire.RangeRequest], wire.Range | None]] = {}
        self.signatures = SignaturePool(threads=1)
        self.commits: list[Commit] = []
        self.caught_up = 0
        self.bad: list[tuple[str, str]] = []
        self.failures: list[str] = []
        self.others: list[tuple[str, Certificate]] = []
        pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: None,
        )
        self.sync = BlockSync(
            chain=self.chain,
            txpool=pool,
            link=cast(P2PLink, self.link),
            on_commit=self.commits.append,
            on_caught_up=self._on_caught_up,
            on_bad_peer=lambda peer, error: self.bad.append((peer, str(error))),
            on_failure=self.failures.append,
            on_other_final=lambda peer, certificate: self.others.append((peer, certificate)),
        )

    def _on_caught_up(self) -> None:
        self.caught_up += 1

    def _answer(self, peer: str, channel: int, payload: bytes) -> None:
        if channel != wire.CHANNEL_SYNC_REQUEST:
            return
        answer = self.peers[peer](wire.RangeRequest.decode(payload[1:]))
        if answer is not None:
            asyncio.get_running_loop().call_soon(self.sync.on_range, peer, answer.encode())

    async def until_idle(self) -> None:
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if not self.sync.is_running:
                return
        raise AssertionError("sync does not end")


def run(test: Callable[[Client], Awaitable[None]], store: MemoryStore | None = None) -> None:
    async def body() -> None:
        client = Client(store)
        try:
            await test(client)
        finally:
            await client.sync.stop()
            client.signatures.close()

    asyncio.run(body())


def honest(request: wire.RangeRequest) -> wire.Range:
    heights = range(request.height_from, min(request.height_from + request.count, HEIGHTS + 1))
    return wire.Range(
        tip_height=HEIGHTS,
        items=tuple(
            (SERVER.block(height).encoded, SERVER.certificate(height).encode())
            for height in heights
        ),
    )


def altered(
    change: Callable[[Block, Certificate], tuple[bytes, bytes]],
) -> Callable[..., wire.Range]:
    """An honest range whose third block is changed."""

    def answer(request: wire.RangeRequest) -> wire.Range:
        good = honest(request)
        if len(good.items) < 3:
            return good
        block, certificate = good.items[2]
        bad = change(Block.decode(block), Certificate.decode(certificate))
        return replace(good, items=(*good.items[:2], bad, *good.items[3:]))

    return answer


def test_a_node_that_is_behind_takes_every_block_and_says_so() -> None:
    async def test(client: Client) -> None:
        client.peers["a"] = honest
        client.sync.on_peer_up("a", HEIGHTS)
        seen = []
        while client.sync.is_running:
            await asyncio.sleep(0)
            seen.append(client.sync.progress)
        assert {(p.is_syncing, p.target_height) for p in seen if 0 < p.height < HEIGHTS} == {
            (True, HEIGHTS)
        }
        assert client.chain.head_hash == SERVER.head_hash
        assert [commit.height for commit in client.commits] == list(range(1, HEIGHTS + 1))
        assert client.caught_up == 1
        assert not client.bad

    run(test)


def test_a_few_heights_are_left_to_consensus() -> None:
    async def test(client: Client) -> None:
        client.sync.on_peer_up("a", 4)
        assert not client.sync.progress.is_syncing

    run(test)


def _other_body(block: Block, certificate: Certificate) -> tuple[bytes, bytes]:
    return replace(block, txs=()).encoded, certificate.encode()


def _other_state(block: Block, certificate: Certificate) -> tuple[bytes, bytes]:
    header = replace(block.header, state_root=bytes(32))
    return replace(block, header=header).encoded, certificate.encode()


def _minority(block: Block, certificate: Certificate) -> tuple[bytes, bytes]:
    few = replace(certificate, bitmap=b"\x80", signatures=certificate.signatures[:1])
    return block.encoded, few.encode()


def _forged(block: Block, certificate: Certificate) -> tuple[bytes, bytes]:
    forged = (bytes(64), *certificate.signatures[1:])
    return block.encoded, replace(certificate, signatures=forged).encode()


@pytest.mark.parametrize("change", [_other_body, _other_state, _minority, _forged])
def test_a_peer_that_alters_a_block_is_dropped_and_another_one_asked(
    change: Callable[[Block, Certificate], tuple[bytes, bytes]],
) -> None:
    async def test(client: Client) -> None:
        client.peers["liar"], client.peers["honest"] = altered(change), honest
        client.sync.on_peer_up("liar", HEIGHTS + 1)
        client.sync.on_peer_up("honest", HEIGHTS)
        await client.until_idle()
        assert [peer for peer, _ in client.bad] == ["liar"]
        assert client.chain.head_hash == SERVER.head_hash

    run(test)


def test_a_gap_and_an_empty_promise_are_refused() -> None:
    def gap(request: wire.RangeRequest) -> wire.Range:
        return replace(honest(request), items=honest(request).items[1:])

    def empty(request: wire.RangeRequest) -> wire.Range:
        return wire.Range(tip_height=10**9, items=())

    async def test(client: Client) -> None:
        client.peers.update(gap=gap, empty=empty)
        client.sync.on_peer_up("gap", HEIGHTS)
        client.sync.on_peer_up("empty", 10**9)
        await client.until_idle()
        assert sorted(peer for peer, _ in client.bad) == ["empty", "gap"]
        assert client.chain.height == 0
        assert client.sync.progress.target_height == 0, "a lie is not shown as the target"

    run(test)


def fork_at(client: Client, height: int, heights: int) -> None:
    """The client has the server's chain below `height`, and `heights` other blocks from there."""
    grow(client.chain, height - 1)
    for _ in range(heights):
        block = client.chain.build(
            view=1,
            facts=client.chain.plain_facts(PROPOSER),
            time_ms=client.chain.head_time_ms + 999,
            candidates=(),
        )
        client.chain.commit(block, certify(block))


@pytest.mark.parametrize("heights", [1, 2, 3, 11])
def test_a_peer_across_a_fork_shows_the_first_block_that_is_not_ours(heights: int) -> None:
    """Else a node on the shorter side would call each peer a liar and never know why. Blocks above
    the first may have been voted on by sets that only one side knows."""

    async def test(client: Client) -> None:
        fork_at(client, 12, heights)
        client.peers["other"] = honest
        client.sync.on_other_chain("other", client.chain.height + 1)
        await client.until_idle()
        assert client.chain.height == 11 + heights
        assert client.others == [("other", SERVER.certificate(12))]
        assert client.caught_up > 0, "consensus is at the tip before it hears of the fork"

    run(test)


def test_a_peer_that_claims_a_fork_and_shows_none_is_dropped() -> None:
    def forged(request: wire.RangeRequest) -> wire.Range:
        good = honest(request)
        items = tuple(
            (block, replace(Certificate.decode(certificate), view=9).encode())
            for block, certificate in good.items
        )
        return replace(good, items=items)

    def ours(client: Client) -> Callable[[wire.RangeRequest], wire.Range]:
        def answer(request: wire.RangeRequest) -> wire.Range:
            if request.height_from > client.chain.height:
                return honest(request)
            block = client.chain.block(request.height_from)
            items = ((block.encoded, certify(block).encode()),)
            return wire.Range(tip_height=HEIGHTS, items=items)

        return answer

    async def test(client: Client) -> None:
        fork_at(client, 12, 3)
        client.peers.update(forged=forged, ours=ours(client))
        for peer in client.peers:
            client.sync.on_other_chain(peer, HEIGHTS)
        await client.until_idle()
        assert client.others == []
        assert sorted(peer for peer, _ in client.bad) == ["forged", "ours"]
        assert client.chain.height == 14

    run(test)


def test_a_peer_that_leaves_during_a_request_is_replaced() -> None:
    async def test(client: Client) -> None:
        client.peers.update(quiet=lambda _: None, honest=honest)
        client.sync.on_peer_up("quiet", HEIGHTS + 5)
        await asyncio.sleep(0.02)
        client.sync.on_peer_down("quiet")
        client.sync.on_peer_up("honest", HEIGHTS)
        await client.until_idle()
        assert client.chain.height == HEIGHTS

    run(test)


def test_a_failed_write_ends_the_sync_and_stops_the_node() -> None:
    store = CrashStore()

    async def test(client: Client) -> None:
        client.peers["a"] = honest
        store.fail_after(5)
        client.sync.on_peer_up("a", HEIGHTS)
        await client.until_idle()
        assert client.failures
        assert client.chain.height == 5

    run(test, store)


def test_a_server_gives_what_was_asked_within_its_bounds() -> None:
    async def test(client: Client) -> None:
        grow(client.chain, 3)
        for height_from, count, expected in [(1, 2, 2), (2, 64, 2), (4, 5, 0), (0, 3, 0)]:
            request = wire.RangeRequest(height_from=height_from, count=count)
            client.sync.on_request("a", request.encode())
            _, channel, payload = client.link.sent.pop()
            assert channel == wire.CHANNEL_SYNC_RESPONSE
            answer = wire.Range.decode(payload[1:])
            assert (answer.tip_height, len(answer.items)) == (3, expected)
        with pytest.raises(InvalidInputError):
            client.sync.on_request("a", wire.RangeRequest(height_from=1, count=1).encode()[:-1])
        with pytest.raises(InvalidInputError):
            client.sync.on_range("a", b"\x21\x00")

    run(test)


def test_proposals_are_completed_by_their_sender_and_bounded_for_each_peer() -> None:
    async def test(client: Client) -> None:
        done: list[object] = []
        exchange = ProposalExchange(
            link=cast(P2PLink, client.link),
            txpool=client.sync.txpool,
            on_complete=lambda _, propose: done.append(propose),
            on_offence=lambda *_: None,
        )
        block = SERVER.block(1)
        exchange.remember(block)
        compact = wire.CompactProposal(
            height=1,
            view=1,
            header=block.header,
            tx_ids=block.tx_ids,
            prefilled={},
            parent_certificate=block.parent_certificate,
            late_votes=(),
            evidence=(),
            justify=(),
            signer=TO,
            signature=bytes(64),
        )
        exchange.on_compact("a", compact)
        assert not done
        _, _, request = client.link.sent.pop()
        exchange.on_message("a", request[0], request[1:])  # the same exchange serves it
        _, _, answer = client.link.sent.pop()
        exchange.on_message("b", answer[0], answer[1:])
        assert not done, "only the one who was asked may answer"
        exchange.on_message("a", answer[0], answer[1:])
        assert len(done) == 1
        for view in range(2, 2 + 3 * PENDING_PER_PEER_MAX):
            header = replace(block.header, origin_view=view)
            exchange.on_compact("a", replace(compact, view=view, header=header))
        assert exchange.pending_count == PENDING_PER_PEER_MAX
        exchange.on_commit(1)
        assert exchange.pending_count == 0

    run(test)
