"""Counts each peer's faults and says when to drop it.

One fault may be a bug or an old version; many in a minute are not. A dropped peer may come back
(the peer book backs off); nothing here can stop the node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

OFFENCES_MAX = 20
WINDOW_S = 60.0
PEERS_MAX = 1024


class Offences:
    """`on_drop(peer, reason)` is called when a peer passes the limit. `clock` is in seconds."""

    def __init__(self, *, clock: Callable[[], float], on_drop: Callable[[str, str], None]) -> None:
        self.total = 0
        self._clock = clock
        self._on_drop = on_drop
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, peer: str, reason: str) -> None:
        """One more fault of `peer`."""
        self.total += 1
        now = self._clock()
        began, count = self._counts.pop(peer, (now, 0))
        if now - began > WINDOW_S:
            began, count = now, 0
        if count + 1 >= OFFENCES_MAX:
            self._on_drop(peer, reason)
            return
        self._counts[peer] = (began, count + 1)
        if len(self._counts) > PEERS_MAX:
            self._counts.popitem(last=False)
