"""Twins: a Byzantine validator is two honest processes with one key, tried systematically.

After Bano et al., "Twins: BFT Systems Made Robust" (2021). Four validators, of which the last runs
twice; for each of three views a leader and a split of the five processes into two sides. A message
gets through if its sender and receiver are on one side in the message's view. Nothing is random but
delays, and all 64 * 16^3 scenarios have a number; those that differ in the names of the honest
validators only are one.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

from consensus.leader import leader
from consensus.messages import ConsensusMessage
from ledger.codec import hash_tagged
from tests.sim.adversaries import Byzantine
from tests.sim.network import Simulation
from tests.sim.plan import Plan, validator_sets

VALIDATORS = 4
VIEWS = 3
TWIN, TWINNED = 4, 3
SPLITS = 2**4
"""Bit i: process i + 1 is not on the side of process 0."""
SCENARIO_COUNT = VALIDATORS**VIEWS * SPLITS**VIEWS

Scenario = tuple[tuple[int, ...], tuple[int, ...]]
"""(leader of each view, split of each view)."""


def scenario_of(number: int) -> Scenario:
    """Scenarios 0 .. SCENARIO_COUNT - 1."""
    digits = []
    for base in (VALIDATORS,) * VIEWS + (SPLITS,) * VIEWS:
        digits.append(number % base)
        number //= base
    return tuple(digits[:VIEWS]), tuple(digits[VIEWS:])


def _sides(split: int) -> tuple[int, ...]:
    return (0, *(split >> i & 1 for i in range(VALIDATORS)))


def _renamed(scenario: Scenario, order: tuple[int, ...]) -> Scenario:
    """With honest validator i called order[i]."""
    leaders, splits = scenario
    names = (*order, TWINNED, TWIN)
    renamed = []
    for split in splits:
        sides = _sides(split)
        moved = [0] * (VALIDATORS + 1)
        for index, side in enumerate(sides):
            moved[names[index]] = side
        flip = moved[0]
        renamed.append(sum((moved[i + 1] ^ flip) << i for i in range(VALIDATORS)))
    return tuple(names[i] for i in leaders), tuple(renamed)


def is_canonical(scenario: Scenario) -> bool:
    """True for one of all scenarios that are the same but for the names of the honest."""
    return all(scenario <= _renamed(scenario, order) for order in permutations(range(3)))


@cache
def genesis_hash_for(leaders: tuple[int, ...]) -> bytes:
    """A parent hash under which these validators lead views 1, 2, ..."""
    plan = Plan(seed=0)
    keys = [plan.scheme().public_key(i) for i in range(VALIDATORS)]
    [validators] = validator_sets(plan, keys)
    number = 0
    while True:
        found = hash_tagged("twins", number.to_bytes(8, "big"))
        if all(
            leader(found, view, validators, validators) == keys[i]
            for view, i in enumerate(leaders, start=1)
        ):
            return found
        number += 1


def run_scenario(number: int) -> Simulation:
    """Raises InvariantBroken."""
    leaders, splits = scenario_of(number)
    sides = [_sides(split) for split in splits]

    def link(simulation: Simulation, source: int, target: int, message: ConsensusMessage) -> bool:
        if message.height > 1:
            return True
        view = getattr(message, "view", None) or simulation.nodes[source].core.view
        side = sides[min(max(view, 1), VIEWS) - 1]
        return side[source] == side[target]

    plan = Plan(
        seed=number,
        chaos_ms=1800,
        chaos_heights=1,
        byzantine=dict.fromkeys((TWINNED, TWIN), Byzantine),
        followers=1,
        twins={TWIN: TWINNED},
        link=link,
        genesis_hash=genesis_hash_for(leaders),
        healed_heights=1,
    )
    return Simulation(plan).run()
