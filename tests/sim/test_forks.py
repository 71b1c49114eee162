"""From 1/3 of Byzantine power on the chain can fork; then the guilty are named, and only they."""

from __future__ import annotations

import os

import pytest

from consensus.fork_proof import ForkProof, verify_fork_proof
from tests.sim.adversaries import Byzantine
from tests.sim.forks import evidence_on_disks, first_forked_height, fork_plan_of
from tests.sim.network import Simulation
from tests.sim.plan import CHAIN_ID, Plan

SCHEDULES = 10_000 if os.environ.get("ZYNK_SOAK") == "1" else 240
BATCH_COUNT = 8


def verify_own_proofs(simulation: Simulation) -> None:
    """Each honest node's exported proof, read back from its bytes, names guilty keys alone."""
    for node in simulation.honest:
        proof = ForkProof.decode(simulation.forks[node.index].encode())
        culprits = verify_fork_proof(
            proof, node.validators_at(proof.height), CHAIN_ID, simulation.scheme.is_valid
        )
        assert not simulation.honest_keys & set(culprits)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCH_COUNT))
def test_each_fork_is_proven_against_more_than_a_third_and_no_honest_one(batch: int) -> None:
    count = SCHEDULES // BATCH_COUNT
    forks = 0
    for seed in range(batch * count, (batch + 1) * count):
        simulation = Simulation(fork_plan_of(seed)).run()
        height = first_forked_height(simulation)
        if height is None:
            continue
        forks += 1
        found, validators = evidence_on_disks(simulation, height)
        assert not simulation.honest_keys & set(found), f"seed {seed}"
        power = sum(validators.power_of(key) for key in found)
        assert 3 * power > validators.total_power, f"seed {seed}"
        if simulation.plan.sets == "fixed":
            # else two branches with other validator sets can't judge each other's certificates
            assert simulation.is_fork_proven(), f"seed {seed}"
            verify_own_proofs(simulation)
    print(f"{forks} forks in {count} schedules")
    assert forks >= count // 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [52, 873, 5047, 8396])
def test_nodes_that_saw_the_fork_at_different_heights_all_name_the_guilty(seed: int) -> None:
    """Each shows what it has of the heights that the others stopped at."""
    simulation = Simulation(fork_plan_of(seed)).run()
    assert simulation.is_fork_proven()
    verify_own_proofs(simulation)


@pytest.mark.slow
def test_each_honest_validators_own_proof_names_both_two_faced_ones() -> None:
    """Validators 2 and 3 run twice, once on each side of a partition between 0 and 1."""
    for seed in range(40):
        plan = Plan(
            seed=seed,
            chaos_ms=900,
            loss=0.05,
            byzantine=dict.fromkeys((2, 3, 4, 5), Byzantine),
            followers=2,
            twins={4: 2, 5: 3},
            fixed_sides=((0, 2, 3), (1, 4, 5)),
            stops_at_fork=False,
        )
        simulation = Simulation(plan).run()
        assert simulation.is_fork_proven(), f"seed {seed}"
        verify_own_proofs(simulation)
        for node in simulation.honest:
            proof = simulation.forks[node.index]
            culprits = verify_fork_proof(
                proof, simulation.validators, CHAIN_ID, simulation.scheme.is_valid
            )
            assert set(culprits) == {simulation.keys[i] for i in (2, 3)}, f"seed {seed}"
