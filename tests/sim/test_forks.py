"""Above 1/3 of Byzantine power the chain can fork; then the guilty are named, and only they."""

from __future__ import annotations

import pytest

from consensus.evidence import find_evidence, verify_evidence
from consensus.fork_proof import ForkProof, verify_fork_proof
from ledger.certificate import Certificate
from tests.sim.adversaries import Byzantine
from tests.sim.crypto import is_valid
from tests.sim.network import Simulation
from tests.sim.plan import CHAIN_ID, Plan

TWO_FACED = (2, 3)


def forked(seed: int) -> Simulation:
    """Validators 2 and 3 run twice, once on each side of a partition between 0 and 1."""
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
    return Simulation(plan).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_fork_is_provable_from_disk_against_more_than_a_third_and_no_honest_one(
    seed: int,
) -> None:
    simulation = forked(seed)
    assert simulation.has_forked
    honest = simulation.honest
    height = next(
        h
        for h in range(1, min(len(node.disk.chain) for node in honest) + 1)
        if honest[0].disk.chain[h - 1][0].hash != honest[1].disk.chain[h - 1][0].hash
    )
    certificates = [
        record
        for node in honest
        for record in node.disk.records.records
        if isinstance(record, Certificate) and record.height == height
    ]
    certificates += [node.disk.chain[height - 1][1] for node in honest]
    found = find_evidence(certificates, simulation.validators)
    for evidence in found.values():
        verify_evidence(evidence, CHAIN_ID, is_valid)
    guilty = {simulation.keys[i] for i in TWO_FACED}
    assert set(found) <= guilty
    power = sum(simulation.validators.power_of(key) for key in found)
    assert 3 * power > simulation.validators.total_power


@pytest.mark.slow
def test_each_honest_validators_own_proof_names_both_two_faced_ones() -> None:
    for seed in range(100, 140):
        simulation = forked(seed)
        assert simulation.is_fork_proven(), f"seed {seed}"
        for node in simulation.honest:
            proof = ForkProof.decode(simulation.forks[node.index].encode())
            culprits = verify_fork_proof(proof, simulation.validators, CHAIN_ID, is_valid)
            assert set(culprits) == {simulation.keys[i] for i in TWO_FACED}, f"seed {seed}"
