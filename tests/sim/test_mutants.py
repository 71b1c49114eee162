"""The simulator's own test: it notices each broken rule, and finds nothing wrong without it."""

from __future__ import annotations

import pytest

from tests.sim.campaign import count_until_caught
from tests.sim.mutants import MUTANTS

SCHEDULES_MAX = 400


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_the_simulator_catches(name: str) -> None:
    count = count_until_caught(MUTANTS[name], range(SCHEDULES_MAX))
    assert count is not None, f"{name}: not caught within {SCHEDULES_MAX} schedules"


@pytest.mark.slow
def test_the_unbroken_core_passes_where_the_mutants_are_caught() -> None:
    from dataclasses import replace

    from consensus.rules import Rules
    from tests.sim.node import Node

    for name in sorted(MUTANTS):
        mutate = MUTANTS[name]
        unbroken = count_until_caught(
            lambda plan, mutate=mutate: replace(  # type: ignore[misc]  # default binds the loop's
                mutate(plan), rules=Rules, node_type=Node, guard_enforced=True
            ),
            range(30),
        )
        assert unbroken is None, f"under the faults of {name!r}"
