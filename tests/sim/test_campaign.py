"""Thousands of schedules of the real core: fixed seeds, and fresh ones printed before they run.

`./dev test` runs 2,000; ZYNK_SOAK=1 runs 24,000. To run one again:
`python -c "from tests.sim.campaign import run_seeds; run_seeds(range(SEED, SEED + 1))"`.
"""

from __future__ import annotations

import os
import secrets

import pytest

from tests.sim.byzantine import ADVERSARIES
from tests.sim.campaign import STAKES, plan_of, run_seeds

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
BATCH_COUNT = 32
FAULTS = (
    *("loss", "duplication", "crash_per_step", "partitions", "skewed_clocks"),
    *("wire", "rotates"),
)
FIXED_PER_BATCH = 600 if IS_SOAK else 50
FRESH_PER_BATCH = 150 if IS_SOAK else 13


ONCE_BROKEN = (7740, 9531, 9608, 16844, 641036889876)
"""An honest validator was framed: a crash between the two writes of a `Persist` kept a certificate
with its vote inside and lost the guard record."""


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_schedules_that_once_broke_an_invariant_hold(seed: int) -> None:
    run_seeds(range(seed, seed + 1))


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
    plans = [plan_of(seed) for seed in range(BATCH_COUNT * 50)]
    seen = {kind for plan in plans for kind in plan.byzantine.values()}
    assert seen == set(ADVERSARIES)
    assert {plan.powers for plan in plans} == set(STAKES)
    for fault in (
        "loss",
        "duplication",
        "crash_per_step",
        "partitions",
        "skewed_clocks",
        "wire",
        "rotates",
    ):
        assert {bool(getattr(plan, fault)) for plan in plans} == {True, False}
    for plan in plans:
        guilty = sum(plan.powers[i] for i in plan.byzantine)
        assert 3 * guilty < sum(plan.powers)
