"""The simulator's own test: it notices each broken rule, and finds nothing wrong without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.rules import Rules
from tests.sim.campaign import count_until_caught
from tests.sim.mutants import MUTANTS
from tests.sim.node import Node
from tests.sim.plan import Plan

SCHEDULES_MAX = 400


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_the_simulator_catches(name: str) -> None:
    count = count_until_caught(MUTANTS[name], range(SCHEDULES_MAX))
    assert count is not None, f"{name}: not caught within {SCHEDULES_MAX} schedules"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_the_unbroken_core_passes_where_the_mutant_is_caught(name: str) -> None:
    def unbroken(plan: Plan) -> Plan:
        return replace(MUTANTS[name](plan), rules=Rules, node_type=Node, guard_enforced=True)

    assert count_until_caught(unbroken, range(20)) is None


def test_all_mutants_are_here_eleven_of_the_design_and_one_of_rule_15() -> None:
    assert len(MUTANTS) == 12
