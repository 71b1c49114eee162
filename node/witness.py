"""Pushes published checkpoints to an outside witness, and puts its cosignature on them.

One pusher a witness, on its own: it takes the newest checkpoint, never a queue of them, and
whatever the witness does (refuses, stalls, goes away, names another size) costs this task alone.
After a failure it waits, twice as long each time, and then tries with the newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from audit.cosignatures import Board
from audit.note import NoteSignature
from audit.tree_store import LogTree
from audit.witness import (
    OtherSize,
    Witness,
    WitnessAnswer,
    WitnessRefusal,
    encode_request,
    read_answer,
)
from rpc.errors import RpcConnectionError

ASKS_A_CHECKPOINT_MAX = 3
"""One that tells its size, one from there, one more if somebody else was faster."""
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 300.0

Post = Callable[[str, bytes], Awaitable[WitnessAnswer]]
"""(URL, body) -> answer. Raises RpcConnectionError."""

log = structlog.get_logger("audit")


class WitnessPusher:
    """See the module docstring."""

    def __init__(self, witness: Witness, log_tree: LogTree, post: Post) -> None:
        self.witness = witness
        self.cosigned_total = 0
        self.failures_total = 0
        self.failure = ""
        """Why the last attempt failed; empty if it did not."""
        self._log_tree = log_tree
        self._post = post
        self._known_size = 0
        self._board: Board | None = None
        self._has_news = asyncio.Event()
        self._retry_s = RETRY_FIRST_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        name = f"witness {self.witness.key.name}"
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def offer(self, board: Board) -> None:
        """A checkpoint was published; it takes the place of one that waits."""
        self._board = board
        self._has_news.set()

    async def _run(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            board = self._board
            if board is None:
                continue
            try:
                line = await self._ask(board)
            except (RpcConnectionError, WitnessRefusal) as error:
                await self._wait_after(str(error), error)
                continue
            except Exception as error:  # a bug of ours must not end the task
                log.exception("a checkpoint could not be pushed", witness=self.witness.key.name)
                await self._wait_after(f"internal error: {error!r}", error)
                continue
            self._retry_s, self.failure = RETRY_FIRST_S, ""
            if line is not None:
                self.cosigned_total += 1
                board.add_witness(line)

    async def _ask(self, board: Board) -> NoteSignature | None:
        """The witness's line; None if it has seen a larger log already. Raises WitnessRefusal,
        RpcConnectionError."""
        size = board.checkpoint.tree_size
        for _ in range(ASKS_A_CHECKPOINT_MAX):
            old = self._known_size
            proof = self._log_tree.consistency_proof(old, size) if 0 < old <= size else []
            answer = await self._post(
                f"{self.witness.url}/add-checkpoint",
                encode_request(min(old, size), proof, board.log_note),
            )
            found = read_answer(answer, board.checkpoint.body(), self.witness.key)
            if not isinstance(found, OtherSize):
                self._known_size = size
                return found
            self._known_size = found.size
            if found.size > size:
                return None
        raise WitnessRefusal("the witness names another size each time", got=str(self._known_size))

    async def _wait_after(self, reason: str, error: Exception) -> None:
        """Note the failure and wait; then the newest checkpoint is tried."""
        self.failures_total += 1
        if isinstance(error, WitnessRefusal) and error.is_inconsistent:
            log.error(
                "a witness says that the log is not the one it knows",
                witness=self.witness.key.name,
                reason=reason,
            )
        elif not self.failure:
            log.warning("a witness does not cosign", witness=self.witness.key.name, reason=reason)
        self.failure = reason
        wait_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RETRY_MAX_S)
        await asyncio.sleep(wait_s)
        self._has_news.set()
