"""Each defect of a justify by itself: no honest validator votes for what it is meant to justify."""

from __future__ import annotations

import pytest

from consensus.rules import Rules
from consensus.statement import StatementKind
from tests.sim.adversaries import DEFECTS
from tests.sim.adversaries.justify import (
    DefectiveJustify,
    MadeUpNullifications,
    WrongOriginView,
)
from tests.sim.mutants import UnverifiedJustify
from tests.sim.network import InvariantBroken, Simulation
from tests.sim.plan import Plan

SPOILED_MIN = 6
SEEDS_MAX = 160
CAUGHT_ELSEWHERE = (WrongOriginView, MadeUpNullifications)
"""By the header's proposer, and by the certificate's signatures."""


def tried(
    defect: type[DefectiveJustify], seed: int, rules: type[Rules]
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """(height, view) in which nothing but its defective proposal was sent, and those of them in
    which an honest validator voted for a block."""
    plan = Plan(
        seed=seed,
        byzantine={seed % 4: defect},
        loss=0.35,
        chaos_ms=900,
        chaos_heights=4,
        delay_ms_max=60,
        skewed_clocks=True,
        rules=rules,
        guard_enforced=rules is Rules,
    )
    simulation = Simulation(plan)
    try:
        simulation.run()
    except InvariantBroken:
        assert rules is not Rules, f"seed {seed}"
    leader = simulation.nodes[seed % 4]
    assert isinstance(leader, defect)
    spoiled = set(leader.spoiled) - set(leader.sound)
    voted = {
        (s.height, s.view)
        for node in simulation.honest
        for s in node.disk.guard.records
        if s.kind is StatementKind.NOTARIZE
    }
    return spoiled, spoiled & voted


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.__name__)
def test_a_defective_justify_gets_no_vote(defect: type[DefectiveJustify]) -> None:
    count = 0
    for seed in range(SEEDS_MAX):
        spoiled, voted = tried(defect, seed, Rules)
        assert not voted, f"seed {seed}"
        count += len(spoiled)
        if count >= SPOILED_MIN:
            return
    raise AssertionError(f"only {count} defective proposals in {SEEDS_MAX} schedules")


@pytest.mark.slow
@pytest.mark.parametrize(
    "defect", [d for d in DEFECTS if d not in CAUGHT_ELSEWHERE], ids=lambda d: d.__name__
)
def test_a_core_that_verifies_no_justify_would_vote_for_it(defect: type[DefectiveJustify]) -> None:
    assert any(tried(defect, seed, UnverifiedJustify)[1] for seed in range(SEEDS_MAX))
