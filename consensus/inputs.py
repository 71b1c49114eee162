"""What the core is told (pure data). One input is one `Core.step`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from consensus.messages import ConsensusMessage
from consensus.statement import Statement
from ledger.block import Block, Header
from ledger.certificate import Certificate
from ledger.validator_set import ValidatorSet


class TimerId(Enum):
    """The core's timers; setting one again replaces it."""

    VIEW = "view"
    RETRY = "retry"
    PROPOSE = "propose"
    HEARTBEAT = "heartbeat"
    JUDGE = "judge"


class Verdict(Enum):
    """Answer to `JudgeBlock`. EARLY: its time is ahead of the local clock, ask again later."""

    VALID = "valid"
    INVALID = "invalid"
    EARLY = "early"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The durable records of a height: all that was in `Persist` effects for it."""

    guard: tuple[Statement, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartHeight:
    """Work on `height`: at boot (with `recovered`, empty if nothing is stored) and after each
    height was committed, by `Finalise` or by block sync (`recovered` None, or what is stored).

    `parent_hash` is the block hash of height - 1 (the genesis hash for height 1),
    `parent_certificate` its finalization (None for height 1), `seed` the leader
    seed, `leaders` the set whose powers weigh the pick, `next_validators` the set of the next
    height.
    """

    height: int
    parent_hash: bytes
    parent_certificate: Certificate | None
    validators: ValidatorSet
    next_validators: ValidatorSet
    leaders: ValidatorSet
    seed: bytes
    recovered: Recovered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A decoded message from transport peer `peer`; nothing in it has been checked."""

    peer: str
    message: ConsensusMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    timer: TimerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Awake:
    """A tx is pending. Give it after `StartHeight` too if the mempool is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockBuilt:
    """Answer to `BuildBlock`. None: no block could be built; the view stays without one."""

    height: int
    view: int
    block: Block | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockJudged:
    """Answer to `JudgeBlock`."""

    block_hash: bytes
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFinal:
    """A final height from the store: its header and finalization, the set that voted on it, and
    its other certificates as far as they are kept. `is_trusted`: its time is inside the trusting
    period, so its validators' stake still answers for what they sign about it (rule 15)."""

    header: Header
    certificate: Certificate
    validators: ValidatorSet
    certificates: tuple[Certificate, ...]
    is_trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalFound:
    """Answer to `LookUpFinal`. None: the store does not have the height."""

    height: int
    final: StoredFinal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """A peer connected, or connected again."""

    peer: str


Input = StartHeight | Received | TimerFired | Awake | BlockBuilt | BlockJudged | FinalFound | PeerUp
