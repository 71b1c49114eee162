"""Thousands of schedules of the real core: fixed seeds, and fresh ones printed before they run.

`./dev test` runs 5,120; ZYNK_SOAK=1 runs 204,800. To run one again:
`python -c "from tests.sim.campaign import run_seeds; run_seeds(range(SEED, SEED + 1))"`.
"""

from __future__ import annotations

import os
import secrets

import pytest

from tests.sim.adversaries import ADVERSARIES
from tests.sim.campaign import STAKES, plan_of, run_seeds
from tests.sim.plan import validator_sets

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
BATCH_COUNT = 32
FAULTS = (
    *("loss", "duplication", "crash_per_step", "partitions", "skewed_clocks"),
    *("wire", "late_votes", "followers"),
)
FIXED_PER_BATCH = 5_120 if IS_SOAK else 128
FRESH_PER_BATCH = 1_280 if IS_SOAK else 32


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCH_COUNT))
def test_no_fork_no_framing_no_standstill_in_fixed_schedules(batch: int) -> None:
    start = batch * FIXED_PER_BATCH
    run_seeds(range(start, start + FIXED_PER_BATCH))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCH_COUNT))
def test_no_fork_no_framing_no_standstill_in_fresh_schedules(batch: int) -> None:
    start = 10_000_000 + secrets.randbelow(2**40)
    print(f"fresh seeds {start}..{start + FRESH_PER_BATCH - 1}")
    run_seeds(range(start, start + FRESH_PER_BATCH))


def test_the_fixed_schedules_hold_every_adversary_stake_and_fault() -> None:
    plans = [plan_of(seed) for seed in range(BATCH_COUNT * 128)]
    seen = {kind for plan in plans for kind in plan.byzantine.values()}
    assert seen == set(ADVERSARIES)
    assert {plan.powers for plan in plans} == set(STAKES)
    assert {plan.sets for plan in plans} == {"fixed", "rotating", "whole"}
    for fault in FAULTS:
        assert {bool(getattr(plan, fault)) for plan in plans} == {True, False}
    for plan in plans:
        keys = [bytes([i]) * 32 for i in range(len(plan.powers))]
        for validators in validator_sets(plan, keys):
            guilty = sum(validators.power_of(keys[i]) for i in plan.byzantine)
            assert 3 * guilty < validators.total_power
