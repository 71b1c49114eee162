"""Block sync: a node that is behind fetches ranges of final blocks and verifies each by itself.

A peer whose blocks do not follow our tip may be on the other side of a fork. The first height where
its chain is not ours is searched by halves; another final block there goes to consensus (rule 15).

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
from node.block_facts import late_votes_of
from node.range_server import RangeServer
from node.txpool import TxPool
from p2p.link import P2PLink

RANGE_BLOCKS = 32
RESPONSE_TIMEOUT_S = 5.0
RETRY_PAUSE_S = 0.5
PROBE_PAUSE_S = 0.06
"""Between the questions of a search: below the rate that a peer answers."""
SYNC_GAP_HEIGHTS = 4
"""Up to this far behind, consensus catches up by itself (DESIGN rule 16)."""
FAULT_PAUSE_S = 1.0
FAULT_PAUSE_MAX_S = 60.0
FAULTY_PEERS_MAX = 1024
LOG_INTERVAL_S = 2.0

log = structlog.get_logger("sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProgress:
    """For `zynk status`. Heights; `is_syncing` is False when consensus keeps up by itself, and as
    long as no verified block shows that this node is behind: anybody can claim a height."""

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
        reserved: frozenset[str] = frozenset(),
        on_other_final: Callable[[str, Certificate], None] = lambda peer, certificate: None,
    ) -> None:
        self._chain = chain
        self.txpool = txpool
        self._link = link
        self._on_commit = on_commit
        self._on_caught_up = on_caught_up
        self._on_bad_peer = on_bad_peer
        self._on_failure = on_failure
        self._on_other_final = on_other_final
        self._tips: dict[str, int] = {}
        self._pending: tuple[str, asyncio.Future[wire.Range]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._rate = 0.0
        self._server = RangeServer(chain=chain, link=link, reserved=reserved)
        self._proven: set[str] = set()
        """Peers of which this sync has a verified block."""
        self._turn = 0
        self._faults: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Peer -> (failures in a row, loop time until which its claims do not count)."""
        self._loop = asyncio.get_running_loop()

    # --- who is where ---

    def on_peer_up(self, peer: str, height: int) -> None:
        self.on_peer_height(peer, height)

    def on_peer_down(self, peer: str) -> None:
        self._tips.pop(peer, None)
        self._proven.discard(peer)
        self._server.forget(peer)
        if self._pending is not None and self._pending[0] == peer:
            self._fail_pending("the peer went away")

    def on_peer_height(self, peer: str, height: int) -> None:
        """A peer says that `height` is final. Starts a sync if that is far ahead."""
        if self._loop.time() < self._faults.get(peer, (0, 0.0))[1]:
            return
        self._tips[peer] = max(height, self._tips.get(peer, 0))
        if height > self._chain.height + SYNC_GAP_HEIGHTS and not self._chain.upgrade_needed():
            self.start()

    def on_other_chain(self, peer: str, height: int) -> None:
        """A peer calls a block of `height` final that does not follow our tip: look into it."""
        if self._loop.time() >= self._faults.get(peer, (0, 0.0))[1]:
            self._tips[peer] = max(height, self._tips.get(peer, 0))
            self.start()

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="block-sync")

    async def stop(self) -> None:
        self._server.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_running(self) -> bool:
        """Whether peers that claim to be ahead are being asked; they may all be liars."""
        return self._task is not None and not self._task.done()

    @property
    def progress(self) -> SyncProgress:
        is_syncing = self.is_running and bool(self._proven)
        tips = [self._tips.get(peer, 0) for peer in self._proven] if is_syncing else []
        return SyncProgress(
            is_syncing=is_syncing,
            height=self._chain.height,
            target_height=max(self._chain.height, *tips, 0),
            blocks_per_s=self._rate if is_syncing else 0.0,
        )

    # --- client ---

    async def _run(self) -> None:
        began, height_began, logged = self._loop.time(), self._chain.height, 0.0
        self._proven.clear()
        is_at_tip = False
        while not self._chain.upgrade_needed() and (peer := self._pick_peer()) is not None:
            try:
                height = self._chain.height
                answer = await self._request(peer, height + 1, RANGE_BLOCKS)
                if peer in self._tips:  # else it left with its answer still under way
                    self._tips[peer] = answer.tip_height
                await self._apply(peer, answer)
                is_at_tip = self._chain.height >= answer.tip_height
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
            if self._proven and self._loop.time() - logged > LOG_INTERVAL_S:
                logged = self._loop.time()
                progress = self.progress
                log.info(
                    "syncing",
                    height=progress.height,
                    target=progress.target_height,
                    blocks_per_s=round(self._rate, 1),
                )
        if self._chain.height > height_began:
            log.info(
                "caught up" if is_at_tip else "sync ended: no peer gives more",
                height=self._chain.height,
                blocks=self._chain.height - height_began,
            )
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

    async def _request(self, peer: str, height_from: int, count: int) -> wire.Range:
        future: asyncio.Future[wire.Range] = self._loop.create_future()
        self._pending = (peer, future)
        request = wire.RangeRequest(height_from=height_from, count=count)
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
            if block.header.parent_hash != self._chain.head_hash:
                await self._find_fork(peer)
            verify_final_header(
                block.header,
                certificate,
                self._chain.validators,
                self._chain.chain_id,
                versions=self._chain.protocol_versions,
            )
            votes = late_votes_of(self._chain, block)
            txs = await self.txpool.verified_txs(block.txs, votes)
            if block.height != self._chain.height + 1:
                continue
            self._chain.judge(block, txs, now_ms=None)
            self._on_commit(self._chain.commit(block, certificate, txs))
            if not self._proven:
                log.info("behind the network", height=block.height, target=answer.tip_height)
            self._proven.add(peer)
            await asyncio.sleep(0)

    async def _find_fork(self, peer: str) -> None:
        """Hand over what finalizes a peer's first block that is not ours. At that height the set is
        still the same on both sides; later ones may differ. If consensus halts, this task is
        cancelled; else the peer is at fault: always raises, InvalidInputError if not TimeoutError
        or DurabilityError."""
        same, other = 0, self._chain.height
        if other == 0:
            raise InvalidInputError("block 1 does not follow the genesis")
        block, certificate = await self._ask_for_block(peer, other)
        while other - same > 1:
            middle = (same + other) // 2
            found = await self._ask_for_block(peer, middle)
            if found[0].hash == self._chain.header(middle).hash:
                same = middle
            else:
                other, (block, certificate) = middle, found
        if block.hash == self._chain.header(other).hash:
            raise InvalidInputError("block does not follow the peer's own chain")
        verify_final_header(
            block.header,
            certificate,
            self._chain.validators_at(other),
            self._chain.chain_id,
            versions=self._chain.protocol_versions,
        )
        log.error("a peer has another final block", peer=peer, height=other)
        self._on_caught_up()  # consensus may be at work on a height that this sync made final
        self._on_other_final(peer, certificate)
        await asyncio.sleep(0)  # a halt stops this task here, and the peer is kept
        raise InvalidInputError("peer follows a fork that was refused", got=str(other))

    async def _ask_for_block(self, peer: str, height: int) -> tuple[Block, Certificate]:
        await asyncio.sleep(PROBE_PAUSE_S)
        answer = await self._request(peer, height, 1)
        if len(answer.items) != 1:
            raise InvalidInputError("peer does not show its block", expected=str(height))
        block = Block.decode(answer.items[0][0])
        if block.height != height:
            raise InvalidInputError(
                "peer shows another block", expected=str(height), got=str(block.height)
            )
        return block, Certificate.decode(answer.items[0][1])

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

    def on_request(self, peer: str, payload: bytes) -> None:
        """Channel 2: serve a range. Raises InvalidInputError."""
        self._server.on_request(peer, payload)
