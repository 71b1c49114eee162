"""What consensus must find again after a crash, and what proves later who made a fork.

    k/b/ height8 block hash 32           a candidate block, whole
    k/c/ height8 sha256(certificate) 32  a certificate

A vote that relies on a block or a certificate leaves only after the synced write of its row.
In the batch that commits a height its rows go away, but for certificates that would contradict
another final block of that height: those of another block or none, and those of views below the
final one (consensus/fork_proof.py). A height that is final in its first view leaves none.

Those stay for the evidence window, by block time: as long as what they show can be punished. Only
`ROWS_MAX` of them ends them earlier, and then says so (`lost_total`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from hashlib import sha256

from ledger.block import Block
from ledger.certificate import Certificate
from ledger.store import Batch, Store

PREFIX = b"k/"
BLOCK = b"k/b/"
CERTIFICATE = b"k/c/"
ROWS_MAX = 2**18
"""Certificates kept; beyond, those of the lowest heights go. 4.5 GB at most, with 256 validators;
in a window of 21 days a height in seven can fail a view."""
EXPIRED_HEIGHTS_MAX = 64
"""Dropped by one commit."""


class ConsensusRows:
    """Keeps the keys in RAM, so that pruning at a commit needs no seek."""

    def __init__(self, store: Store, rows_max: int = ROWS_MAX) -> None:
        self._store = store
        self._rows_max = rows_max
        self._count = 0
        self.lost_total = 0
        """Rows dropped inside the evidence window, since there were too many."""
        self._keys: dict[int, set[bytes]] = {}
        self._heights: list[int] = []  # those of `_keys`, ascending
        self._losing = 0
        for key, _ in store.iterate(prefix=PREFIX):
            self._note(key)

    def _note(self, key: bytes) -> None:
        height = _height_of(key)
        if height not in self._keys:
            self._keys[height] = set()
            insort(self._heights, height)
        self._keys[height].add(key)
        self._count += 1

    def _holds(self, key: bytes) -> bool:
        return key in self._keys.get(_height_of(key), ())

    def add(self, blocks: Sequence[Block], certificates: Sequence[Certificate]) -> None:
        """Write them durably in one batch; known ones cost nothing. Raises DurabilityError."""
        rows: dict[bytes, bytes] = {}
        for block in blocks:
            key = BLOCK + block.height.to_bytes(8, "big") + block.hash
            if not self._holds(key):
                rows[key] = block.encoded
        for certificate in certificates:
            data = certificate.encode()
            key = CERTIFICATE + certificate.height.to_bytes(8, "big") + sha256(data).digest()
            if not self._holds(key):
                rows[key] = data
        if not rows:
            return
        batch = Batch()
        for key, data in rows.items():
            batch.put(key, data)
        self._store.write(batch, sync=True)
        for key in rows:
            self._note(key)

    def load(self, height: int) -> tuple[list[Block], list[Certificate]]:
        """All that is kept of `height`, in key order."""
        height8 = height.to_bytes(8, "big")
        blocks = [Block.decode(v) for _, v in self._store.iterate(prefix=BLOCK + height8)]
        rows = self._store.iterate(prefix=CERTIFICATE + height8)
        return blocks, [Certificate.decode(v) for _, v in rows]

    def keys_to_drop(self, final: Certificate, is_expired: Callable[[int], bool]) -> list[bytes]:
        """Keys of rows that are not needed once `final` is committed, to be deleted in the batch
        that commits it. `is_expired` says whether a final height's evidence window is over."""
        drop = [
            key for key in sorted(self._keys.get(final.height, ())) if not self._is_kept(key, final)
        ]
        surplus = self._count - len(drop) - self._rows_max
        self._losing = 0
        for height in self._heights[:EXPIRED_HEIGHTS_MAX]:
            if height >= final.height:
                break
            if not is_expired(height):
                if surplus <= 0:
                    break
                self._losing += len(self._keys[height])
            drop += sorted(self._keys[height])
            surplus -= len(self._keys[height])
        return drop

    def _is_kept(self, key: bytes, final: Certificate) -> bool:
        data = self._store.get(key) if key.startswith(CERTIFICATE) else None
        if data is None:
            return False
        certificate = Certificate.decode(data)
        return certificate.block_hash != final.block_hash or certificate.view < final.view

    def forget(self, keys: Sequence[bytes]) -> None:
        """Their deletion is written."""
        for key in keys:
            height = _height_of(key)
            self._keys[height].remove(key)
            self._count -= 1
            if not self._keys[height]:
                del self._keys[height]
                del self._heights[bisect_left(self._heights, height)]
        self.lost_total += self._losing
        self._losing = 0


def _height_of(key: bytes) -> int:
    return int.from_bytes(key[4:12], "big")
