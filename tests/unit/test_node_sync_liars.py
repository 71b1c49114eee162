"""Peers that lie about their height, stay silent or drip: none of them holds a node up.

On virtual time, so that the timeouts of seconds cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from node import sync as module
from node import wire
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


def test_a_peer_that_asks_too_often_is_not_answered_for_a_while() -> None:
    async def test(client: Client) -> None:
        grow(client.chain, 1)
        request = wire.RangeRequest(height_from=1, count=1).encode()
        for _ in range(3 * module.REQUESTS_PER_S_MAX):
            client.sync.on_request("a", request)
        client.sync.on_request("b", request)
        answered = [peer for peer, _, _ in client.link.sent]
        assert answered == ["a"] * module.REQUESTS_PER_S_MAX + ["b"]
        await asyncio.sleep(1)
        client.sync.on_request("a", request)
        assert len(client.link.sent) == len(answered) + 1

    run(test)
