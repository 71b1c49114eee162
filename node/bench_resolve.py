"""Load on a node's DID resolver: resolves a second, and latency at a steady rate.

The load generator speaks HTTP/1.1 over kept-alive connections by itself, one request at a time on
each, so that it costs little beside the server that it shares the machine with. Every answer must
be a 200 about the DID; one in `VERIFY_EVERY` of those with proof is verified from the trusted set.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from did.verify import Outcome, decode_answer, verify_resolution
from ledger.errors import InvalidInputError, ZynkError
from ledger.validator_set import ValidatorSet

CONNECTIONS = 16
VERIFY_EVERY = 100
TIMEOUT_S = 10.0
WITH_PROOF = "application/did-resolution"
PLAIN = "application/did"

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The node, the DIDs that it knows, and the set to verify its answers from."""

    url: str
    dids: Sequence[str]
    chain_id: str
    trusted: ValidatorSet


@dataclass(slots=True)
class _Tally:
    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    verified: int = 0
    bytes: int = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


async def measure_resolve(target: Target, *, seconds: float, progress: Progress) -> dict[str, Any]:
    """{plain_per_s, with_proof_per_s, p50_ms, p99_ms (with proof, at half of that rate), ...}. DIDs
    are drawn uniformly. Raises ZynkError for a wrong answer."""
    plain = await _flat_out(target, PLAIN, seconds, lambda share: progress(share / 3))
    proven = await _flat_out(target, WITH_PROOF, seconds, lambda share: progress((1 + share) / 3))
    rate = proven.rate / 2
    paced = await _paced(target, WITH_PROOF, seconds, rate, lambda share: progress((2 + share) / 3))
    latencies = sorted(paced.latencies_ms)
    return {
        "plain_per_s": round(plain.rate, 1),
        "with_proof_per_s": round(proven.rate, 1),
        "p50_ms": round(latencies[len(latencies) // 2], 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100], 2),
        "half_load_per_s": round(rate, 1),
        "dids": len(target.dids),
        "verified": proven.verified + paced.verified,
        "answer_bytes": proven.bytes // max(1, len(proven.latencies_ms)),
        "connections": CONNECTIONS,
        "seconds": seconds,
    }


async def _flat_out(target: Target, accept: str, seconds: float, progress: Progress) -> _Tally:
    """Each connection asks again as soon as it has its answer."""
    tally, start = _Tally(), time.perf_counter()
    end = start + seconds

    async def ask(number: int) -> None:
        draw = _draw_of(f"{accept} {number}")
        async with _Connection(target.url, accept) as connection:
            while (began := time.perf_counter()) < end:
                await _resolve(connection, target, draw.choice(target.dids), tally, began)
                if number == 0:
                    progress(1 - (end - began) / seconds)

    await asyncio.gather(*(ask(number) for number in range(CONNECTIONS)))
    tally.seconds = time.perf_counter() - start
    return tally


async def _paced(
    target: Target, accept: str, seconds: float, rate: float, progress: Progress
) -> _Tally:
    """Requests begin at fixed times, whether or not earlier ones are answered: one that has to wait
    for a connection counts that wait."""
    tally, began = _Tally(), time.perf_counter()
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def ask(number: int) -> None:
        draw = _draw_of(f"paced {number}")
        async with _Connection(target.url, accept) as connection:
            while (at := await due.get()) is not None:
                await _resolve(connection, target, draw.choice(target.dids), tally, at)

    async def pace() -> None:
        for index in range(int(rate * seconds)):
            at = began + index / rate
            if (pause := at - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            due.put_nowait(at)
            progress(index / (rate * seconds))
        for _ in range(CONNECTIONS):
            due.put_nowait(None)

    await asyncio.gather(pace(), *(ask(number) for number in range(CONNECTIONS)))
    tally.seconds = time.perf_counter() - began
    return tally


def _draw_of(seed: str) -> random.Random:
    """Another sequence for each connection and load: no load asks for what the one before it has
    just put into the node's caches."""
    return random.Random(seed)  # noqa: S311  which DID is asked for is no secret


async def _resolve(
    connection: _Connection, target: Target, did: str, tally: _Tally, began: float
) -> None:
    body = await connection.get(f"/1.0/identifiers/{did}")
    tally.latencies_ms.append(1000 * (time.perf_counter() - began))
    tally.bytes += len(body)
    if did.encode() not in body:
        raise ZynkError("the answer is not about the DID", expected=did, got=repr(body[:200]))
    if connection.accept == WITH_PROOF and len(tally.latencies_ms) % VERIFY_EVERY == 0:
        verdict = verify_resolution(
            decode_answer(body),
            did=did,
            trusted=target.trusted,
            chain_id=target.chain_id,
            max_age_ms=None,
            now_ms=None,
        )
        if verdict.outcome is not Outcome.FOUND:
            raise ZynkError("the node hides a DID", expected="found", got=verdict.outcome.value)
        tally.verified += 1


class _Connection:
    """One kept-alive connection that asks and waits for the answer."""

    def __init__(self, url: str, accept: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise InvalidInputError("address is malformed", expected="http://HOST:PORT", got=url)
        self.accept = accept
        self._address = (parts.hostname, parts.port or 80)
        self._end = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n\r\n".encode()

    async def __aenter__(self) -> _Connection:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def get(self, path: str) -> bytes:
        """The body of a 200 answer. Raises ZynkError for another status, TimeoutError."""
        self._writer.write(b"GET " + path.encode() + self._end)
        async with asyncio.timeout(TIMEOUT_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ZynkError("resolver refuses", expected="200", got=head[:60].decode("latin-1"))
            lower = head.lower()
            start = lower.index(b"content-length:") + len(b"content-length:")
            return await self._reader.readexactly(int(lower[start : lower.index(b"\r", start)]))
