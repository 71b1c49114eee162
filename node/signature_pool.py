"""Ed25519 checks in threads: libsodium releases the GIL, so two cores check twice as fast.

Work goes in chunks, since handing one signature to a thread costs as much as half a check.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from consensus.signatures import SignatureCache
from ledger.ed25519 import is_valid_signature

CHUNK_SIGNATURES = 32

SignatureJob = tuple[bytes, bytes, bytes]
"""(public_key, message, signature)."""


class SignaturePool:
    """Checks batches of signatures off the event loop. `cache` remembers those of votes."""

    def __init__(self, threads: int | None = None) -> None:
        self.cache = SignatureCache(is_valid_signature)
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

    async def warm(self, jobs: Sequence[SignatureJob]) -> None:
        """Check those that the cache does not know, so that it knows all that are valid."""
        unknown = self.unknown(jobs)
        for job, is_valid in zip(unknown, await self.check(unknown), strict=True):
            if is_valid:
                self.cache.remember(*job)

    def unknown(self, jobs: Sequence[SignatureJob]) -> list[SignatureJob]:
        """Those that would have to be checked."""
        return [job for job in jobs if not self.cache.knows(*job)]

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _check_chunk(jobs: Sequence[SignatureJob]) -> list[bool]:
    return [is_valid_signature(key, message, signature) for key, message, signature in jobs]
