"""Which schedules are tried: a plan for each seed, so that a failing seed is its own report."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import replace

from tests.sim.adversaries import ADVERSARIES, Byzantine
from tests.sim.blocks import LATE_HEIGHTS
from tests.sim.network import InvariantBroken, Simulation
from tests.sim.plan import Plan, Sets

STAKES: tuple[tuple[int, ...], ...] = (
    (1, 1, 1, 1),
    (3, 1, 1, 1, 1),
    (10, 5, 3, 2, 1),
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
)
COLLECT_EVERY = 32
STAKE_WEIGHTS = (14, 5, 4, 1, 1)
"""Seven validators cost three times as much to simulate as four."""


def plan_of(seed: int) -> Plan:
    """The plan of a seed: stakes, faults, and adversaries with less than 1/3 of the power."""
    rng = random.Random(seed * 2654435761 + 1)
    powers = rng.choices(STAKES, STAKE_WEIGHTS)[0]
    sets: Sets = "whole" if len(powers) == 8 else "fixed"
    byzantine: dict[int, type[Byzantine]] = {}
    is_coalition = False
    if rng.random() < 0.65:
        # A coalition acts as one; else two kinds of adversaries get in each other's way.
        is_coalition = rng.random() < 0.4
        behaviours = rng.sample(ADVERSARIES, 1 if is_coalition else 2)
        for index in pick_byzantine(rng, powers, sets):
            byzantine[index] = rng.choice(behaviours)
    elif sets == "fixed" and rng.random() < 0.4:
        sets = "rotating"
    plan = Plan(
        seed=seed,
        powers=powers,
        sets=sets,
        chaos_ms=rng.choice((200, 300, 400, 900)),
        loss=rng.choice((0.0, 0.05, 0.2, 0.4)),
        duplication=rng.choice((0.0, 0.1)),
        delay_ms_max=rng.choice((5, 15, 60)),
        crash_per_step=rng.choice((0.0, 0.005, 0.02, 0.06)),
        partitions=rng.choice((0, 0, 1, 2)),
        skewed_clocks=is_coalition or rng.random() < 0.5,
        followers=1 if rng.random() < 0.1 else 0,
        wire=rng.random() < 0.03,
        late_votes=rng.random() < 0.1,
        byzantine=dict(byzantine),
    )
    if plan.late_votes and not (plan.loss or plan.crash_per_step or plan.partitions):
        return replace(plan, nobody_absent=True, healed_heights=LATE_HEIGHTS + 4)
    return plan


def pick_byzantine(rng: random.Random, powers: tuple[int, ...], sets: Sets) -> list[int]:
    """As many as keep below 1/3 of the power of each set that may vote."""
    half = len(powers) // 2
    groups = [range(half), range(half, len(powers))] if sets == "whole" else [range(len(powers))]
    chosen = []
    for group in groups:
        left = (sum(powers[i] for i in group) - 1) // 3
        for index in rng.sample(group, len(group)):
            if powers[index] <= left:
                left -= powers[index]
                chosen.append(index)
    return chosen


def describe(plan: Plan) -> str:
    """A plan in one line, for the report of a failure."""
    actors = {i: kind.__name__ for i, kind in plan.byzantine.items() if isinstance(kind, type)}
    return repr(replace(plan, byzantine={})) + f" adversaries={actors}"


def run_seeds(seeds: range) -> None:
    """Run the plans of `seeds`. Raises AssertionError naming the first seed that fails.

    A simulation is one knot of references and dies whole, so the collector runs between batches of
    them and not inside: that saves a tenth of the time.
    """
    gc.disable()
    try:
        for count, seed in enumerate(seeds, start=1):
            _run_seed(seed)
            if count % COLLECT_EVERY == 0:
                gc.collect()
    finally:
        gc.enable()


def _run_seed(seed: int) -> None:
    plan = plan_of(seed)
    try:
        Simulation(plan).run()
    except Exception as error:
        raise AssertionError(
            f"seed {seed}: {error}\nagain: run_seeds(range({seed}, {seed + 1}))\n"
            f"plan: {describe(plan)}"
        ) from error


def count_until_caught(mutate: Callable[[Plan], Plan], seeds: range) -> int | None:
    """How many schedules it takes until a mutant breaks an invariant; None if none does."""
    for count, seed in enumerate(seeds, start=1):
        try:
            Simulation(mutate(plan_of(seed))).run()
        except InvariantBroken:
            return count
    return None
