"""The plainest schedules: four validators, with and without trouble, and a follower."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from consensus.inputs import PeerUp
from tests.sim.network import Simulation
from tests.sim.plan import TIMING, Plan


def test_four_honest_validators_finalise_the_same_blocks() -> None:
    simulation = Simulation(Plan(seed=1)).run()
    assert len(simulation.finals) >= 3
    assert len({n.disk.chain[2][0].hash for n in simulation.honest}) == 1


def test_a_lone_validator_finalises() -> None:
    assert len(Simulation(Plan(seed=2, powers=(5,))).run().finals) >= 3


def test_a_full_node_without_a_key_follows_and_signs_nothing() -> None:
    simulation = Simulation(Plan(seed=3, followers=1, loss=0.1)).run()
    follower = simulation.nodes[4]
    assert not follower.is_validator
    assert len(follower.disk.chain) >= 3
    assert follower.disk.guard.records == []


def test_equal_seeds_give_equal_traces_and_others_do_not() -> None:
    def trace(seed: int) -> str:
        plan = Plan(seed=seed, loss=0.1, crash_per_step=0.01, skewed_clocks=True)
        return Simulation(plan).run().trace_hash

    assert trace(4) == trace(4)
    assert trace(4) != trace(5)


@pytest.mark.parametrize("heights_missed", [1, 3, 4, 12])
def test_a_node_that_was_down_catches_up_while_the_others_are_idle(heights_missed: int) -> None:
    simulation = Simulation(Plan(seed=6))
    running, late = simulation.nodes[:3], simulation.nodes[3]
    for node in running:
        node.boot()
    simulation.run_until(
        10_000_000, lambda: all(len(n.disk.chain) >= heights_missed for n in running)
    )
    simulation.is_quiet = True
    simulation.run_until(simulation.now_us + 100_000, lambda: False)
    tip = max(len(n.disk.chain) for n in running)
    late.boot()
    for node in running:  # the transport connects
        late.step(PeerUp(peer=str(node.index)))
        node.step(PeerUp(peer=str(late.index)))
    heartbeat_us = TIMING.heartbeat_ms * 1000
    simulation.run_until(simulation.now_us + heartbeat_us // 2, lambda: False)
    assert len(late.disk.chain) >= tip >= heights_missed


TRACE = """
from dataclasses import replace
from tests.sim.campaign import plan_of
from tests.sim.network import Simulation
print([Simulation(plan_of(seed)).run().trace_hash for seed in range(12)])
"""


@pytest.mark.slow
def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    """Nothing hangs on the order of a set or on an address."""
    traces = {
        subprocess.run(
            [sys.executable, "-c", TRACE],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in (1, 2)
    }
    assert len(traces) == 1
