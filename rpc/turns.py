"""Turns of the event loop: RPC work is done in slices, so that consensus is never held up for long.

All of a server's calls share one loop with consensus. Whoever is about to do work that does not
suspend (parse a body, run a call, encode a result) takes a turn first. Between two passes of the
loop turns are given for `slice_s`; who comes later waits, first come first served, for the pass
after. So a batch of a thousand calls, or a thousand callers, cost the loop `slice_s` and one turn's
work a pass, however many they are. At least one turn is given in each pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

WAKE_MAX = 64
"""Turns offered in a pass; those that find the slice used up keep their place."""


class Turns:
    """Belongs to one event loop at a time."""

    def __init__(self, slice_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._slice_s = slice_s
        self._clock = clock
        self._began_s: float | None = None
        self._is_watched = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._came_late: list[asyncio.Future[None]] = []

    async def take(self) -> None:
        """Return when the caller may work: at once while this pass has time left."""
        if not self._waiting and self._has_time():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._watch()
        await turn
        while not self._has_time():
            turn = asyncio.get_running_loop().create_future()
            self._came_late.append(turn)
            await turn

    def _has_time(self) -> bool:
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
            self._watch()
            return True
        return now_s - self._began_s < self._slice_s

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().call_soon(self._on_next_pass)

    def _on_next_pass(self) -> None:
        self._is_watched = False
        self._began_s = None
        self._waiting.extendleft(reversed(self._came_late))
        self._came_late.clear()
        if not self._waiting:
            return
        for _ in range(min(WAKE_MAX, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled: the caller is gone
                turn.set_result(None)
        self._watch()
