"""Evidence on its way into a block: kept durably, spread to all peers, offered to whoever builds.

What consensus finds here, and what peers send, is judged against the tip; what convicts somebody
is synced to the store before it is spread. It leaves when a block has punished the offender, or
when it is too old. Evidence is self-contained: a peer that sends false evidence is at fault; what
is true and convicts nobody, because a block has just settled it, is dropped quietly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

import structlog

from consensus.accountability import judge_evidence
from consensus.evidence import Evidence, verify_evidence
from ledger.chain import Chain
from ledger.errors import InvalidInputError
from ledger.store import Batch, Store
from node import wire

PREFIX = b"e/"
POOL_MAX = 256
BLOCK_EVIDENCE_MAX = 16
SETTLED_MAX = 1024

log = structlog.get_logger("evidence")

Spread = Callable[[str | None, bytes], None]
"""(peer, or None for all; payload) -> sent on the consensus channel."""


class EvidencePool:
    """See the module docstring. `spread` sends a payload."""

    def __init__(self, chain: Chain, store: Store, spread: Spread) -> None:
        self._chain = chain
        self._store = store
        self._spread = spread
        self._settled: OrderedDict[bytes, None] = OrderedDict()
        self._pool: OrderedDict[bytes, Evidence] = OrderedDict()
        for key, row in store.iterate(prefix=PREFIX):
            self._pool[key[len(PREFIX) :]] = Evidence.decode(row)

    def __len__(self) -> int:
        return len(self._pool)

    def found(self, evidence: Evidence) -> None:
        """Consensus saw a validator contradict itself. Raises DurabilityError."""
        log.error(
            "a validator contradicts itself",
            signer=evidence.signer.hex(),
            height=evidence.first.height,
            view=evidence.first.view,
        )
        self._take(evidence)

    def on_message(self, data: bytes) -> None:
        """A peer sent evidence. Raises InvalidInputError if it is malformed or false, and
        DurabilityError."""
        digest = sha256(data).digest()
        if digest in self._pool or digest in self._settled:
            return
        evidence = Evidence.decode(data)
        verify_evidence(evidence, self._chain.chain_id)
        self._take(evidence)

    def on_peer_up(self, peer: str) -> None:
        for evidence in self._pool.values():
            self._spread(peer, _payload(evidence))

    def pick(self, time_ms: int) -> tuple[bytes, ...]:
        """What the next block, of `time_ms` or later, may carry: one item an offender."""
        picked: dict[bytes, bytes] = {}
        for evidence in self._pool.values():
            try:
                operator = self._judge(evidence, time_ms)
            except InvalidInputError:
                continue
            picked.setdefault(operator, evidence.encode())
            if len(picked) >= BLOCK_EVIDENCE_MAX:
                break
        return tuple(picked.values())

    def on_commit(self) -> None:
        """Let go of what convicts nobody any more. Raises DurabilityError."""
        batch = Batch()
        for digest, evidence in list(self._pool.items()):
            try:
                self._judge(evidence, self._chain.head_time_ms)
            except InvalidInputError as error:
                if error.retry:
                    continue
                del self._pool[digest]
                self._note_settled(digest)
                batch.delete(PREFIX + digest)
        if len(batch):
            self._store.write(batch, sync=False)

    def _take(self, evidence: Evidence) -> None:
        data = evidence.encode()
        digest = sha256(data).digest()
        if digest in self._pool:
            return
        try:
            self._judge(evidence, self._chain.head_time_ms)
        except InvalidInputError as error:
            if not error.retry:
                self._note_settled(digest)
                return
        if len(self._pool) >= POOL_MAX:
            return  # each item convicts a validator of its own or repeats one: enough is known
        batch = Batch()
        batch.put(PREFIX + digest, data)
        self._store.write(batch, sync=True)
        self._pool[digest] = evidence
        self._spread(None, _payload(evidence))

    def _judge(self, evidence: Evidence, time_ms: int) -> bytes:
        """The operator convicted in the next block. Signatures were checked on the way in."""
        return judge_evidence(
            self._chain.tree,
            evidence,
            chain_id=self._chain.chain_id,
            height=self._chain.height + 1,
            time_ms=max(time_ms, self._chain.head_time_ms + 1),
            params=self._chain.params,
            is_valid=lambda *_: True,
        )

    def _note_settled(self, digest: bytes) -> None:
        self._settled[digest] = None
        if len(self._settled) > SETTLED_MAX:
            self._settled.popitem(last=False)


def _payload(evidence: Evidence) -> bytes:
    return bytes([wire.TAG_EVIDENCE]) + evidence.encode()
