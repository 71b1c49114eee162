"""When a node finalised each height, and how long each took: what "the chain goes on" means."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from consensus.leader import leader
from ledger.validator_set import ValidatorSet
from node.config import ConsensusSettings
from rpc.client import RpcClient

SLOW_HEIGHT_S = 2.0
VIEW_TIMEOUT_BASE_S = ConsensusSettings().view_timeout_base_ms / 1000
VIEW_TIMEOUT_MAX_S = ConsensusSettings().view_timeout_max_ms / 1000


class HeightClock:
    """An asynchronous context that listens to a node's blocks. `at_s` is monotonic seconds by
    height, `hashes` the block hash that the node announced for it."""

    def __init__(self, url: str) -> None:
        self.at_s: dict[int, float] = {}
        self.hashes: dict[int, str] = {}
        self._url = url
        self._is_listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        await self._is_listening.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with RpcClient(self._url) as client, client.subscribe("blocks") as events:
            self._is_listening.set()
            async for event in events:
                self.at_s[int(event["height"])] = time.monotonic()
                self.hashes[int(event["height"])] = str(event["hash"])

    def since(self, start_s: float) -> list[int]:
        """Heights that became final after `start_s`."""
        return [height for height, at_s in self.at_s.items() if at_s > start_s]


def compute_gaps(
    at_s: Mapping[int, float], start_s: float, end_s: float
) -> tuple[dict[int, float], float]:
    """How long each height that became final within (start, end] took since the one before it,
    which may lie before the start; and how long the one in work has taken at the end. A chain that
    stops at the start has no height and one long wait."""
    points = sorted((at, height) for height, at in at_s.items() if at <= end_s)
    gaps = {
        height: at - before
        for (before, _), (at, height) in itertools.pairwise(points)
        if at > start_s
    }
    return gaps, end_s - (points[-1][0] if points else start_s)


def is_going_on(gaps: Mapping[int, float], waiting_s: float) -> bool:
    """95% of heights took under 2 s. The one in work counts once it has taken longer."""
    took = [*gaps.values(), *([waiting_s] if waiting_s >= SLOW_HEIGHT_S else [])]
    fast = sum(gap < SLOW_HEIGHT_S for gap in took)
    return bool(gaps) and 100 * fast >= 95 * len(took)


def absent_leaders(
    seed: bytes, validators: ValidatorSet, absent: bytes, final_view: int
) -> list[bool]:
    """For each view of a height up to the one it was final in: whether `absent` leads it."""
    return [
        leader(seed, view, validators, validators) == absent for view in range(1, final_view + 1)
    ]


def compute_longest_s(absent: Sequence[bool]) -> float:
    """The longest that a height may take: the views of absent leaders time out, and for the rest
    (a view that a living leader lost on a busy machine included) it has the time of any height."""
    limit_s = SLOW_HEIGHT_S
    for doublings, is_absent in enumerate(absent):
        if is_absent:
            limit_s += min(VIEW_TIMEOUT_BASE_S * (1 << doublings), VIEW_TIMEOUT_MAX_S)
    return limit_s
