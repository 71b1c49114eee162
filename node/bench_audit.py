"""Load on the audit log of a running network: leaves accepted durably, and the time to a receipt.

Groups of 1,000 leaves go to the nodes in turn at a steady rate. A leaf counts once its node says
that it is receipted; the time is from the request's intended start, so that a node that falls
behind shows. At the end receipts of random leaves are fetched and verified offline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from audit.leaf import SHA2_256, decode_stream_text, encode_multihash
from audit.verify import verify_receipt
from ledger.errors import ZynkError
from ledger.validator_set import ValidatorSet
from node.anchor_client import fetch_receipts
from node.bench import percentile
from rpc.client import RpcClient
from rpc.errors import RpcError
from rpc.params import text_of_bytes

GROUP_LEAVES = 1000
POLL_S = 0.05
DRAIN_S = 30.0
VERIFIED = 200
IN_FLIGHT_MAX = 16
"""Requests that one node has not answered; the next ones wait and count as late."""

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTarget:
    """Nodes that may anchor in `stream`, and what their receipts must lead to."""

    urls: Sequence[str]
    stream: str
    chain_id: str
    trusted: ValidatorSet


@dataclass(slots=True)
class _Group:
    """`began_s` as intended; `leaf` is one of its leaf hashes, `multihashes` all contents."""

    began_s: float
    multihashes: list[bytes]
    leaves: list[str] = field(default_factory=list)
    accepted_s: float = 0.0
    receipted_s: float = 0.0


class _Node:
    """One node under load."""

    def __init__(self, url: str, stream: str) -> None:
        self.client = RpcClient(url)
        self.groups: list[_Group] = []
        self.busy = 0
        self._stream = stream
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def submit(self, group: _Group) -> None:
        async with self._room:
            leaves = [text_of_bytes(multihash) for multihash in group.multihashes]
            request_id = group.multihashes[0][-16:].hex()
            while True:
                try:
                    answer = await self.client.call(
                        "audit_submit", stream=self._stream, leaves=leaves, request_id=request_id
                    )
                    break
                except RpcError as error:
                    if not error.retry:
                        raise
                    self.busy += 1
                    await asyncio.sleep(POLL_S)
        group.accepted_s = time.perf_counter()
        group.leaves = [leaf["leaf"] for leaf in answer["leaves"]]
        self.groups.append(group)

    async def watch(self) -> None:
        """Note when groups are receipted: the last leaf of each is asked for."""
        while True:
            waiting = [group for group in self.groups if not group.receipted_s]
            if waiting:
                answer = await self.client.call(
                    "audit_status", leaves=[group.leaves[-1] for group in waiting[:1000]]
                )
                now = time.perf_counter()
                for group, status in zip(waiting, answer["leaves"], strict=False):
                    if status["status"] == "receipted":
                        group.receipted_s = now
                    elif status["status"] == "rejected":
                        raise ZynkError("a leaf was rejected", got=str(status))
            await asyncio.sleep(POLL_S)


async def measure_audit(
    target: AuditTarget, *, leaves_per_s: float, seconds: float, progress: Progress
) -> dict[str, Any]:
    """Leaves a second that were accepted and receipted at the offered rate, and milliseconds to
    the answer and to the receipt. Raises ZynkError if a receipt does not hold."""
    nodes = [_Node(url, target.stream) for url in target.urls]
    rng = random.Random(time.time_ns())  # noqa: S311  # contents, not secrets
    watchers = [asyncio.create_task(node.watch()) for node in nodes]
    try:
        began = time.perf_counter()
        tasks = []
        count = int(leaves_per_s * seconds / GROUP_LEAVES)
        for turn in range(count):
            at = began + turn * GROUP_LEAVES / leaves_per_s
            group = _Group(
                at, [encode_multihash(SHA2_256, rng.randbytes(32)) for _ in range(GROUP_LEAVES)]
            )
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(asyncio.create_task(nodes[turn % len(nodes)].submit(group)))
            progress(turn / count)
        await asyncio.gather(*tasks)
        await _drain(nodes, watchers)
        await _verify(target, nodes, rng)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for node in nodes:
            await node.client.close()
    groups = [group for node in nodes for group in node.groups]
    accepted = sorted((group.accepted_s - group.began_s) * 1000 for group in groups)
    receipted = sorted((group.receipted_s - group.began_s) * 1000 for group in groups)
    return {
        "leaves_per_s": round(
            GROUP_LEAVES * len(groups) / (max(g.receipted_s for g in groups) - began)
        ),
        "offered_per_s": leaves_per_s,
        "accepted_p50_ms": percentile(accepted, 50),
        "accepted_p99_ms": percentile(accepted, 99),
        "receipt_p50_ms": percentile(receipted, 50),
        "receipt_p99_ms": percentile(receipted, 99),
        "leaves": GROUP_LEAVES * len(groups),
        "refused_busy": sum(node.busy for node in nodes),
        "verified": VERIFIED,
        "nodes": len(nodes),
    }


async def _drain(nodes: Sequence[_Node], watchers: Sequence[asyncio.Task[None]]) -> None:
    deadline = time.perf_counter() + DRAIN_S
    while any(not group.receipted_s for node in nodes for group in node.groups):
        for watcher in watchers:
            if watcher.done():
                watcher.result()
        if time.perf_counter() > deadline:
            raise ZynkError("leaves have no receipt", expected=f"within {DRAIN_S:.0f} s")
        await asyncio.sleep(POLL_S)


async def _verify(target: AuditTarget, nodes: Sequence[_Node], rng: random.Random) -> None:
    """Receipts of random leaves hold offline."""
    for node in nodes:
        chosen: dict[bytes, bytes] = {}
        for _ in range(VERIFIED // len(nodes)):
            group = rng.choice(node.groups)
            place = rng.randrange(GROUP_LEAVES)
            chosen[bytes.fromhex(group.leaves[place])] = group.multihashes[place]
        receipts = await fetch_receipts(node.client, list(chosen), progress=lambda _: None)
        for leaf, multihash in chosen.items():
            verdict = verify_receipt(
                receipts[leaf],
                multihash=multihash,
                trusted=target.trusted,
                chain_id=target.chain_id,
                stream=decode_stream_text(target.stream),
            )
            if not verdict.is_ok:
                raise ZynkError("a receipt does not hold", got=str(verdict))
