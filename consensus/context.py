"""The core's state: one `HeightState` a height, what outlives a height, and the outbox of a step.

Everything here is owned by one `Core` and changed only inside `Core.step`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from consensus.effects import CancelTimer, Effect, Persist, SetTimer
from consensus.inputs import StartHeight, TimerId, Verdict
from consensus.justify import CertificateBook
from consensus.leader import leader
from consensus.messages import Propose
from consensus.rules import OwnStatements, Rules
from consensus.signatures import SignatureCache
from consensus.statement import Statement
from consensus.tally import Tally
from consensus.timing import Timing
from ledger.block import Block
from ledger.certificate import Certificate
from ledger.validator_set import ValidatorSet

BLOCKS_MAX = 32
"""Bodies of one height held at once; those this node voted for or must fetch are never dropped."""
LEADERS_MAX = 256
VIEWS_AHEAD_MAX = 60
"""Votes further ahead than this are dropped (rule 17), and proposals count only with their
justify; certificates are never dropped."""


class HeightState:
    """All that is known about the height in work."""

    def __init__(self, start: StartHeight, now_ms: int) -> None:
        self.height = start.height
        self.parent_hash = start.parent_hash
        self.parent_certificate = start.parent_certificate
        self.validators: ValidatorSet = start.validators
        self.next_validators = start.next_validators
        self.weights = start.leaders
        self.seed = start.seed
        self.started_ms = now_ms
        self._leaders: dict[int, bytes] = {}
        self.view = 1
        self.view_started_ms: dict[int, int] = {}
        self.expired = False
        self.awake = False
        self.has_tx = False
        self.later_view_seen = 0
        self.proposed_view = 0
        self.proposals_seen: set[tuple[int, bytes]] = set()
        # the newest proposal, and its sender, that waits for older nullifications (rule 6)
        self.held_proposal: tuple[str, Propose] | None = None
        self.own = OwnStatements()
        self.own_proposals: dict[int, Propose] = {}
        self.tally = Tally(start.height, start.validators)
        self.book = CertificateBook()
        self.blocks: dict[bytes, Block] = {}
        # (view, hash) -> fresh: proposals that this node may still notarize
        self.votable: dict[tuple[int, bytes], bool] = {}
        # notarizations that this node may still finalize
        self.finalizable: list[tuple[int, bytes]] = []
        self.verdicts: dict[tuple[bytes, bool], Verdict] = {}
        self.judging: dict[bytes, bool] = {}
        self.early: set[bytes] = set()
        self.building_view: int | None = None
        self.wanted_body: bytes | None = None
        self.final: Certificate | None = None
        self.is_finalised = False
        # the final block does not follow the block that is final below it
        self.is_orphan = False
        self.retries = 0
        self.is_retry_armed_idle = False
        self.answered_ms: dict[tuple[str, str], int] = {}

    def leader(self, view: int) -> bytes:
        """Public key of the leader of `view`; remembered, as each vote and timer asks for it."""
        key = self._leaders.get(view)
        if key is None:
            if len(self._leaders) >= LEADERS_MAX:
                self._leaders.clear()
            key = self._leaders[view] = leader(self.seed, view, self.weights, self.validators)
        return key

    def keep_block(self, block: Block) -> None:
        """Hold a body, dropping the oldest that nothing depends on if there are too many."""
        if block.hash in self.blocks:
            return
        if len(self.blocks) >= BLOCKS_MAX:
            needed = set(self.own.notarized.values()) | set(self.own.proposed.values())
            for by_hash in self.book.notarized.values():
                needed |= by_hash.keys()
            for known in list(self.blocks):
                if known not in needed:
                    del self.blocks[known]
                    self.votable = {k: f for k, f in self.votable.items() if k[1] != known}
                    break
        self.blocks[block.hash] = block


class Outbox:
    """Collects a step's effects; what must be durable is merged into one `Persist` in front."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._blocks: dict[bytes, Block] = {}
        self._certificates: list[Certificate] = []
        self._guard: list[Statement] = []
        self._deadlines_ms: dict[TimerId, int] = {}

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def persist_block(self, block: Block) -> None:
        self._blocks[block.hash] = block

    def persist_certificate(self, certificate: Certificate) -> None:
        self._certificates.append(certificate)

    def persist_statement(self, statement: Statement) -> None:
        self._guard.append(statement)

    def set_timer(self, timer: TimerId, now_ms: int, delay_ms: int) -> None:
        """Arm a timer, unless it is armed for that very moment."""
        if self._deadlines_ms.get(timer) != now_ms + delay_ms:
            self._deadlines_ms[timer] = now_ms + delay_ms
            self.emit(SetTimer(timer=timer, delay_ms=delay_ms))

    def cancel_timer(self, timer: TimerId) -> None:
        if self._deadlines_ms.pop(timer, None) is not None:
            self.emit(CancelTimer(timer=timer))

    def is_due(self, timer: TimerId, now_ms: int) -> bool:
        """Judge a `TimerFired`: stale ones are ignored, early ones armed again."""
        deadline_ms = self._deadlines_ms.get(timer)
        if deadline_ms is None:
            return False
        if now_ms < deadline_ms:
            self.emit(SetTimer(timer=timer, delay_ms=deadline_ms - now_ms))
            return False
        del self._deadlines_ms[timer]
        return True

    def take(self) -> list[Effect]:
        """The step's effects, `Persist` first; the outbox is empty afterwards."""
        effects, self._effects = self._effects, []
        if self._blocks or self._certificates or self._guard:
            persist = Persist(
                blocks=tuple(self._blocks.values()),
                certificates=tuple(self._certificates),
                guard=tuple(self._guard),
            )
            self._blocks, self._certificates, self._guard = {}, [], []
            return [persist, *effects]
        return effects


@dataclass(slots=True)
class Context:
    """What the parts of the core share."""

    chain_id: str
    key: bytes | None
    sign: Callable[[bytes], bytes] | None
    signatures: SignatureCache
    timing: Timing
    rules: Rules
    floor: tuple[int, int]
    base_ms: int
    s: HeightState
    now_ms: int = 0
    out: Outbox = field(default_factory=Outbox)

    def why_not_signing(self) -> str | None:
        """Why this node signs nothing in the current view; None if it does sign."""
        s = self.s
        if self.key is None or self.sign is None:
            return "full node: it has no validator key"
        if self.key not in s.validators:
            return f"not in the validator set of height {s.height}"
        if (s.height, s.view) <= self.floor:
            return (
                f"height {s.height}, view {s.view} is at or below the sign guard's floor "
                f"{self.floor[0]}/{self.floor[1]}: it may have signed there before data was lost"
            )
        return None

    def may_sign(self, view: int) -> bool:
        return self.s.final is None and self.may_sign_what_is_final(view)

    def may_sign_what_is_final(self, view: int) -> bool:
        """This node is a validator of the height, and the view is above the guard's floor."""
        return (
            self.key is not None
            and self.sign is not None
            and self.key in self.s.validators.index_by_key
            and (self.s.height, view) > self.floor
        )

    def limit(self, peer: str, what: str) -> bool:
        """Rule 16: True if `peer` may be answered now, at most twice a retry interval."""
        slot = (peer, what)
        last_ms = self.s.answered_ms.get(slot)
        if last_ms is not None and self.now_ms - last_ms < self.timing.retry_ms // 2:
            return False
        if len(self.s.answered_ms) > 4096:
            self.s.answered_ms.clear()
        self.s.answered_ms[slot] = self.now_ms
        return True
