"""Serving ranges of final blocks within a budget.

A full range costs some 10 ms of the event loop, which consensus shares. So what is served counts
against a budget of blocks and bytes a second; beyond it requests wait, one a peer, and are answered
in turn. Peers of validators have a budget of their own, which strangers can not use up.
"""

from __future__ import annotations

import asyncio

from ledger.chain import Chain
from ledger.errors import InvalidInputError
from node import wire
from p2p.link import P2PLink
from p2p.rate import TokenBucket

RANGE_BYTES = 1024 * 1024
UNITS_PER_S = 320.0
"""About a tenth of a core: 10 full ranges of small blocks a second."""
UNITS_BURST = 640.0
UNIT_BYTES = 32 * 1024
"""A block costs one unit, and one more for each of these bytes."""
WAITING_MAX = 256
WAIT_MIN_S = 0.001


class RangeServer:
    """All calls are on the event loop. `reserved` peers share one budget, all others another."""

    def __init__(
        self, *, chain: Chain, link: P2PLink, reserved: frozenset[str] = frozenset()
    ) -> None:
        self._reserved = reserved
        self._queues = {
            is_reserved: _Queue(chain, link, asyncio.get_running_loop())
            for is_reserved in (True, False)
        }

    def on_request(self, peer: str, payload: bytes) -> None:
        """Channel 2: serve a range now or in turn. Raises InvalidInputError."""
        if payload[0] != wire.TAG_RANGE_REQUEST:
            raise InvalidInputError("sync request is unknown", got=hex(payload[0]))
        request = wire.RangeRequest.decode(payload[1:])
        self._queues[peer in self._reserved].add(peer, request)

    def forget(self, peer: str) -> None:
        """The peer is gone."""
        self._queues[peer in self._reserved].waiting.pop(peer, None)

    def stop(self) -> None:
        for queue in self._queues.values():
            queue.stop()


class _Queue:
    """Requests of one class of peers: the newest of each, oldest peer first."""

    def __init__(self, chain: Chain, link: P2PLink, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: dict[str, wire.RangeRequest] = {}
        self._chain = chain
        self._link = link
        self._loop = loop
        self._budget = TokenBucket(UNITS_PER_S, loop.time(), UNITS_BURST)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, peer: str, request: wire.RangeRequest) -> None:
        if peer not in self.waiting and len(self.waiting) >= WAITING_MAX:
            return  # it asks again
        self.waiting[peer] = request
        if self._timer is None:
            self._serve()

    def stop(self) -> None:
        self.waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _serve(self) -> None:
        self._timer = None
        while self.waiting:
            wait_s = self._budget.spend(0, self._loop.time())
            if wait_s > 0:
                self._timer = self._loop.call_later(max(wait_s, WAIT_MIN_S), self._serve)
                return
            peer = next(iter(self.waiting))
            units = self._answer(peer, self.waiting.pop(peer))
            self._budget.spend(units, self._loop.time())

    def _answer(self, peer: str, request: wire.RangeRequest) -> int:
        """Send what was asked for as far as it fits; the units that it cost."""
        items: list[tuple[bytes, bytes]] = []
        sent_bytes = 0
        for height in range(request.height_from, request.height_from + request.count):
            if not 1 <= height <= self._chain.height:
                break
            block, certificate = self._chain.block(height), self._chain.certificate(height)
            if sent_bytes + len(block.encoded) > RANGE_BYTES and items:
                break
            sent_bytes += len(block.encoded)
            items.append((block.encoded, certificate.encode()))
        answer = wire.Range(tip_height=self._chain.height, items=tuple(items))
        self._link.send(peer, wire.CHANNEL_SYNC_RESPONSE, answer.encode())
        return 1 + len(items) + sent_bytes // UNIT_BYTES
