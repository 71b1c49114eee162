"""Schedules with 1/3 to 2/3 of Byzantine power, which can fork, and what the disks then prove."""

from __future__ import annotations

import random

from consensus.evidence import Evidence, find_evidence, verify_evidence
from ledger.certificate import Certificate
from ledger.validator_set import ValidatorSet
from tests.sim.adversaries import (
    Byzantine,
    EquivocatingLeader,
    EquivocatingVoter,
    FinalizeWithholder,
    FreshLeader,
)
from tests.sim.network import Simulation
from tests.sim.plan import CHAIN_ID, Plan, Sets

STAKES: tuple[tuple[int, ...], ...] = (
    (1, 1, 1, 1),
    (1, 1, 1, 1),
    (3, 1, 1, 1, 1),
    (10, 5, 3, 2, 1),
    (1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
)
TWO_FACED = (Byzantine, Byzantine, EquivocatingVoter, EquivocatingLeader, FreshLeader)


def fork_plan_of(seed: int) -> Plan:
    """Honest validators on two sides of a partition; each Byzantine one runs on both, as two
    processes with one key; now and then one stays whole and lies to both sides."""
    rng = random.Random(seed * 1_000_003 + 5)
    powers = rng.choice(STAKES)
    sets: Sets = "whole" if len(powers) == 8 else "fixed"
    guilty = _pick_guilty(rng, powers, sets)
    honest = [i for i in range(len(powers)) if i not in guilty]
    rng.shuffle(honest)
    cut = rng.randint(1, max(1, len(honest) - 1))
    twins = {len(powers) + n: original for n, original in enumerate(guilty)}
    byzantine = {i: rng.choice(TWO_FACED) for i in (*guilty, *twins)}
    if rng.random() < 0.2:
        byzantine[guilty[0]] = FinalizeWithholder
    return Plan(
        seed=seed,
        powers=powers,
        sets=sets,
        chaos_ms=rng.choice((500, 900, 1500)),
        chaos_heights=rng.choice((1, 2, 12)),  # the last is too far apart for anything but sync
        loss=rng.choice((0.0, 0.1, 0.3)),
        delay_ms_max=rng.choice((5, 15, 60)),
        crash_per_step=rng.choice((0.0, 0.01)),
        skewed_clocks=rng.random() < 0.5,
        byzantine=dict(byzantine),
        followers=len(twins),
        twins=twins,
        fixed_sides=((*honest[:cut], *guilty), (*honest[cut:], *twins)),
        stops_at_fork=False,
        may_stall=True,
        healed_ms_max=8_000,
    )


def _pick_guilty(rng: random.Random, powers: tuple[int, ...], sets: Sets) -> list[int]:
    """From 1/3 to below 2/3 of the power of each set that may vote."""
    half = len(powers) // 2
    groups = [range(half), range(half, len(powers))] if sets == "whole" else [range(len(powers))]
    chosen: list[int] = []
    for group in groups:
        total = sum(powers[i] for i in group)
        while True:
            picked = rng.sample(group, rng.randint(1, len(group) - 1))
            power = sum(powers[i] for i in picked)
            if total <= 3 * power < 2 * total:
                chosen += picked
                break
    return chosen


def first_forked_height(simulation: Simulation) -> int | None:
    """The lowest height at which two honest nodes committed different blocks."""
    blocks: dict[int, set[bytes]] = {}
    for node in simulation.honest:
        for block, _ in node.disk.chain:
            blocks.setdefault(block.height, set()).add(block.hash)
    return min((h for h, hashes in blocks.items() if len(hashes) > 1), default=None)


def evidence_on_disks(
    simulation: Simulation, height: int
) -> tuple[dict[bytes, Evidence], ValidatorSet]:
    """What the honest nodes' disks alone prove about `height`, and the set that voted on it."""
    certificates: list[Certificate] = []
    for node in simulation.honest:
        certificates += [
            r
            for r in node.disk.records.records
            if isinstance(r, Certificate) and r.height == height
        ]
        certificates += [c for b, c in node.disk.chain if b.height == height]
    validators = simulation.honest[0].validators_at(height)
    found = find_evidence(certificates, validators)
    for evidence in found.values():
        verify_evidence(evidence, CHAIN_ID, simulation.scheme.is_valid)
    return found, validators
