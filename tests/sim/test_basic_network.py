"""The plainest schedules: four validators, with and without trouble, and a follower."""

from __future__ import annotations

from tests.sim.network import Plan, Simulation


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
