"""Each defect of a justify by itself: no honest validator votes for what it is meant to justify."""

from __future__ import annotations

import pytest

from consensus.messages import ConsensusMessage, Propose
from consensus.statement import StatementKind
from tests.sim.adversaries import DEFECTS
from tests.sim.adversaries.justify import DefectiveJustify
from tests.sim.network import Simulation
from tests.sim.plan import Plan

SPOILED_MIN = 6
SEEDS_MAX = 120


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.__name__)
def test_a_defective_justify_gets_no_vote(defect: type[DefectiveJustify]) -> None:
    spoiled = 0
    for seed in range(SEEDS_MAX):
        bad: set[tuple[int, int]] = set()

        class Watched(defect):  # type: ignore[valid-type,misc]  # a class of the parametrization
            """Notes the views in which nothing but its defective proposal was shown."""

            def broadcast(self, message: ConsensusMessage) -> None:
                before = self.spoiled
                super().broadcast(message)
                if isinstance(message, Propose) and message.view > 1:
                    place = (message.height, message.view)
                    if self.spoiled > before:
                        bad.add(place)  # noqa: B023  # read before the next seed
                    else:
                        honest.add(place)  # noqa: B023

        honest: set[tuple[int, int]] = set()
        plan = Plan(
            seed=seed,
            byzantine={seed % 4: Watched},
            loss=0.35,
            chaos_ms=900,
            delay_ms_max=60,
            skewed_clocks=True,
        )
        simulation = Simulation(plan).run()
        spoiled += len(bad - honest)
        for node in simulation.honest:
            voted = {
                (s.height, s.view)
                for s in node.disk.guard.records
                if s.kind is StatementKind.NOTARIZE
            }
            assert not voted & (bad - honest), f"seed {seed}"
        if spoiled >= SPOILED_MIN:
            return
    raise AssertionError(f"only {spoiled} defective proposals in {SEEDS_MAX} schedules")
