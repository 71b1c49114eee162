"""Peers that lie about their height, stay silent or drip: none of them holds a node up.

On virtual time, so that the timeouts of seconds cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

import pytest
import structlog.testing

from node import sync as module
from node import wire
from node.range_server import UNITS_BURST, UNITS_PER_S, WAITING_MAX, RangeServer
from p2p.link import P2PLink
from tests.unit.node_fixture import FakeLink
from tests.unit.test_node_sync import HEIGHTS, SERVER, Client, grow, honest
from tests.unit.virtual_time import run_virtual

FAR = 10**9


def run(test: Callable[[Client], Awaitable[None]]) -> None:
    async def body() -> None:
        client = Client()
        try:
            await test(client)
        finally:
            await client.sync.stop()
            client.signatures.close()

    run_virtual(body())


async def until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline, "too slow"
        await asyncio.sleep(0.05)


def test_a_peer_that_repeats_old_blocks_under_a_high_tip_is_dropped_at_once() -> None:
    """It was asked again and again, for ever."""
    asked: list[int] = []

    def repeats(request: wire.RangeRequest) -> wire.Range:
        asked.append(request.height_from)
        return replace(honest(wire.RangeRequest(height_from=1, count=3)), tip_height=FAR)

    async def test(client: Client) -> None:
        grow(client.chain, 10)
        client.peers["liar"] = repeats
        client.sync.on_peer_up("liar", FAR)
        await until(lambda: bool(client.bad), 1)
        await client.until_idle()
        assert asked == [11]
        assert client.bad == [("liar", client.bad[0][1])]
        assert "nothing new" in client.bad[0][1]
        assert client.caught_up == 1

    run(test)


def test_a_silent_peer_that_goes_on_claiming_does_not_keep_the_sync_running() -> None:
    """Each claim during the pause used to bring it back, and consensus was never started."""

    async def test(client: Client) -> None:
        client.peers.update(silent=lambda _: None, honest=honest)
        client.sync.on_peer_up("silent", FAR)
        client.sync.on_peer_up("honest", HEIGHTS)

        async def claim() -> None:
            while True:
                client.sync.on_peer_height("silent", FAR)
                await asyncio.sleep(0.1)

        claims = asyncio.create_task(claim())
        await until(lambda: client.chain.height == HEIGHTS, 2 * module.RESPONSE_TIMEOUT_S)
        await until(lambda: client.caught_up == 1, 2 * module.RESPONSE_TIMEOUT_S)
        requests = len(client.link.sent)
        await asyncio.sleep(600)
        claims.cancel()
        assert len(client.link.sent) - requests < 20, "asked less and less often"
        assert not client.bad

    run(test)


def test_a_dripping_peer_gets_its_turn_only() -> None:
    """The highest claim was asked first: one block in five seconds was the whole speed."""

    def drips(request: wire.RangeRequest) -> wire.Range:
        return replace(honest(replace(request, count=1)), tip_height=FAR)

    async def test(client: Client) -> None:
        client.peers.update(slow=drips, honest=honest)
        client.sync.on_peer_up("slow", FAR)
        client.sync.on_peer_up("honest", HEIGHTS)
        await until(lambda: client.chain.height == HEIGHTS, 1)
        asked = [peer for peer, _, _ in client.link.sent]
        assert asked.count("slow") <= asked.count("honest") + 1
        await client.until_idle()
        assert [peer for peer, _ in client.bad] == ["slow"], "at the tip it has nothing to send"

    run(test)


def test_the_only_peer_ahead_is_heard_again_after_its_pause() -> None:
    answers: list[Callable[[wire.RangeRequest], wire.Range | None]] = [lambda _: None]

    async def test(client: Client) -> None:
        client.peers["a"] = lambda request: answers[0](request)
        client.sync.on_peer_up("a", HEIGHTS)
        await until(lambda: client.caught_up == 1, 10)
        assert client.chain.height == 0
        answers[0] = honest
        client.sync.on_peer_height("a", HEIGHTS)
        assert not client.sync.progress.is_syncing, "too soon"
        await asyncio.sleep(module.FAULT_PAUSE_S)
        client.sync.on_peer_height("a", HEIGHTS)
        await client.until_idle()
        assert client.chain.head_hash == SERVER.head_hash

    run(test)


def test_a_bad_peer_is_not_asked_again_when_it_says_its_height_again() -> None:
    async def test(client: Client) -> None:
        client.peers["bad"] = lambda _: wire.Range(tip_height=FAR, items=())
        for _ in range(50):
            client.sync.on_peer_up("bad", FAR)  # it was dropped, and connects again
            await asyncio.sleep(0.01)
        assert len(client.bad) == 1
        assert client.caught_up == 1
        assert client.sync.progress.target_height == 0

    run(test)


def test_a_sync_goes_on_where_a_lost_peer_left_it_and_tells_its_progress() -> None:
    def first_half(request: wire.RangeRequest) -> wire.Range | None:
        return honest(replace(request, count=10)) if request.height_from <= 11 else None

    async def test(client: Client) -> None:
        client.peers["a"] = first_half
        client.sync.on_peer_up("a", HEIGHTS)
        await until(lambda: client.chain.height == 20, 1)
        progress = client.sync.progress
        assert (progress.is_syncing, progress.height) == (True, 20)
        assert progress.target_height == HEIGHTS
        assert progress.blocks_per_s > 0
        client.sync.on_peer_down("a")
        await client.until_idle()
        assert client.sync.progress.blocks_per_s == 0
        client.peers["b"] = honest
        client.sync.on_peer_up("b", HEIGHTS)
        await client.until_idle()
        assert [commit.height for commit in client.commits] == list(range(1, HEIGHTS + 1))

    run(test)


class Served:
    """A range server on virtual time; `units` is what each peer has cost so far."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.server = RangeServer(
            chain=SERVER, link=cast(P2PLink, self.link), reserved=frozenset({"validator"})
        )
        self.server_request = wire.RangeRequest(height_from=1, count=32).encode()

    def ask(self, *peers: str) -> None:
        for peer in peers:
            self.server.on_request(peer, self.server_request)

    def answered(self, peer: str) -> int:
        return [to for to, _, _ in self.link.sent].count(peer)


UNITS = 33
"""Of a range of 32 small blocks."""
BURST = -(-int(UNITS_BURST) // UNITS)


def test_ranges_are_served_within_a_budget_and_in_turn() -> None:
    """60 requests a second at 10 ms each were served: half of the loop."""

    async def body() -> None:
        world = Served()
        for _ in range(1000):
            world.ask("greedy")
        assert world.answered("greedy") in (BURST, BURST + 1)
        world.ask("modest")
        assert world.answered("modest") == 0, "the budget is used up"
        await asyncio.sleep(2 * UNITS / UNITS_PER_S + 0.1)
        assert world.answered("modest") == 1
        for _ in range(100):
            world.ask("greedy")
            await asyncio.sleep(0.1)
        assert world.answered("greedy") <= BURST + 11 * UNITS_PER_S / UNITS
        world.server.stop()

    run_virtual(body())


def test_strangers_can_not_use_up_what_validators_peers_are_served() -> None:
    async def body() -> None:
        world = Served()
        strangers = [f"stranger-{n}" for n in range(2 * WAITING_MAX)]
        for _ in range(10):
            world.ask(*strangers)
            world.ask("validator")
        assert world.answered("validator") == 10
        assert len(world.link.sent) <= 10 + BURST + 1
        world.server.forget("stranger-100")
        await asyncio.sleep(WAITING_MAX * UNITS / UNITS_PER_S + 1)
        assert world.answered("stranger-100") == 0, "it went away"
        assert len(world.link.sent) <= 10 + BURST + 1 + WAITING_MAX
        world.server.stop()

    run_virtual(body())


@pytest.mark.parametrize("answer", [None, wire.Range(tip_height=FAR, items=())])
def test_a_claim_alone_is_neither_syncing_nor_a_target(answer: wire.Range | None) -> None:
    """Any stranger's unsigned height made /ready a 503 and the status a lie."""

    async def test(client: Client) -> None:
        grow(client.chain, 3)
        client.peers["liar"] = lambda _: answer
        with structlog.testing.capture_logs() as lines:
            client.sync.on_peer_height("liar", FAR)
            while client.sync.is_running:
                assert not client.sync.progress.is_syncing
                assert client.sync.progress.target_height == 3
                await asyncio.sleep(0.1)
        assert not [line for line in lines if line["event"] in ("caught up", "behind the network")]

    run(test)


def test_a_sync_that_ends_short_of_the_claimed_height_is_not_called_caught_up() -> None:
    def some(request: wire.RangeRequest) -> wire.Range | None:
        if request.height_from > 10:
            return None
        return replace(honest(replace(request, count=10)), tip_height=FAR)

    async def test(client: Client) -> None:
        client.peers["a"] = some
        with structlog.testing.capture_logs() as lines:
            client.sync.on_peer_height("a", FAR)
            await client.until_idle()
            client.peers["b"] = honest
            client.sync.on_peer_height("b", HEIGHTS)
            await client.until_idle()
        told = [line["event"] for line in lines if line.get("blocks")]
        assert told == ["sync ended: no peer gives more", "caught up"]
        assert client.chain.height == HEIGHTS

    run(test)
