"""Signs the log's head after finality, off the critical path; collects and spreads cosignatures.

Validators sign by themselves, and a quorum needs them to sign the same head, so which heads are
signed is a rule that follows from the chain:

- The first block of each second of block time (`SLOT_MS`) whose log has grown is signed at once.
- A head after which no block came for `SLOT_MS` is signed then: a quiet chain ends up signed.

So at most one head a slot is signed, the newest. Each node, validator or not, signs it with its log
key; a validator whose cosign key the chain knows cosigns it. What is signed is first checked to be
consistent with what this node signed before, and let through by the log guard (durable, in a
thread of its own).

Signed heads go from peer to peer (channel 4): each node passes on, every `RELAY_S` at most, the
newest verified one of each validator to those peers that are not known to have it.

A checkpoint is published, as /checkpoint and in `audit_checkpoint`, once it has a quorum; without
one after `GRACE_S`. Its size never goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from audit.checkpoint import Checkpoint, compute_origin
from audit.cosign import CosignerSet, read_cosigners
from audit.cosignatures import (
    Board,
    HeadPool,
    SignedHead,
    SplitViewError,
    decode_heads,
    encode_heads,
    sign_head,
)
from audit.note import sign_text
from audit.tree_store import LogTree
from ledger.chain import Chain, Commit
from ledger.ed25519 import KeyPair
from ledger.errors import DurabilityError, InvalidInputError
from node import wire
from node.log_guard import ContradictionError, LogGuard
from p2p.link import P2PLink
from p2p.rate import TokenBucket

SLOT_MS = 1000
STALE_MS = 10_000
"""A node that is catching up does not sign what it passes on its way."""
SIGN_INTERVAL_S = 0.2
RELAY_S = 0.05
REPAIR_S = 30.0
"""What peers were sent is sent again: a peer may not have known the validator then."""
GRACE_S = 2.0
MESSAGES_PER_S = 25
MESSAGES_BURST = 50

log = structlog.get_logger("audit")


class Cosigning:
    """One a node. All calls are on the event loop. `guard` None: `reason` says why nothing is
    signed."""

    def __init__(
        self,
        *,
        chain: Chain,
        log_tree: LogTree,
        log_key: KeyPair,
        guard: LogGuard | None,
        reason: str,
        cosign_key: KeyPair | None,
        link: P2PLink,
        wall_ms: Callable[[], int],
        run_blocking: Callable[[Callable[[], None]], Awaitable[None]] = asyncio.to_thread,
    ) -> None:
        self.log_public_key = log_key.public_key
        self.reason = reason
        self.published: Board | None = None
        self.on_published: Callable[[Board], None] = lambda _: None
        """Hears of each checkpoint once, when it is published."""
        self.split_views_total = 0
        self._chain = chain
        self._log_tree = log_tree
        self._log_key = log_key
        self._guard = guard
        self._cosign_key = cosign_key
        self._link = link
        self._wall_ms = wall_ms
        self._run_blocking = run_blocking
        self._origin = compute_origin(chain.chain_id)
        self._pool = HeadPool(chain.chain_id, log_tree.root)
        self._loop = asyncio.get_running_loop()
        self._target: _Target | None = None
        self._candidate: Board | None = None
        self._candidate_since_s = 0.0
        self._head_time_ms = 0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._relay_timer: asyncio.TimerHandle | None = None
        self._repair_timer: asyncio.TimerHandle | None = None
        self._sizes_by_peer: dict[str, dict[bytes, int]] = {}
        self._budget_by_peer: dict[str, TokenBucket] = {}

    # --- life ---

    def start(self) -> None:
        """Sign the head as it is, and what comes."""
        head = self._chain.head
        if head is not None:
            self._head_time_ms = head.time_ms
            self._pool.size = head.audit_size
        self._pool.set_cosigners(self._read_cosigners())
        self._worker = self._loop.create_task(self._work(), name="cosigning")
        self._quiet_timer = self._loop.call_later(SLOT_MS / 1000, self._aim)
        self._repair_timer = self._loop.call_later(REPAIR_S, self._repair)

    async def stop(self) -> None:
        timers = (self._quiet_timer, self._grace_timer, self._relay_timer, self._repair_timer)
        for timer in timers:
            if timer is not None:
                timer.cancel()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    @property
    def published_note(self) -> str | None:
        """The text of /checkpoint."""
        return None if self.published is None else self.published.note

    def metrics(self) -> dict[str, int]:
        board = self.published
        return {
            "audit_published_size": 0 if board is None else board.checkpoint.tree_size,
            "audit_published_cosigned_power": 0 if board is None else board.power,
            "audit_published_has_quorum": int(board is not None and board.has_quorum),
            "audit_split_views_total": self.split_views_total,
        }

    # --- what to sign ---

    def on_commit(self, commit: Commit) -> None:
        """A height is final here."""
        head = self._chain.head
        if self._worker is None or head is None:
            return
        opens_slot = head.time_ms // SLOT_MS != self._head_time_ms // SLOT_MS
        self._head_time_ms = head.time_ms
        for contradiction in self._pool.grow(head.audit_size):
            self._note_split_view(contradiction)
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        if opens_slot and self._wall_ms() - head.time_ms < STALE_MS:
            self._aim()
        else:
            self._quiet_timer = self._loop.call_later(SLOT_MS / 1000, self._aim)

    def _aim(self) -> None:
        """The head as it is now is to be signed, if the log has grown."""
        head = self._chain.head
        if head is None or (self._target and head.audit_size == self._target.checkpoint.tree_size):
            return
        cosigners = self._read_cosigners()
        self._pool.set_cosigners(cosigners)
        self._target = _Target(
            height=head.height,
            checkpoint=Checkpoint(
                origin=self._origin, tree_size=head.audit_size, root_hash=head.audit_root
            ),
            cosigners=cosigners,
        )
        self._wake.set()

    def _read_cosigners(self) -> CosignerSet:
        """The set that votes after the head, as its state names their keys."""
        return read_cosigners(self._chain.tree, self._chain.validators, self._chain.chain_id)

    # --- signing ---

    async def _work(self) -> None:
        """Sign the newest target, then the newest by then."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            target, guard = self._target, self._guard
            if target is None or guard is None:
                continue
            head = target.checkpoint
            try:
                self._require_consistent(guard, head)
                await self._run_blocking(partial(guard.advance, head.tree_size, head.root_hash))
                self._sign(target)
                self.reason = ""
            except (ContradictionError, DurabilityError) as error:
                self._refuse(str(error))
            except Exception:  # a bug of ours: say so; the next slot tries again
                log.exception("a checkpoint could not be signed")
            await asyncio.sleep(SIGN_INTERVAL_S)

    def _require_consistent(self, guard: LogGuard, head: Checkpoint) -> None:
        """The log at the size that was signed last still has the root that was. Raises
        ContradictionError; the guard refuses what is smaller."""
        if 0 < guard.size <= head.tree_size and self._log_tree.root(guard.size) != guard.root:
            raise ContradictionError(
                "the log contradicts what this node signed",
                expected=f"root {guard.root.hex()} at size {guard.size}",
                got=self._log_tree.root(guard.size).hex(),
            )

    def _sign(self, target: _Target) -> None:
        """The guard has let it through."""
        checkpoint = target.checkpoint
        board = Board(
            height=target.height,
            checkpoint=checkpoint,
            log_line=sign_text(checkpoint.body(), self._origin, self._log_key),
            cosigners=target.cosigners,
            chain_id=self._chain.chain_id,
        )
        pair = self._cosign_key
        own = None if pair is None else target.cosigners.find_key(pair.public_key)
        if pair is not None and own is not None:
            head = sign_head(checkpoint, own, pair, self._wall_ms() // 1000)
            self._pool.latest[own.operator] = head
        for known in self._pool.latest.values():
            board.add(known)
        if self._candidate is self.published:
            self._candidate_since_s = self._loop.time()
        self._candidate = board
        self._publish_if_due()
        self._relay_soon()  # also what waited for the log to come so far

    def _refuse(self, reason: str) -> None:
        if reason != self.reason:
            log.error("no checkpoint is signed", reason=reason)
        self.reason = reason

    def _publish_if_due(self) -> None:
        board = self._candidate
        if board is None or board is self.published:
            return
        wait_s = self._candidate_since_s + GRACE_S - self._loop.time()
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        if self.published is not None and not board.has_quorum and wait_s > 0:
            self._grace_timer = self._loop.call_later(wait_s, self._publish_if_due)
            return
        self.published = board
        self.on_published(board)

    # --- peers ---

    def on_peer_up(self, peer: str) -> None:
        self._sizes_by_peer[peer] = {}
        self._budget_by_peer[peer] = TokenBucket(MESSAGES_PER_S, self._loop.time(), MESSAGES_BURST)
        self._relay_soon()

    def on_peer_down(self, peer: str) -> None:
        self._sizes_by_peer.pop(peer, None)
        self._budget_by_peer.pop(peer, None)

    def on_message(self, peer: str, payload: bytes) -> None:
        """Channel 4. Raises InvalidInputError for what the peer is at fault for."""
        if payload[0] != wire.TAG_HEADS:
            raise InvalidInputError("message is unknown", got=f"tag {payload[0]}")
        budget = self._budget_by_peer.get(peer)
        if budget is None:
            return
        if not budget.take(1, self._loop.time()):
            raise InvalidInputError("too many signed heads", expected=f"{MESSAGES_PER_S} a second")
        sizes, now_s = self._sizes_by_peer[peer], self._wall_ms() // 1000
        for head in decode_heads(payload[1:]):
            try:
                is_news = self._pool.add(head, now_s)
            except SplitViewError as error:
                self._note_split_view(error)
                raise
            if head.operator in self._pool.latest:
                sizes[head.operator] = max(head.tree_size, sizes.get(head.operator, -1))
            if is_news:
                self._post(head)

    def _post(self, head: SignedHead) -> None:
        """A newly verified head: onto the checkpoint it is about, and on to the peers."""
        for board in (self._candidate, self.published):
            if board is not None:
                board.add(head)
        self._publish_if_due()
        self._relay_soon()

    def _relay_soon(self) -> None:
        if self._relay_timer is None:
            self._relay_timer = self._loop.call_later(RELAY_S, self._relay)

    def _relay(self) -> None:
        self._relay_timer = None
        for peer, sizes in self._sizes_by_peer.items():
            heads = [
                head
                for operator, head in self._pool.latest.items()
                if head.tree_size > sizes.get(operator, -1)
            ]
            payload = bytes([wire.TAG_HEADS]) + encode_heads(heads)
            if heads and self._link.send(peer, wire.CHANNEL_LOG, payload):
                sizes.update({head.operator: head.tree_size for head in heads})

    def _repair(self) -> None:
        for sizes in self._sizes_by_peer.values():
            sizes.clear()
        self._relay_soon()
        self._repair_timer = self._loop.call_later(REPAIR_S, self._repair)

    def _note_split_view(self, error: SplitViewError) -> None:
        self.split_views_total += 1
        head = error.head
        log.error(
            "a validator cosigned another log than this chain's",
            operator=head.operator.hex(),
            size=head.tree_size,
            root=head.root_hash.hex(),
            expected=error.expected,
            time_s=head.time_s,
            signature=head.signature.hex(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A head that is to be signed."""

    height: int
    checkpoint: Checkpoint
    cosigners: CosignerSet
