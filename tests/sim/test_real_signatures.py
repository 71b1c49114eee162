"""The same schedules with Ed25519 and encoded messages: nothing rests on the stand-ins."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.sim.campaign import plan_of
from tests.sim.crypto import Ed25519
from tests.sim.network import Simulation

SCHEDULES = 2_000 if os.environ.get("ZYNK_SOAK") == "1" else 48
BATCH_COUNT = 8


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCH_COUNT))
def test_schedules_hold_with_real_signatures_and_bytes(batch: int) -> None:
    count = SCHEDULES // BATCH_COUNT
    for seed in range(batch * count, (batch + 1) * count):
        plan = replace(plan_of(seed), scheme=Ed25519, wire=True, late_votes=seed % 3 == 0)
        simulation = Simulation(plan).run()
        assert simulation.finals, f"seed {seed}"
