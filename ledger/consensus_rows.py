"""What consensus must find again after a crash, until its height is final.

    k/b/ height8 block hash 32           a candidate block, whole
    k/c/ height8 sha256(certificate) 32  a certificate

A vote that relies on a block or a certificate leaves only after the synced write of its row.
Rows of a height go away in the batch that commits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from ledger.block import Block
from ledger.certificate import Certificate
from ledger.store import Batch, Store

PREFIX = b"k/"
BLOCK = b"k/b/"
CERTIFICATE = b"k/c/"


class ConsensusRows:
    """Keeps the keys in RAM, so that pruning at a commit needs no seek."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = {key for key, _ in store.iterate(prefix=PREFIX)}

    def add(self, blocks: Sequence[Block], certificates: Sequence[Certificate]) -> None:
        """Write them durably in one batch; known ones cost nothing. Raises DurabilityError."""
        rows: dict[bytes, bytes] = {}
        for block in blocks:
            key = BLOCK + block.height.to_bytes(8, "big") + block.hash
            if key not in self._keys:
                rows[key] = block.encoded
        for certificate in certificates:
            data = certificate.encode()
            key = CERTIFICATE + certificate.height.to_bytes(8, "big") + sha256(data).digest()
            if key not in self._keys:
                rows[key] = data
        if not rows:
            return
        batch = Batch()
        for key, data in rows.items():
            batch.put(key, data)
        self._store.write(batch, sync=True)
        self._keys.update(rows)

    def load(self, height: int) -> tuple[list[Block], list[Certificate]]:
        """All that is kept of `height`, in key order."""
        height8 = height.to_bytes(8, "big")
        blocks = [Block.decode(v) for _, v in self._store.iterate(prefix=BLOCK + height8)]
        rows = self._store.iterate(prefix=CERTIFICATE + height8)
        return blocks, [Certificate.decode(v) for _, v in rows]

    def keys_up_to(self, height: int) -> list[bytes]:
        """Keys of rows at or below `height`, to be deleted in the batch that commits it."""
        return sorted(k for k in self._keys if int.from_bytes(k[4:12], "big") <= height)

    def forget(self, keys: Sequence[bytes]) -> None:
        """Their deletion is written."""
        self._keys.difference_update(keys)
