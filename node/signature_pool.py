"""Ed25519 checks in threads: libsodium releases the GIL, so two cores check twice as fast.

Work goes in chunks, since handing one signature to a thread costs as much as half a check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ledger.ed25519 import is_valid_signature

CHUNK_SIGNATURES = 32

SignatureJob = tuple[bytes, bytes, bytes]
"""(public_key, message, signature)."""


class SignaturePool:
    """Checks batches of signatures off the event loop."""

    def __init__(self, threads: int | None = None) -> None:
        self._executor = ThreadPoolExecutor(
            max_workers=threads or min(4, os.cpu_count() or 1), thread_name_prefix="signatures"
        )

    async def check(self, jobs: Sequence[SignatureJob]) -> list[bool]:
        """One verdict a job, in order."""
        if len(jobs) <= 2:
            return _check_chunk(jobs)
        loop = asyncio.get_running_loop()
        chunks = [jobs[i : i + CHUNK_SIGNATURES] for i in range(0, len(jobs), CHUNK_SIGNATURES)]
        verdicts = await asyncio.gather(
            *(loop.run_in_executor(self._executor, _check_chunk, chunk) for chunk in chunks)
        )
        return [verdict for chunk in verdicts for verdict in chunk]

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _check_chunk(jobs: Sequence[SignatureJob]) -> list[bool]:
    return [is_valid_signature(key, message, signature) for key, message, signature in jobs]
