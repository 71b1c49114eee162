"""One of four validators has a twin: three views, each leader, each split, no fork."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.sim.twins import SCENARIO_COUNT, is_canonical, run_scenario, scenario_of

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
BATCH_COUNT = 8
STRIDE = 397
"""A prime, so that the sample meets every leader and split of every view; the soak takes all that
differ in more than names."""


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCH_COUNT))
def test_no_twins_scenario_forks_frames_or_stops_the_honest(batch: int) -> None:
    numbers: Sequence[int] = range(0, SCENARIO_COUNT, 1 if IS_SOAK else STRIDE)
    if IS_SOAK:  # one of each kind; their numbers are not spread evenly
        numbers = [n for n in numbers if is_canonical(scenario_of(n))]
    equivocations = count = 0
    for number in numbers[batch::BATCH_COUNT]:
        try:
            simulation = run_scenario(number)
        except Exception as error:
            raise AssertionError(f"scenario {number} {scenario_of(number)}: {error}") from error
        count += 1
        equivocations += bool(simulation.evidence)
    print(f"{count} scenarios, {equivocations} with evidence against the twins")
    assert equivocations > 0
