"""Token buckets: how much a peer may send, counted in frames and bytes.

A bucket may go into debt: whoever was charged waits until the debt is paid, so that a frame larger
than what is left still passes, and what follows it waits longer. Pure: time comes in.
"""

from __future__ import annotations

BURST_S = 4.0
"""A full bucket holds what it gains in this time."""


class TokenBucket:
    """Gains `per_s` tokens a second up to `burst` (by default those of `BURST_S`)."""

    __slots__ = ("_burst", "_per_s", "_then_s", "_tokens")

    def __init__(self, per_s: float, now_s: float, burst: float | None = None) -> None:
        self._per_s = per_s
        self._burst = per_s * BURST_S if burst is None else burst
        self._tokens = self._burst
        self._then_s = now_s

    def _fill(self, now_s: float) -> None:
        gained = max(now_s - self._then_s, 0.0) * self._per_s
        self._tokens = min(self._burst, self._tokens + gained)
        self._then_s = now_s

    def spend(self, amount: float, now_s: float) -> float:
        """Take tokens, into debt if need be; the seconds until the debt is paid, 0 if none."""
        self._fill(now_s)
        self._tokens -= amount
        return max(-self._tokens / self._per_s, 0.0)

    def take(self, amount: float, now_s: float) -> bool:
        """Take tokens if there are enough."""
        self._fill(now_s)
        if self._tokens < amount:
            return False
        self._tokens -= amount
        return True


class Allowance:
    """What one peer, or a group of them, may send: frames and bytes."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self, *, frames_per_s: float, bytes_per_s: float, now_s: float) -> None:
        self._frames = TokenBucket(frames_per_s, now_s)
        self._bytes = TokenBucket(bytes_per_s, now_s)

    def spend(self, size: int, now_s: float) -> float:
        """Charge one frame; the seconds its sender must wait before the next."""
        return max(self._frames.spend(1, now_s), self._bytes.spend(size, now_s))

    def take(self, size: int, now_s: float) -> bool:
        """Charge one frame if that makes no debt: for what can be refused, but not delayed."""
        return self._frames.take(1, now_s) and self._bytes.take(size, now_s)
