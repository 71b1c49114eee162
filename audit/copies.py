"""Copies of other nodes' leaf lists, so that losing one node's disk loses no receipt.

A node gives the leaf list of a batch to peers before it signs the anchor; a peer that has synced it
says so. Whoever lost its list asks for it by batch root. A list is checked against its root alone:
no list but the anchored one has it.

    list = [stream bin32, submitter bin32, [leaf bin, ...], signature bin64]

The signature is the submitter's over `sign_bytes("audit-keep", chain id, [batch root])`: only an
account that may anchor in the stream can have leaves kept.

Rows:
    a/c/l | batch root 32                 the list
    a/c/w | height u64 | batch root 32    submitter 32: the list waits for its anchor since then

A list whose anchor does not come within `WAIT_HEIGHTS` is dropped: it was batched anew, or never
sent. Before that one submitter has at most `WAITING_MAX` lists here that are not anchored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.anchor import BATCH_LEAVES_MAX
from audit.leaf import LEAF_BYTES_MAX, STREAM_BYTES
from audit.rows import COPY, COPY_WAITS, number_at_end, u64
from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.merkle import compute_leaf_hash, compute_root
from ledger.store import Batch as WriteBatch
from ledger.store import Store, decode_row

LIST_BYTES_MAX = BATCH_LEAVES_MAX * (LEAF_BYTES_MAX + 4) + 256
WAIT_HEIGHTS = 2_000
"""Ten times as long as an anchor tx is valid: it may be signed anew a few times."""
WAITING_MAX = 64
"""Four anchor txs full of batches."""


def keep_sign_bytes(chain_id: str, batch_root: bytes) -> bytes:
    """What a submitter signs to have a list kept."""
    return codec.sign_bytes("audit-keep", chain_id, [batch_root])


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafList:
    """The leaves of one batch, canonical bytes, in order."""

    stream: bytes
    submitter: bytes
    leaves: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def signed(
        cls, key: KeyPair, *, chain_id: str, stream: bytes, leaves: Sequence[bytes]
    ) -> LeafList:
        """A list that `key`, the submitter's, asks others to keep."""
        root = compute_root([compute_leaf_hash(leaf) for leaf in leaves])
        return cls(
            stream=stream,
            submitter=key.public_key,
            leaves=tuple(leaves),
            signature=key.sign(keep_sign_bytes(chain_id, root)),
        )

    @classmethod
    def decode(cls, data: bytes) -> LeafList:
        """Inverse of `encode`. Raises InvalidInputError. Leaves are not looked into."""
        v = codec.read_array(codec.decode(data, bytes_max=LIST_BYTES_MAX), 4, "leaf list")
        leaves = codec.read_list(v[2], BATCH_LEAVES_MAX, "leaf list")
        if not leaves:
            raise InvalidInputError("leaf list is empty", expected=f"1..{BATCH_LEAVES_MAX} leaves")
        return cls(
            stream=codec.read_bytes(v[0], "leaf list's stream", length=STREAM_BYTES),
            submitter=codec.read_bytes(v[1], "leaf list's submitter", length=32),
            leaves=tuple(codec.read_bytes(x, "leaf", maximum=LEAF_BYTES_MAX) for x in leaves),
            signature=codec.read_bytes(v[3], "leaf list's signature", length=64),
        )

    def encode(self) -> bytes:
        return codec.encode([self.stream, self.submitter, list(self.leaves), self.signature])

    def compute_root(self) -> bytes:
        """The batch root, 32 B: RFC 6962 over the leaves."""
        return compute_root([compute_leaf_hash(leaf) for leaf in self.leaves])


class KeptLists:
    """The lists that this node keeps. All writes are synced: what it says it has, it has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[bytes, tuple[int, bytes]] = {}
        self._waiting_count: dict[bytes, int] = {}
        for key, row in store.iterate(prefix=COPY_WAITS):
            height = number_at_end(key[: len(COPY_WAITS) + 8])
            self._add_waiting(key[-32:], height, row)

    def has(self, batch_root: bytes) -> bool:
        return self._store.get(COPY + batch_root) is not None

    def find(self, batch_root: bytes) -> LeafList | None:
        """The list with this root, or None."""
        row = self._store.get(COPY + batch_root)
        return None if row is None else decode_row("leaf list", LeafList.decode, row)

    def has_room(self, submitter: bytes) -> bool:
        """Whether one more list of the submitter may wait here."""
        return self._waiting_count.get(submitter, 0) < WAITING_MAX

    def keep(self, lists: Iterable[tuple[bytes, LeafList]], height: int) -> None:
        """Sync lists, each under its root, that wait for their anchors from `height` on. Those
        that are here already stay as they are. Raises DurabilityError."""
        rows = WriteBatch()
        added: list[tuple[bytes, bytes]] = []
        for root, leaf_list in lists:
            if self.has(root) or any(root == other for other, _ in added):
                continue
            rows.put(COPY + root, leaf_list.encode())
            rows.put(COPY_WAITS + u64(height) + root, leaf_list.submitter)
            added.append((root, leaf_list.submitter))
        if added:
            self._store.write(rows, sync=True)
        for root, submitter in added:
            self._add_waiting(root, height, submitter)

    def on_anchored(self, batch_roots: Iterable[bytes]) -> None:
        """These batches are in the log now: their lists stay. Not synced: after a crash such a list
        waits again, so look into the log before an expired one is dropped."""
        rows = WriteBatch()
        for root in batch_roots:
            if root in self._waiting:
                rows.delete(COPY_WAITS + u64(self._waiting[root][0]) + root)
                self._forget_waiting(root)
        if len(rows):
            self._store.write(rows, sync=False)

    def expired(self, height: int) -> list[tuple[bytes, int]]:
        """(batch root, height since which it waits) of the lists that have waited too long."""
        return [
            (root, since)
            for root, (since, _) in self._waiting.items()
            if height > since + WAIT_HEIGHTS
        ]

    def drop(self, batch_roots: Iterable[bytes]) -> None:
        """Forget lists, whether they wait or not."""
        rows = WriteBatch()
        for root in batch_roots:
            rows.delete(COPY + root)
            if root in self._waiting:
                rows.delete(COPY_WAITS + u64(self._waiting[root][0]) + root)
                self._forget_waiting(root)
        self._store.write(rows, sync=False)

    def _add_waiting(self, root: bytes, height: int, submitter: bytes) -> None:
        self._waiting[root] = (height, submitter)
        self._waiting_count[submitter] = self._waiting_count.get(submitter, 0) + 1

    def _forget_waiting(self, root: bytes) -> None:
        _, submitter = self._waiting.pop(root)
        self._waiting_count[submitter] -= 1
        if not self._waiting_count[submitter]:
            del self._waiting_count[submitter]
