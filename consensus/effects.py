"""What the core wants done, in order.

The runtime performs the effects of a step one after another. `Persist`, if there is one, comes
first, and nothing after it may happen before it is durable (rule 3): blocks and certificates
first, then the guard records. If it fails, the rest of the step must not happen at all.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.evidence import Evidence
from consensus.fork_proof import ForkProof
from consensus.inputs import TimerId
from consensus.messages import ConsensusMessage
from consensus.statement import Statement
from ledger.block import Block
from ledger.certificate import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Sync blocks and certificates to the store, then append and sync the guard records."""

    blocks: tuple[Block, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    guard: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """Send to every peer."""

    message: ConsensusMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTo:
    peer: str
    message: ConsensusMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeFinal:
    """Read these committed heights from the store and send each as `Final` to `peer`."""

    peer: str
    heights: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Give `TimerFired(timer)` after `delay_ms`; replaces the timer if it runs."""

    timer: TimerId
    delay_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTimer:
    timer: TimerId


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildBlock:
    """Build a block with origin view `view` on the tip; answer with `BlockBuilt`."""

    height: int
    view: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeBlock:
    """Check a block; answer with `BlockJudged`. Not `fresh`: deterministic checks only, no time
    window (rule 7)."""

    block: Block
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalise:
    """Commit the block in one synced write, then give `StartHeight` for the next height."""

    block: Block
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEvidence:
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpFinal:
    """Read a final height from the store; answer with `FinalFound`, at once if possible."""

    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """The chain has forked: stop, and keep the proof, instead of an earlier one if there is.

    The core signs and finalises nothing from here on. It goes on taking in certificates of the
    forked height and giving its own to peers, and halts again with each proof that names more. No
    proof: what was finalised breaks the rules in a way that takes 2/3 of the power and leaves no
    pair of contradicting statements here.
    """

    reason: str
    fork_proof: ForkProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedFork:
    """A second finalization of a height older than the trusting period: to be logged, no more.
    Keys sold after their stake was free again must not stop anyone (rule 15)."""

    height: int
    block_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedSync:
    """`peer` says that it works on `height`, further ahead than consensus catches up by itself."""

    peer: str
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BadPeer:
    """`peer` sent something that no honest node sends (a bad signature, justify, certificate)."""

    peer: str
    reason: str


Effect = (
    Persist
    | Broadcast
    | SendTo
    | ServeFinal
    | SetTimer
    | CancelTimer
    | BuildBlock
    | JudgeBlock
    | Finalise
    | FoundEvidence
    | LookUpFinal
    | Halt
    | RefusedFork
    | NeedSync
    | BadPeer
)
