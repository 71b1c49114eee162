"""Block sync: a node that is behind fetches ranges of final blocks and verifies each by itself.

A range is asked of one peer at a time. Each block must be the next height, be final under the
validator set that our own state names, carry valid tx signatures, and execute to the roots in its
header. A peer whose range fails that is dropped and another is asked; nothing it sent is kept.

Heights are hearsay. Peers that claim to be ahead are asked in turn, not the highest first, so that
a liar gets its share and no more; one that fails is left alone for a while, longer each time,
whatever it claims meanwhile, so that it can neither hold a sync up nor start one again and again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ledger.block import Block
from ledger.certificate import Certificate
from ledger.chain import Chain, Commit
from ledger.errors import DurabilityError, InvalidInputError
from ledger.finality import verify_final_header
from node import wire
from node.txpool import TxPool
from p2p.link import P2PLink

RANGE_BLOCKS = 32
RANGE_BYTES = 1024 * 1024
RESPONSE_TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.5
SYNC_GAP_HEIGHTS = 4
"""Up to this far behind, consensus catches up by itself (DESIGN rule 16)."""
REQUESTS_PER_S_MAX = 20
REQUESTS_OF_ALL_PER_S_MAX = 60
"""Serving a full range costs some 10 ms of the event loop, which consensus shares."""
FAULT_PAUSE_S = 1.0
FAULT_PAUSE_MAX_S = 60.0
FAULTY_PEERS_MAX = 1024
LOG_INTERVAL_S = 2.0

log = structlog.get_logger("sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProgress:
    """For `zynk status`. Heights; `is_syncing` is False when consensus keeps up by itself."""

    is_syncing: bool
    height: int
    target_height: int
    blocks_per_s: float


class BlockSync:
    """Client and server of ranges. All calls are on the event loop."""

    def __init__(
        self,
        *,
        chain: Chain,
        txpool: TxPool,
        link: P2PLink,
        on_commit: Callable[[Commit], None],
        on_caught_up: Callable[[], None],
        on_bad_peer: Callable[[str, InvalidInputError], None],
        on_failure: Callable[[str], None],
        on_other_parent: Callable[[str, Certificate], None] = lambda peer, certificate: None,
    ) -> None:
        self._chain = chain
        self.txpool = txpool
        self._link = link
        self._on_commit = on_commit
        self._on_caught_up = on_caught_up
        self._on_bad_peer = on_bad_peer
        self._on_failure = on_failure
        self._on_other_parent = on_other_parent
        self._tips: dict[str, int] = {}
        self._pending: tuple[str, asyncio.Future[wire.Range]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._rate = 0.0
        self._served_of_all = (0.0, 0)
        self._served: dict[str, tuple[float, int]] = {}
        self._turn = 0
        self._faults: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Peer -> (failures in a row, loop time until which its claims do not count)."""
        self._loop = asyncio.get_running_loop()

    # --- who is where ---

    def on_peer_up(self, peer: str, height: int) -> None:
        self.on_peer_height(peer, height)

    def on_peer_down(self, peer: str) -> None:
        self._tips.pop(peer, None)
        self._served.pop(peer, None)
        if self._pending is not None and self._pending[0] == peer:
            self._fail_pending("the peer went away")

    def on_peer_height(self, peer: str, height: int) -> None:
        """A peer says that `height` is final. Starts a sync if that is far ahead."""
        if self._loop.time() < self._faults.get(peer, (0, 0.0))[1]:
            return
        self._tips[peer] = max(height, self._tips.get(peer, 0))
        if height > self._chain.height + SYNC_GAP_HEIGHTS and not self._chain.upgrade_needed():
            self.start()

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="block-sync")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def progress(self) -> SyncProgress:
        is_syncing = self._task is not None and not self._task.done()
        return SyncProgress(
            is_syncing=is_syncing,
            height=self._chain.height,
            target_height=max(self._chain.height, *self._tips.values(), 0),
            blocks_per_s=self._rate if is_syncing else 0.0,
        )

    # --- client ---

    async def _run(self) -> None:
        began, height_began, logged = self._loop.time(), self._chain.height, 0.0
        log.info("behind the network", height=height_began, target=self.progress.target_height)
        while not self._chain.upgrade_needed() and (peer := self._pick_peer()) is not None:
            try:
                height = self._chain.height
                answer = await self._request(peer)
                if peer in self._tips:  # else it left with its answer still under way
                    self._tips[peer] = answer.tip_height
                await self._apply(peer, answer)
                if self._chain.height == height < answer.tip_height:
                    raise InvalidInputError("range holds nothing new")
                self._faults.pop(peer, None)
            except InvalidInputError as error:
                self._note_fault(peer)
                self._on_bad_peer(peer, error)
            except DurabilityError as error:
                self._on_failure(f"a write failed: {error}")
                return
            except TimeoutError:
                log.warning("no answer to a range request", peer=peer)
                self._note_fault(peer)
                await asyncio.sleep(RETRY_PAUSE_S)
            except Exception:  # a bug of ours: say so, and let consensus go on
                log.exception("block sync failed", peer=peer)
                self._note_fault(peer)
            elapsed = max(self._loop.time() - began, 1e-3)
            self._rate = (self._chain.height - height_began) / elapsed
            if self._loop.time() - logged > LOG_INTERVAL_S:
                logged = self._loop.time()
                progress = self.progress
                log.info(
                    "syncing",
                    height=progress.height,
                    target=progress.target_height,
                    blocks_per_s=round(self._rate, 1),
                )
        log.info("caught up", height=self._chain.height, blocks=self._chain.height - height_began)
        try:
            self._on_caught_up()
        except DurabilityError as error:
            self._on_failure(f"the store can not be read: {error}")

    def _pick_peer(self) -> str | None:
        ahead = [peer for peer, tip in self._tips.items() if tip > self._chain.height]
        self._turn += 1
        return ahead[self._turn % len(ahead)] if ahead else None

    def _note_fault(self, peer: str) -> None:
        self._tips.pop(peer, None)
        count, _ = self._faults.pop(peer, (0, 0.0))
        pause_s = min(FAULT_PAUSE_S * 2 ** min(count, 10), FAULT_PAUSE_MAX_S)
        self._faults[peer] = (count + 1, self._loop.time() + pause_s)
        if len(self._faults) > FAULTY_PEERS_MAX:
            self._faults.popitem(last=False)

    async def _request(self, peer: str) -> wire.Range:
        future: asyncio.Future[wire.Range] = self._loop.create_future()
        self._pending = (peer, future)
        request = wire.RangeRequest(height_from=self._chain.height + 1, count=RANGE_BLOCKS)
        try:
            if not self._link.send(peer, wire.CHANNEL_SYNC_REQUEST, request.encode()):
                raise TimeoutError
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                return await future
        finally:
            self._pending = None

    async def _apply(self, peer: str, answer: wire.Range) -> None:
        if not answer.items and answer.tip_height > self._chain.height:
            raise InvalidInputError("peer claims a height but sends no blocks")
        for block_bytes, certificate_bytes in answer.items:
            block = Block.decode(block_bytes)
            if block.height <= self._chain.height:
                continue  # consensus was faster
            if self._chain.upgrade_needed():
                return  # the rest is for newer software, and no fault of the peer
            certificate = Certificate.decode(certificate_bytes)
            if block.height != self._chain.height + 1:
                raise InvalidInputError(
                    "range has a gap", expected=str(self._chain.height + 1), got=str(block.height)
                )
            if block.header.parent_hash != self._chain.head_hash and block.parent_certificate:
                # Perhaps the peer is on the other side of a fork: consensus judges what finalizes
                # its block at the height of our tip.
                self._on_other_parent(peer, block.parent_certificate)
            verify_final_header(
                block.header,
                certificate,
                self._chain.validators,
                self._chain.chain_id,
                versions=self._chain.protocol_versions,
            )
            txs = await self.txpool.verified_txs(block.txs)
            if block.height != self._chain.height + 1:
                continue
            self._chain.judge(block, txs, now_ms=None)
            self._on_commit(self._chain.commit(block, certificate, txs))
            await asyncio.sleep(0)

    def _fail_pending(self, why: str) -> None:
        if self._pending is not None and not self._pending[1].done():
            self._pending[1].set_exception(TimeoutError(why))

    # --- messages ---

    def on_range(self, peer: str, payload: bytes) -> None:
        """Channel 3. Raises InvalidInputError."""
        if payload[0] != wire.TAG_RANGE:
            raise InvalidInputError("sync answer is unknown", got=hex(payload[0]))
        answer = wire.Range.decode(payload[1:])
        if self._pending is not None and self._pending[0] == peer and not self._pending[1].done():
            self._pending[1].set_result(answer)

    def _take_from_budget(self, now: float) -> bool:
        """One request of the second's budget for all peers together."""
        second, count = self._served_of_all
        if now - second >= 1.0:
            second, count = now, 0
        self._served_of_all = (second, count + 1)
        return count < REQUESTS_OF_ALL_PER_S_MAX

    def on_request(self, peer: str, payload: bytes) -> None:
        """Channel 2: serve a range. Raises InvalidInputError."""
        if payload[0] != wire.TAG_RANGE_REQUEST:
            raise InvalidInputError("sync request is unknown", got=hex(payload[0]))
        request = wire.RangeRequest.decode(payload[1:])
        second, count = self._served.get(peer, (0.0, 0))
        now = self._loop.time()
        if now - second >= 1.0:
            second, count = now, 0
        self._served[peer] = (second, count + 1)
        if count >= REQUESTS_PER_S_MAX or not self._take_from_budget(now):
            return
        items: list[tuple[bytes, bytes]] = []
        room = RANGE_BYTES
        for height in range(request.height_from, request.height_from + request.count):
            if not 1 <= height <= self._chain.height:
                break
            block, certificate = self._chain.block(height), self._chain.certificate(height)
            room -= len(block.encoded)
            if room < 0 and items:
                break
            items.append((block.encoded, certificate.encode()))
        answer = wire.Range(tip_height=self._chain.height, items=tuple(items))
        self._link.send(peer, wire.CHANNEL_SYNC_RESPONSE, answer.encode())
