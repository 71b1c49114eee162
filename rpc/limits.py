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
    """A token bucket an IP: a cost of `per_s` a second, a burst of as much. 0 allows everything.

    A request larger than the burst is let in when the bucket is full and leaves it in debt, so
    that the average holds without making large batches impossible.
    """

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._bucket_by_ip: dict[str, _Bucket] = {}

    def take(self, ip: str, count: int) -> bool:
        """True if what costs `count` may go on now."""
        if self._per_s == 0:
            return True
        bucket = self._refilled(ip)
        if bucket.tokens < min(count, self._per_s):
            return False
        bucket.tokens -= count
        return True

    def charge(self, ip: str, count: int) -> None:
        """What was let in turned out to cost `count` more: the bucket goes into debt."""
        if self._per_s != 0:
            self._refilled(ip).tokens -= count

    def _refilled(self, ip: str) -> _Bucket:
        now = self._clock()
        bucket = self._bucket_by_ip.get(ip)
        if bucket is None:
            if len(self._bucket_by_ip) >= BUCKETS_MAX:
                self._forget_full(now)
            bucket = self._bucket_by_ip[ip] = _Bucket(self._per_s, now)
        bucket.tokens = min(self._per_s, bucket.tokens + (now - bucket.at_s) * self._per_s)
        bucket.at_s = now
        return bucket

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


class ByteBudget:
    """Bytes held at a time: by everybody, and by one address at most its share."""

    def __init__(self, what: str, bytes_max: int, per_ip_max: int) -> None:
        self._what = what
        self._bytes_left = bytes_max
        self._per_ip_max = per_ip_max
        self._bytes_by_ip: Counter[str] = Counter()

    @property
    def bytes_held(self) -> int:
        """By everybody, now."""
        return self._bytes_by_ip.total()

    def hold(self, ip: str) -> Reservation:
        """An empty reservation; leaving its `with` block gives its bytes back."""
        return Reservation(self, ip)

    def has_room(self, ip: str, byte_count: int) -> bool:
        return byte_count <= min(self._bytes_left, self._per_ip_max - self._bytes_by_ip[ip])

    def refusal(self) -> RpcError:
        return RpcError(RpcCode.RATE_LIMITED, f"too many {self._what} at a time")

    def change(self, ip: str, byte_count: int) -> None:
        """Count bytes without asking for room."""
        self._bytes_left -= byte_count
        self._bytes_by_ip[ip] += byte_count
        if self._bytes_by_ip[ip] == 0:
            del self._bytes_by_ip[ip]


class Reservation:
    """Bytes of a ByteBudget that one request holds."""

    def __init__(self, budget: ByteBudget, ip: str) -> None:
        self._budget = budget
        self._ip = ip
        self._byte_count = 0

    def check(self) -> None:
        """Raises RpcError RATE_LIMITED if not one byte has room now."""
        if not self._budget.has_room(self._ip, 1):
            raise self._budget.refusal()

    def add(self, byte_count: int) -> None:
        """Raises RpcError RATE_LIMITED if there is no room now."""
        if not self._budget.has_room(self._ip, byte_count):
            raise self._budget.refusal()
        self.settle(self._byte_count + byte_count)

    def settle(self, byte_count: int) -> None:
        """What is held is really `byte_count`: no more than was added, but for a few words."""
        if byte_count != self._byte_count:
            self._budget.change(self._ip, byte_count - self._byte_count)
            self._byte_count = byte_count

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        self.settle(0)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
