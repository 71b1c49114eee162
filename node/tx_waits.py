"""Who waits for a tx to become final, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WAITERS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The tx is final here: its height and its index in the block."""

    height: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """The tx is no longer pending here and not final; `reason` is the refusal's code. Another
    validator may still hold it and make it final before its `valid_until`."""

    reason: str


Fate = Final | Dropped


class TxWaits:
    """Futures by tx id, shared by all who wait for it. All calls are on the event loop."""

    def __init__(self, fate_of: Callable[[bytes], Fate | None]) -> None:
        self._fate_of = fate_of
        self._waiters: dict[bytes, tuple[asyncio.Future[Fate], int]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, tx_ids: Iterable[bytes], timeout_s: float) -> dict[bytes, Fate]:
        """What became of each tx within `timeout_s`. Left out: those still pending then, and
        those that nobody else waits for while WAITERS_MAX are waited for."""
        waiters: dict[bytes, asyncio.Future[Fate]] = {}
        try:
            for tx_id in dict.fromkeys(tx_ids):
                waiter = self._join(tx_id)
                if waiter is not None:
                    waiters[tx_id] = waiter
            if waiters:
                await asyncio.wait(waiters.values(), timeout=timeout_s)
            return {
                tx_id: waiter.result()
                for tx_id, waiter in waiters.items()
                if waiter.done() and not waiter.cancelled()
            }
        finally:
            for tx_id, waiter in waiters.items():  # not those left out: others may wait for them
                self._leave(tx_id, waiter)

    def tell(self, tx_id: bytes, fate: Fate) -> None:
        """Wake those who wait for a tx. Who begins to wait after this is not told of it."""
        waiter, _ = self._waiters.pop(tx_id, (None, 0))
        if waiter is not None and not waiter.done():
            waiter.set_result(fate)

    def cancel(self) -> None:
        """The node stops: everybody gets what is known by now."""
        for waiter, _ in self._waiters.values():
            waiter.cancel()

    def _join(self, tx_id: bytes) -> asyncio.Future[Fate] | None:
        waiter, count = self._waiters.get(tx_id, (None, 0))
        if waiter is None:
            fate = self._fate_of(tx_id)
            if fate is None and len(self._waiters) >= WAITERS_MAX:
                return None
            waiter = asyncio.get_running_loop().create_future()
            if fate is not None:
                waiter.set_result(fate)
                return waiter
        self._waiters[tx_id] = (waiter, count + 1)
        return waiter

    def _leave(self, tx_id: bytes, waiter: asyncio.Future[Fate]) -> None:
        held, count = self._waiters.get(tx_id, (None, 0))
        if held is not waiter:
            return  # it was told, and others may wait for the tx anew
        if count > 1:
            self._waiters[tx_id] = (waiter, count - 1)
        else:
            del self._waiters[tx_id]
