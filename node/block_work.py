"""Building and judging blocks for consensus: what takes time, or meets a bug of a message handler.

The answers are inputs of the core (`BlockBuilt`, `BlockJudged`) and may come later than the call:
a block with txs or late votes that are new here is judged once their signatures are checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from consensus import effects as fx
from consensus import inputs
from ledger.block import Block
from ledger.chain import BlockTooEarly, Chain
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import BlockFacts, HandlerError
from ledger.tx import Tx
from node.block_facts import late_votes_of
from node.signature_pool import SignatureJob
from node.txpool import TxPool

BUILD_TRIES_MAX = 16
"""To build one block: each but the last bars one tx that a handler can not run."""
JUDGING_MAX = 16
"""Blocks whose txs or votes are being checked."""

log = structlog.get_logger("consensus")


class NoteFailure(Protocol):
    """Called while an exception is handled: count and log a bug of ours."""

    def __call__(self, what: str, **details: object) -> None: ...


class BlockWork:
    """See the module docstring. `make_facts` says what a block made at a time states besides its
    txs; `feed` takes the answers."""

    def __init__(
        self,
        *,
        chain: Chain,
        txpool: TxPool,
        make_facts: Callable[[int], BlockFacts],
        wall_ms: Callable[[], int],
        feed: Callable[[inputs.Input], None],
        note_failure: NoteFailure,
    ) -> None:
        self.make_facts = make_facts
        self._chain = chain
        self._txpool = txpool
        self._wall_ms = wall_ms
        self._feed = feed
        self._note_failure = note_failure
        self._judging: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Nothing more is answered."""
        for task in self._judging:
            task.cancel()

    def build(self, effect: fx.BuildBlock) -> None:
        """Answer with a block, or None if there can be none."""
        block = None
        if effect.height == self._chain.height + 1:
            try:
                block = self._build_around_bugs(effect.view)
            except UsageError:  # the operator's to mend; others lead on
                self._note_failure("no block could be built", height=effect.height)
        self._feed(inputs.BlockBuilt(height=effect.height, view=effect.view, block=block))

    def _build_around_bugs(self, view: int) -> Block:
        """A block of what is pending. A tx that a handler can not run is barred, since it would
        keep every leader that holds it from proposing; after some of them the block is empty."""
        params = self._chain.params
        time_ms = self._wall_ms()
        facts = self.make_facts(time_ms)
        for tries_left in reversed(range(BUILD_TRIES_MAX)):
            candidates = self._txpool.mempool.candidates(
                bytes_max=params.block_bytes_max, count_max=params.block_txs_max
            )
            try:
                return self._chain.build(
                    view=view,
                    facts=facts,
                    time_ms=time_ms,
                    candidates=candidates if tries_left else (),
                )
            except HandlerError as error:
                self._note_failure("a tx can not be executed; it is barred", tx=error.tx_id.hex())
                self._txpool.bar(error.tx_id)
        raise AssertionError("a block without txs runs no handler")

    def judge(self, block: Block, fresh: bool) -> None:
        """Answer with a verdict; `fresh`: the block's time is held against the clock."""
        txs = self._txpool.pending_txs(block.tx_ids)
        votes = self._txpool.signatures.unknown(late_votes_of(self._chain, block))
        if txs is not None and not votes:
            self._feed(self._verdict(block, txs, fresh))
            return
        if len(self._judging) >= JUDGING_MAX:
            self._feed(inputs.BlockJudged(block_hash=block.hash, verdict=inputs.Verdict.EARLY))
            return
        task = asyncio.get_running_loop().create_task(
            self._judge_unseen(block, votes, fresh), name="judge"
        )
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _judge_unseen(self, block: Block, votes: Sequence[SignatureJob], fresh: bool) -> None:
        try:
            txs = await self._txpool.verified_txs(block.txs, votes)
        except InvalidInputError as error:
            log.warning("block refused", height=block.height, error=str(error))
            self._feed(inputs.BlockJudged(block_hash=block.hash, verdict=inputs.Verdict.INVALID))
        else:
            self._feed(self._verdict(block, txs, fresh))

    def _verdict(self, block: Block, txs: Sequence[Tx], fresh: bool) -> inputs.BlockJudged:
        verdict = inputs.Verdict.VALID
        try:
            self._chain.judge(block, txs, now_ms=self._wall_ms() if fresh else None)
        except BlockTooEarly:
            verdict = inputs.Verdict.EARLY
        except InvalidInputError as error:
            log.warning("block refused", height=block.height, error=str(error))
            verdict = inputs.Verdict.INVALID
        except Exception:  # a bug of ours: no vote for what we can not judge
            self._note_failure("a block can not be judged", height=block.height)
            verdict = inputs.Verdict.INVALID
        return inputs.BlockJudged(block_hash=block.hash, verdict=verdict)
