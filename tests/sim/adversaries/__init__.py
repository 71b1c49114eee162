"""Adversaries, one class each, a file a family. Each signs with its own key only.

All but the pure noise makers run the honest core underneath, so that they take part well enough
to do harm, and bend what goes out.
"""

from tests.sim.adversaries.delaying import ShowsLastToOne, ShowsLateToTheSlow
from tests.sim.adversaries.justify import DEFECTS
from tests.sim.adversaries.leaders import (
    EquivocatingLeader,
    FreshLeader,
    InvalidLeader,
    LateLeader,
    PartialLeader,
    RacingLeader,
    SilentLeader,
)
from tests.sim.adversaries.pen import Byzantine
from tests.sim.adversaries.views import FalseViews
from tests.sim.adversaries.voters import (
    EquivocatingVoter,
    FinalizeWithholder,
    Mute,
    NullifySpammer,
    OneShotNotarizer,
)

ADVERSARIES: tuple[type[Byzantine], ...] = (
    SilentLeader,
    PartialLeader,
    LateLeader,
    EquivocatingLeader,
    InvalidLeader,
    EquivocatingVoter,
    NullifySpammer,
    FinalizeWithholder,
    FalseViews,
    RacingLeader,
    FreshLeader,
    Mute,
    OneShotNotarizer,
    ShowsLateToTheSlow,
    ShowsLastToOne,
    *DEFECTS,
)

__all__ = [
    "ADVERSARIES",
    "DEFECTS",
    "Byzantine",
    "EquivocatingLeader",
    "EquivocatingVoter",
    "FalseViews",
    "FinalizeWithholder",
    "FreshLeader",
    "InvalidLeader",
    "LateLeader",
    "Mute",
    "NullifySpammer",
    "OneShotNotarizer",
    "PartialLeader",
    "RacingLeader",
    "ShowsLastToOne",
    "ShowsLateToTheSlow",
    "SilentLeader",
]
