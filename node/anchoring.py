"""Drives the audit pipeline: group-commits submissions, signs and sends anchor txs, files receipts.

The pipeline (`audit.pipeline`) decides and remembers; this gives it the clock, the anchor account's
key, the chain and the network. Submissions that arrive together share one synced write.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from audit.anchor import read_next_seq, verify_admission
from audit.batch import AnchorDraft
from audit.intake import Accepted, LeafPlace, Request, find_leaf
from audit.issue import build_receipt, issue_receipts
from audit.leaf import decode_stream_text, encode_leaves
from audit.pipeline import Pipeline
from audit.tree_store import LogTree
from ledger.accounts import read_account
from ledger.chain import Chain, Commit
from ledger.ed25519 import KeyPair
from ledger.errors import DurabilityError, InvalidInputError, ZynkError
from ledger.fees import sign_tx
from ledger.store import Store
from node import wire
from node.copies import UPCOMING_MAX, LeafCopies
from node.leaf_recovery import LeafRecovery
from node.txpool import TxPool
from p2p.link import P2PLink
from rpc.errors import not_found, not_ready
from rpc.params import text_of_bytes

VALID_FOR_BLOCKS = 200
RESEND_INTERVAL_S = 2.0
GROUP_COMMIT_S = 0.002
FLUSH_LEAVES_MAX = 2000
"""About 20 ms of the event loop, which consensus shares."""
PUMP_RETRY_S = 1.0
SUBMISSIONS_MAX = 4096
BATCH_STATES_CACHED_MAX = 1024

log = structlog.get_logger("audit")


class Anchoring:
    """One a node. All calls are on the event loop."""

    def __init__(
        self,
        *,
        chain: Chain,
        store: Store,
        log_tree: LogTree,
        key: KeyPair,
        txpool: TxPool,
        link: P2PLink,
        copies: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self.store = store
        self.account = key.public_key
        self._chain = chain
        self._key = key
        self._log = log_tree
        self._txpool = txpool
        self._on_failure = on_failure
        self._pipeline = Pipeline(store)
        self._loop = asyncio.get_running_loop()
        self._copies = LeafCopies(
            chain=chain,
            store=store,
            link=link,
            key=key,
            copies=copies,
            on_change=self._pump,
            on_failure=on_failure,
        )
        self._recovery = LeafRecovery(
            chain=chain,
            store=store,
            log_tree=log_tree,
            link=link,
            account=key.public_key,
            pipeline=self._pipeline,
            kept=self._copies.kept,
            on_change=self._issue_and_pump,
            on_failure=on_failure,
        )
        self._submissions: deque[tuple[Request, asyncio.Future[Accepted]]] = deque()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._is_started = False
        # Reading a batch of 1,024 groups takes 2 ms, as often as a leaf of it is asked for.
        self._batch_states: dict[int, tuple[str, int, str]] = {}

    # --- life ---

    def start(self) -> None:
        """Take in what the chain did while we were away, then go on."""
        self._pipeline.catch_up(self._chain.height, self._lookup)
        self._is_started = True
        self._recovery.start()
        self._pump()

    async def stop(self) -> None:
        self._is_started = False
        self._copies.stop()
        await self._recovery.stop()
        for timer in (self._flush_timer, self._tick_timer):
            if timer is not None:
                timer.cancel()
        for _, future in self._submissions:
            future.cancel()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    # --- clients ---

    async def submit(
        self, stream: str, multihashes: Sequence[bytes], request_id: str | None
    ) -> dict[str, Any]:
        """Accept leaves, durably. Raises InvalidInputError, TxFailure (why an anchor would fail),
        BackPressureError."""
        stream_id = decode_stream_text(stream)
        if not multihashes:
            raise InvalidInputError("no leaves", expected="1..1000 multihashes")
        verify_admission(self._chain.tree, stream_id, self.account, len(multihashes), _now_ms())
        if len(self._submissions) >= SUBMISSIONS_MAX:
            raise not_ready("too many submissions wait", reason="audit/busy")
        request = Request(
            stream=stream_id,
            leaves=tuple(encode_leaves(stream_id, multihashes)),
            request_id=request_id.encode() if request_id else os.urandom(16),
        )
        future: asyncio.Future[Accepted] = self._loop.create_future()
        self._submissions.append((request, future))
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(GROUP_COMMIT_S, self._flush)
        accepted = await future
        return {
            "stream": stream,
            "leaves": [self.status(leaf_hash) for leaf_hash in accepted.leaf_hashes],
        }

    def status(self, leaf_hash: bytes) -> dict[str, Any]:
        """How far a leaf has come."""
        place = find_leaf(self.store, leaf_hash)
        if place is None:
            return {"leaf": leaf_hash.hex(), "status": "unknown"}
        state, height, reason = self._state_of(place)
        answer: dict[str, Any] = {"leaf": leaf_hash.hex(), "status": state}
        if height:
            answer["height"] = height
        if reason:
            answer["reason"] = reason
        return answer

    def _state_of(self, place: LeafPlace) -> tuple[str, int, str]:
        if place.batch is None:
            return place.state(self.store)
        found = self._batch_states.get(place.batch)
        if found is None:
            found = place.state(self.store)
            if len(self._batch_states) >= BATCH_STATES_CACHED_MAX:
                self._batch_states.clear()
            self._batch_states[place.batch] = found
        return found

    def receipt(self, leaf_hash: bytes, trusted_height: int | None = None) -> dict[str, Any]:
        """The leaf's receipt; with `trusted_height` a fresh one from there. Raises RpcError: not
        found, or not ready yet."""
        status = self.status(leaf_hash)
        if status["status"] == "unknown":
            raise not_found("leaf", got=leaf_hash.hex())
        if status["status"] != "receipted":
            raise not_ready(
                f"the leaf has no receipt yet: it is {status['status']}",
                reason=f"audit/{status['status']}",
            )
        receipt = build_receipt(
            self._chain.view_at(self._chain.height, trusted_height or 0),
            self.store,
            leaf_hash,
            submitter=self.account,
            fresh_from=None if trusted_height is None else self._log,
        )
        return {
            "leaf": leaf_hash.hex(),
            "height": status["height"],
            "receipt": text_of_bytes(receipt),
        }

    def _flush(self) -> None:
        self._flush_timer = None
        waiting: list[tuple[Request, asyncio.Future[Accepted]]] = []
        room = FLUSH_LEAVES_MAX
        while self._submissions and room > 0:
            waiting.append(self._submissions.popleft())
            room -= len(waiting[-1][0].leaves)
        if self._submissions:  # the rest after others had their turn on the loop
            self._flush_timer = self._loop.call_later(0, self._flush)
        try:
            answers = self._pipeline.accept_many([request for request, _ in waiting], _now_ms())
        except Exception as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, DurabilityError):
                raise
            self._fail(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, ZynkError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._pump()

    # --- peers ---

    def on_message(self, peer: str, payload: bytes) -> None:
        """Channel 4: leaf lists. Raises InvalidInputError for what an honest peer does not send."""
        if payload[0] == wire.TAG_LIST:
            self._recovery.on_list(payload[1:])
        else:
            self._copies.on_message(peer, payload)

    # --- the chain ---

    def on_commit(self, commit: Commit) -> None:
        """A height is final here."""
        if not self._is_started:
            return
        try:
            codes = {result.tx_id: result.code for result in commit.results}
            self._pipeline.on_final(commit.height, codes)
            self._copies.on_commit(commit)
        except DurabilityError as error:
            self._fail(error)
            return
        finally:
            self._batch_states.clear()
        self._issue_and_pump()

    def _issue_and_pump(self) -> None:
        try:
            if self._pipeline.receipts_due():
                issue_receipts(
                    self._pipeline, self._chain.view(), self.store, self._log, self.account
                )
        except DurabilityError as error:
            self._fail(error)
            return
        finally:
            self._batch_states.clear()
        self._pump()

    def _lookup(self, tx_id: bytes) -> tuple[int, str] | None:
        location = self._chain.tx_location(tx_id)
        if location is None:
            return None
        height, index = location
        return height, self._chain.results(height)[index].code

    # --- anchoring ---

    def _pump(self) -> None:
        """Close batches that are due, start a send if there is something to send, set the next
        timer."""
        if not self._is_started:
            return
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        try:
            self._pipeline.tick(_now_ms())
            self._copies.spread(self._pipeline.upcoming(UPCOMING_MAX))
            if self._sending is None or self._sending.done():
                self._start_send()
        except DurabilityError as error:
            self._fail(error)
            return
        except Exception:  # a bug of ours: say so, and try again
            log.exception("anchoring failed; it goes on")
            self._tick_timer = self._loop.call_later(PUMP_RETRY_S, self._pump)
            return
        waits = []
        deadline = self._pipeline.deadline_ms
        if deadline is not None:
            waits.append(max(0.0, (deadline - _now_ms()) / 1000))
        if self._pipeline.pending_txs():
            waits.append(max(0.05, self._sent_at + RESEND_INTERVAL_S - self._loop.time()))
        if waits:
            self._tick_timer = self._loop.call_later(min(waits), self._pump)

    def _start_send(self) -> None:
        draft = self._pipeline.resign_due(self._chain.height) or self._pipeline.next_anchor(
            lambda stream: read_next_seq(self._chain.tree, stream, self.account),
            self._copies.is_copied,
        )
        if draft is not None:
            self._sign(draft)
        elif self._loop.time() - self._sent_at < RESEND_INTERVAL_S:
            return
        txs = self._pipeline.pending_txs()
        if txs:
            self._sent_at = self._loop.time()
            self._sending = self._loop.create_task(self._send(txs), name="anchor-send")

    def _sign(self, draft: AnchorDraft) -> None:
        tx = sign_tx(
            self._key,
            chain_id=self._chain.chain_id,
            nonce=read_account(self._chain.tree, self.account).nonce,
            valid_until=self._chain.height + VALID_FOR_BLOCKS,
            messages=draft.messages,
            params=self._chain.params,
        )
        self._pipeline.record_signed(draft, tx)

    async def _send(self, txs: list[bytes]) -> None:
        for outcome in await self._txpool.submit(txs):
            if isinstance(outcome, ZynkError):
                log.warning("anchor tx was refused; it will be sent again", error=str(outcome))

    def _fail(self, error: DurabilityError) -> None:
        self._is_started = False
        log.error("audit pipeline stopped", error=str(error))
        self._on_failure(f"audit store: {error}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
