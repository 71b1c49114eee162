"""The peer book: who can be dialled, when next, and who is put aside.

Pure but for `load`/`save`: time (monotonic seconds) and randomness come in as arguments.
libp2p never redials (docs/adr/0003), so this does, forever: after failure n the next dial comes
after `first * 2^n`, at most the ceiling of the peer's rank, times a jitter of 0.75 to 1.25.
Validators come before configured peers, these before the ones learnt on the way.
"""

from __future__ import annotations

import json
import os
import random
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import InvalidInputError
from p2p.config import P2PConfig, PeerId
from p2p.identity import split_multiaddr

BOOK_NAME = "peers.json"
BOOK_BYTES_MAX = 1 << 20
BACKOFF_FIRST_S = 0.25
BAR_FIRST_S = 10.0
BAR_MAX_S = 3600.0
BARS_MAX = 4096
REDIAL_LOST_S = 0.1
FAILURES_TO_FORGET = 20

RANK_VALIDATOR, RANK_CONFIGURED, RANK_LEARNT = range(3)


@dataclass(slots=True, kw_only=True)
class Entry:
    """One known peer. Times are on the monotonic clock."""

    address: str
    rank: int
    failures: int = 0
    due_s: float = 0.0
    aside_until_s: float = 0.0
    barred_until_s: float = 0.0
    dialling: bool = False

    @property
    def next_s(self) -> float:
        return max(self.due_s, self.aside_until_s, self.barred_until_s)


class PeerBook:
    """Known peers, bounded by `book_peers_max`; learnt ones make room for others."""

    def __init__(self, config: P2PConfig, own: PeerId, rng: random.Random) -> None:
        self._config = config
        self._own = own
        self._rng = rng
        self._validators = frozenset(config.validators)
        self._entries: dict[PeerId, Entry] = {}
        self._bars: OrderedDict[PeerId, tuple[int, float]] = OrderedDict()
        self.is_changed = False
        for multiaddr in config.peers:
            self.add(*split_multiaddr(multiaddr), rank=RANK_CONFIGURED)

    def __len__(self) -> int:
        return len(self._entries)

    def is_validator(self, peer: PeerId) -> bool:
        return peer in self._validators

    def address_of(self, peer: PeerId) -> str | None:
        entry = self._entries.get(peer)
        return entry.address if entry else None

    def add(self, peer: PeerId, address: str, *, rank: int = RANK_LEARNT) -> bool:
        """Remember where `peer` is. A learnt address never replaces a configured one."""
        if peer == self._own:
            return False
        known = self._entries.get(peer)
        if known is not None:
            pinned = rank == RANK_LEARNT and known.rank != RANK_LEARNT and known.address
            if not pinned and known.address != address:
                known.address, known.due_s, known.failures = address, 0.0, 0
                self.is_changed = True
            known.rank = min(known.rank, rank)
            return not pinned
        if len(self._entries) >= self._config.book_peers_max and not self._make_room():
            return False
        if peer in self._validators:
            rank = RANK_VALIDATOR
        barred_until_s = self._bars.get(peer, (0, 0.0))[1]
        self._entries[peer] = Entry(address=address, rank=rank, barred_until_s=barred_until_s)
        self.is_changed = True
        return True

    def _make_room(self) -> bool:
        worst = max(self._entries.items(), key=lambda item: (item[1].rank, item[1].failures))
        if worst[1].rank != RANK_LEARNT:
            return False
        del self._entries[worst[0]]
        return True

    def take_due(
        self, now_s: float, connected: set[PeerId], count_max: int
    ) -> list[tuple[PeerId, str]]:
        """The peers to dial now, most important first; each must be reported back."""
        due = [
            (entry.rank, entry.due_s, peer)
            for peer, entry in self._entries.items()
            if entry.address
            and not entry.dialling
            and peer not in connected
            and entry.next_s <= now_s
        ]
        due.sort()
        taken = []
        for _rank, _due, peer in due[:count_max]:
            entry = self._entries[peer]
            entry.dialling = True
            taken.append((peer, entry.address))
        return taken

    def next_due_s(self, connected: set[PeerId]) -> float:
        """When `take_due` has something next; infinity if never."""
        times = [
            entry.next_s
            for peer, entry in self._entries.items()
            if entry.address and not entry.dialling and peer not in connected
        ]
        return min(times, default=float("inf"))

    def on_failed(self, peer: PeerId, now_s: float) -> None:
        """A dial failed: wait longer; forget a learnt peer that never answers."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.dialling = False
        entry.failures += 1
        if entry.rank == RANK_LEARNT and entry.failures >= FAILURES_TO_FORGET:
            del self._entries[peer]
            self.is_changed = True
            return
        config = self._config
        ceiling = (
            config.redial_validator_max_s if entry.rank == RANK_VALIDATOR else config.redial_max_s
        )
        delay = min(BACKOFF_FIRST_S * 2.0 ** min(entry.failures - 1, 16), ceiling)
        entry.due_s = now_s + delay * self._rng.uniform(0.75, 1.25)

    def on_dialled(self, peer: PeerId) -> None:
        """A dial ended in a connection (the handshake is still to come)."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.dialling = False

    def on_up(self, peer: PeerId) -> None:
        """The handshake succeeded: the backoff starts anew."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.dialling = False
            entry.failures = 0

    def on_lost(self, peer: PeerId, now_s: float) -> None:
        """A connection ended: dial again soon. The smaller id goes first, so that two peers
        that lose each other seldom dial at the same moment."""
        entry = self._entries.get(peer)
        if entry is not None:
            wait = REDIAL_LOST_S if self._own < peer else 4 * REDIAL_LOST_S
            entry.due_s = max(entry.due_s, now_s + wait * self._rng.uniform(0.75, 1.25))

    def put_aside(self, peer: PeerId, until_s: float) -> None:
        """Do not dial `peer` before `until_s`; it may still come to us."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.aside_until_s = max(entry.aside_until_s, until_s)

    def bar(self, peer: PeerId, until_s: float) -> None:
        """Put `peer` aside: not dialled, and not let in, before `until_s`."""
        count, old_until_s = self._bars.pop(peer, (0, 0.0))
        self._bars[peer] = (count + 1, max(old_until_s, until_s))
        if len(self._bars) > BARS_MAX:
            self._bars.popitem(last=False)
        entry = self._entries.get(peer)
        if entry is not None:
            entry.barred_until_s = max(entry.barred_until_s, until_s)

    def bar_stranger(self, peer: PeerId, now_s: float) -> bool:
        """Bar a peer at fault, each time for twice as long until it has kept quiet for
        `BAR_MAX_S`. A validator's peer is not barred: False."""
        if peer in self._validators:
            return False
        if self.is_barred(peer, now_s):
            return True  # told again while its connection ends
        count, until_s = self._bars.get(peer, (0, now_s))
        if now_s - until_s > BAR_MAX_S:
            del self._bars[peer]
            count = 0
        self.bar(peer, now_s + min(BAR_FIRST_S * 2.0 ** min(count, 16), BAR_MAX_S))
        return True

    def is_barred(self, peer: PeerId, now_s: float) -> bool:
        return self._bars.get(peer, (0, now_s))[1] > now_s

    # --- the file ---

    def load(self, path: Path) -> int:
        """Add the learnt peers of an earlier run; a missing or damaged file counts as empty."""
        try:
            if path.stat().st_size > BOOK_BYTES_MAX:
                return 0
            rows = json.loads(path.read_bytes())["peers"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0
        count = 0
        for row in rows if isinstance(rows, list) else []:
            try:
                count += self.add(*split_multiaddr(str(row)))
            except InvalidInputError:
                continue
        self.is_changed = False
        return count

    def save(self, path: Path) -> None:
        """Write the book by atomic rename. It is a cache: a lost write costs a redial."""
        rows = [f"{e.address}/p2p/{peer}" for peer, e in self._entries.items() if e.address]
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"version": 1, "peers": rows}, indent=1))
        os.replace(temporary, path)
        self.is_changed = False
