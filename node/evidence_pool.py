"""Evidence on its way into a block: kept durably, spread to all peers, offered to whoever builds.

What consensus finds here, and what peers send, is judged against the tip, the cheap rules first and
the signatures last; what convicts somebody is synced to the store before it is spread. It leaves
when a block has punished the offender for that height or a lower one, or when it is too old.
Evidence is self-contained: a peer that sends false evidence, or any about somebody who was no
validator then, is at fault; what convicts nobody more here and now is dropped quietly.

Whoever signs pairs against itself must not push out others. So there is one place for an offender,
of the lowest height, which says all that a higher one does (adr/0008), and another for what was
found here, which no peer can touch. A place is taken over once a height at most: descending pairs
cost one sync a block. The whole pool is bounded; when it is full, what was found here takes the
place of what peers sent. Peers' evidence has to have some of its time left, so that none that no
block can carry any more takes the place of one that a block can.

Store row: `e/` found here u8 | operator 32 B -> evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from consensus.accountability import check_punishable, find_offender
from consensus.evidence import Evidence, verify_evidence
from ledger.accounts import StateReader, encode_account_id
from ledger.errors import InvalidInputError
from ledger.params import ChainParams
from ledger.store import Batch, Store
from node import wire

PREFIX = b"e/"
POOL_MAX = 256
BLOCK_EVIDENCE_MAX = 16
AHEAD_MAX = 2
"""Heights past the tip: whoever may vote there is known, and a peer may be that far ahead."""
TIME_LEFT_DIVISOR = 64
"""Peers' evidence must be good for another 1/64 of `evidence_window_ms`."""

log = structlog.get_logger("evidence")

Spread = Callable[[str | None, bytes], None]
"""(peer, or None for all; payload) -> sent on the consensus channel."""


class Tip(Protocol):
    """What the pool needs of `ledger.chain.Chain`."""

    @property
    def chain_id(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def head_time_ms(self) -> int: ...
    @property
    def params(self) -> ChainParams: ...
    @property
    def tree(self) -> StateReader: ...


class NotNeededError(InvalidInputError):
    """Whether true or not, the evidence convicts nobody more, here and now. Nobody is at fault."""


@dataclass(frozen=True, slots=True)
class _Place:
    operator: bytes
    is_own: bool

    @property
    def row(self) -> bytes:
        return PREFIX + bytes([self.is_own]) + self.operator


@dataclass(frozen=True, slots=True)
class _Item:
    evidence: Evidence
    taken_height: int

    @property
    def height(self) -> int:
        return self.evidence.first.height


class EvidencePool:
    """See the module docstring. `spread` sends a payload."""

    def __init__(
        self, chain: Tip, store: Store, spread: Spread, *, pool_max: int = POOL_MAX
    ) -> None:
        self._chain = chain
        self._store = store
        self._spread = spread
        self._pool_max = pool_max
        self._pool: dict[_Place, _Item] = {}
        for key, row in store.iterate(prefix=PREFIX):
            place = _Place(key[len(PREFIX) + 1 :], key[len(PREFIX)] == 1)
            self._pool[place] = _Item(Evidence.decode(row), 0)

    def __len__(self) -> int:
        return len(self._pool)

    def found(self, evidence: Evidence) -> None:
        """Consensus saw a validator contradict itself; it has checked the signatures. Raises
        DurabilityError."""
        log.error(
            "a validator contradicts itself",
            signer=evidence.signer.hex(),
            height=evidence.first.height,
            view=evidence.first.view,
        )
        try:
            place = self._place_for(evidence, is_own=True)
        except InvalidInputError as error:
            log.info("the contradiction is not kept", reason=str(error))
        else:
            self._keep(place, evidence)

    def on_message(self, data: bytes) -> None:
        """A peer sent evidence. Raises InvalidInputError if the peer is at fault, and
        DurabilityError."""
        try:
            self.submit(data)
        except NotNeededError:
            return

    def submit(self, data: bytes) -> bytes:
        """Somebody brings evidence; the operator that it convicts. Raises NotNeededError, any other
        InvalidInputError for evidence that is malformed, false or about nobody, and
        DurabilityError."""
        evidence = Evidence.decode(data)
        place = self._place_for(evidence, is_own=False)
        verify_evidence(evidence, self._chain.chain_id)
        self._keep(place, evidence)
        return place.operator

    def on_peer_up(self, peer: str) -> None:
        for item in self._pool.values():
            self._spread(peer, _payload(item.evidence))

    def pick(self, time_ms: int) -> tuple[bytes, ...]:
        """What the next block, of `time_ms` or later, may carry: one item an offender, lowest
        heights first."""
        picked: dict[bytes, bytes] = {}
        time_ms = max(time_ms, self._chain.head_time_ms + 1)
        for place, item in sorted(self._pool.items(), key=lambda kept: kept[1].height):
            is_reached = item.height <= self._chain.height + 1
            if is_reached and self._is_punishable(place.operator, item.height, time_ms):
                picked.setdefault(place.operator, item.evidence.encode())
            if len(picked) >= BLOCK_EVIDENCE_MAX:
                break
        return tuple(picked.values())

    def on_commit(self) -> None:
        """Let go of what convicts nobody any more. Raises DurabilityError."""
        batch = Batch()
        for place, item in list(self._pool.items()):
            if not self._is_punishable(place.operator, item.height, self._chain.head_time_ms):
                del self._pool[place]
                batch.delete(place.row)
        if len(batch):
            self._store.write(batch, sync=False)

    def _place_for(self, evidence: Evidence, *, is_own: bool) -> _Place:
        """Where it belongs, if it is wanted. The signatures are not looked at. Raises
        NotNeededError, or InvalidInputError for evidence about nobody."""
        chain, height = self._chain, evidence.first.height
        if height > chain.height + AHEAD_MAX:
            raise NotNeededError(
                "evidence is about a height that is not reached",
                expected=f"at most {chain.height + AHEAD_MAX}",
                got=str(height),
                retry=True,
            )
        operator = find_offender(chain.tree, evidence)
        left_ms = 0 if is_own else chain.params.evidence_window_ms // TIME_LEFT_DIVISOR
        try:
            check_punishable(
                chain.tree,
                operator,
                height,
                time_ms=chain.head_time_ms + left_ms,
                params=chain.params,
            )
        except InvalidInputError as error:
            raise NotNeededError(error.message, expected=error.expected, got=error.got) from error
        place = _Place(operator, is_own)
        self._require_room(place, height)
        return place

    def _require_room(self, place: _Place, height: int) -> None:
        kept = self._pool.get(place)
        if kept is not None and kept.height <= height:
            raise NotNeededError(
                "evidence about that offender is known",
                expected=f"an offence below height {kept.height}",
                got=str(height),
            )
        if place.is_own:
            return
        if kept is not None and kept.taken_height == self._chain.height:
            raise NotNeededError(
                "evidence about that offender was taken a moment ago",
                expected="the next height",
                got=encode_account_id(place.operator),
                retry=True,
            )
        if kept is None and len(self._pool) >= self._pool_max:
            raise NotNeededError("the evidence pool is full", retry=True)

    def _keep(self, place: _Place, evidence: Evidence) -> None:
        batch = Batch()
        if place not in self._pool and len(self._pool) >= self._pool_max:
            others = [other for other in self._pool if not other.is_own]
            if not others:
                log.error("the evidence pool is full of what was found here")
                return
            out = max(others, key=lambda other: self._pool[other].height)
            del self._pool[out]
            batch.delete(out.row)
        batch.put(place.row, evidence.encode())
        self._store.write(batch, sync=True)
        self._pool[place] = _Item(evidence, self._chain.height)
        self._spread(None, _payload(evidence))

    def _is_punishable(self, operator: bytes, height: int, time_ms: int) -> bool:
        chain = self._chain
        try:
            check_punishable(chain.tree, operator, height, time_ms=time_ms, params=chain.params)
        except InvalidInputError:
            return False
        return True


def _payload(evidence: Evidence) -> bytes:
    return bytes([wire.TAG_EVIDENCE]) + evidence.encode()
