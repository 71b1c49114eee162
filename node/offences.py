"""Counts each peer's faults, says when to drop it, and logs them without being flooded.

One fault may be a bug or an old version; many in a minute are not. A dropped peer is kept out for a
time that doubles (`p2p/peerbook.py`); nothing here can stop the node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import structlog

OFFENCES_MAX = 20
WINDOW_S = 60.0
PEERS_MAX = 1024
LOG_INTERVAL_S = 1.0

log = structlog.get_logger("node")


class Offences:
    """`on_drop(peer, reason)` is called when a peer passes the limit. `clock` is in seconds."""

    def __init__(self, *, clock: Callable[[], float], on_drop: Callable[[str, str], None]) -> None:
        self.total = 0
        self._clock = clock
        self._on_drop = on_drop
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._logged_s = float("-inf")
        self._unlogged = 0

    def add(self, peer: str, reason: str) -> None:
        """One more fault of `peer`."""
        self.total += 1
        now = self._clock()
        self._log(now, peer, reason)
        began, count = self._counts.pop(peer, (now, 0))
        if now - began > WINDOW_S:
            began, count = now, 0
        if count + 1 >= OFFENCES_MAX:
            self._on_drop(peer, reason)
            return
        self._counts[peer] = (began, count + 1)
        if len(self._counts) > PEERS_MAX:
            self._counts.popitem(last=False)

    def _log(self, now: float, peer: str, reason: str) -> None:
        """A line a second at most: strangers must not fill the disk."""
        if now - self._logged_s < LOG_INTERVAL_S:
            self._unlogged += 1
            return
        log.warning("peer at fault", peer=peer, reason=reason, unlogged=self._unlogged)
        self._logged_s, self._unlogged = now, 0
