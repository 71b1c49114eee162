"""What a schedule is: who takes part, and what goes wrong. A plan and its seed are the schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from consensus.effects import Persist
from consensus.messages import ConsensusMessage
from consensus.rules import Rules
from consensus.timing import Timing
from ledger.validator_set import Validator, ValidatorSet
from tests.sim.crypto import Scheme, StandIn

if TYPE_CHECKING:
    from tests.sim.network import Simulation
    from tests.sim.node import Node

CHAIN_ID = "zynk-sim"
GENESIS_HASH = b"\x07" * 32
TIMING = Timing(
    view_timeout_base_ms=200,
    view_timeout_min_ms=150,
    view_timeout_max_ms=2000,
    retry_ms=60,
    block_interval_min_ms=5,
    empty_interval_ms=50,
    heartbeat_ms=1000,
    early_retry_ms=10,
)

Sets = Literal["fixed", "rotating", "whole"]
Link = Callable[["Simulation", int, int, ConsensusMessage], bool]
"""(simulation, source, target, message): does it get through?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One schedule.

    `sets`: who votes. "fixed": all of `powers`. "rotating": all but one; "whole": the first half,
    the second half or all. Which of them votes on H is picked by the hash of block H-2, as changes
    made in H-2 take effect at H.
    `followers` are nodes past the validators; with `twins`, such a node runs under the key of a
    validator instead. The chaos lasts `chaos_ms`, or until all honest nodes have `chaos_heights`;
    then all must make `healed_heights` more within `healed_ms_max`, unless it `may_stall`.
    `fixed_sides` is a partition that lasts all through the chaos. `link` drops
    messages during the chaos; `crash_after` crashes a node between a `Persist` and what it was
    for. With `nobody_absent`, for schedules in which nothing is lost and nobody crashes, the chain
    must show each honest validator at each height. `clocks`: percent of real time, by node.
    """

    seed: int
    powers: tuple[int, ...] = (1, 1, 1, 1)
    sets: Sets = "fixed"
    chaos_ms: int = 600
    chaos_heights: int = 10**9
    healed_heights: int = 2
    loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 15
    crash_per_step: float = 0.0
    crash_after: Callable[[Node, Persist], bool] | None = None
    partitions: int = 0
    skewed_clocks: bool = False
    clocks: tuple[int, ...] = ()
    byzantine: dict[int, Callable[[Simulation, int], Node]] = field(default_factory=dict)
    node_type: type[Node] | None = None
    rules: Callable[[], Rules] = Rules
    guard_enforced: bool = True
    followers: int = 0
    wire: bool = False
    late_votes: bool = False
    nobody_absent: bool = False
    scheme: Callable[[], Scheme] = StandIn
    stops_at_fork: bool = True
    may_stall: bool = False
    healed_ms_max: int = 40_000
    twins: dict[int, int] = field(default_factory=dict)
    fixed_sides: tuple[tuple[int, ...], ...] = ()
    link: Link | None = None
    genesis_hash: bytes = GENESIS_HASH


def validator_sets(plan: Plan, keys: list[bytes]) -> list[ValidatorSet]:
    """The sets that may vote; the first votes on heights 1 and 2."""
    everyone = [Validator(public_key=keys[i], power=power) for i, power in enumerate(plan.powers)]
    half = len(everyone) // 2
    match plan.sets:
        case "fixed":
            groups = [everyone]
        case "rotating":
            groups = [[v for v in everyone if v is not out] for out in everyone]
        case "whole":
            groups = [everyone[:half], everyone[half:], everyone]
    return [ValidatorSet.of(group) for group in groups]
