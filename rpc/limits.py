"""Bounds on what one address, or everybody, may take of the server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rpc.errors import RpcCode, RpcError

BUCKETS_MAX = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class RateLimiter:
    """A token bucket an IP: `per_s` calls a second, a burst of as many. 0 allows everything.

    A request larger than the burst is let in when the bucket is full and leaves it in debt, so
    that the average holds without making large batches impossible.
    """

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._bucket_by_ip: dict[str, _Bucket] = {}

    def take(self, ip: str, count: int) -> bool:
        """True if `count` calls may go on now."""
        if self._per_s == 0:
            return True
        now = self._clock()
        bucket = self._bucket_by_ip.get(ip)
        if bucket is None:
            if len(self._bucket_by_ip) >= BUCKETS_MAX:
                self._forget_full(now)
            bucket = self._bucket_by_ip[ip] = _Bucket(self._per_s, now)
        bucket.tokens = min(self._per_s, bucket.tokens + (now - bucket.at_s) * self._per_s)
        bucket.at_s = now
        if bucket.tokens < min(count, self._per_s):
            return False
        bucket.tokens -= count
        return True

    def _forget_full(self, now: float) -> None:
        """Drop those that have refilled; failing that, all (addresses are then spoofed)."""
        self._bucket_by_ip = {
            ip: bucket
            for ip, bucket in self._bucket_by_ip.items()
            if bucket.tokens + (now - bucket.at_s) * self._per_s < self._per_s
        }
        if len(self._bucket_by_ip) >= BUCKETS_MAX:
            self._bucket_by_ip.clear()


class ConnectionCounter:
    """Open connections, in all and by IP."""

    def __init__(self, count_max: int, per_ip_max: int) -> None:
        self._count_max = count_max
        self._per_ip_max = per_ip_max
        self._count_by_ip: Counter[str] = Counter()
        self.count = 0

    def is_full(self, ip: str) -> bool:
        """True if one more connection of this IP is too many."""
        return self.count >= self._count_max or self._count_by_ip[ip] >= self._per_ip_max

    def add(self, ip: str) -> None:
        self.count += 1
        self._count_by_ip[ip] += 1

    def remove(self, ip: str) -> None:
        self.count -= 1
        self._count_by_ip[ip] -= 1
        if self._count_by_ip[ip] <= 0:
            del self._count_by_ip[ip]


class BodyBudget:
    """Bytes of request bodies held at a time, by everybody."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max

    def reserve(self, byte_count: int) -> None:
        """Raises RpcError RATE_LIMITED if there is no room now."""
        if byte_count > self._bytes_left:
            raise RpcError(RpcCode.RATE_LIMITED, "too many large requests at a time")
        self._bytes_left -= byte_count

    def release(self, byte_count: int) -> None:
        self._bytes_left += byte_count
