"""The situations that the rules were made for, each by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from consensus.inputs import PeerUp
from consensus.leader import leader
from consensus.messages import (
    BodyRequest,
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Vote,
)
from consensus.statement import StatementKind
from ledger.certificate import Certificate, VoteKind
from tests.sim.adversaries import ADVERSARIES, FalseViews, FinalizeWithholder, ShowsLastToOne
from tests.sim.campaign import pick_byzantine
from tests.sim.network import Simulation
from tests.sim.node import Node
from tests.sim.plan import Link, Plan

SEEDS = range(20)


def held(node: Node, kind: VoteKind, view: int) -> list[Certificate]:
    """A node's durable certificates of a kind and view of height 1."""
    return [
        r
        for r in node.disk.records.records
        if isinstance(r, Certificate) and (r.kind, r.height, r.view) == (kind, 1, view)
    ]


def test_holders_of_a_notarization_meet_holders_of_the_nullification_of_that_view() -> None:
    """Node 0 alone hears the notarizations of view 1; the others nullify it. Both certificates
    exist, and the block may be proposed again or left: either way there is one decision."""
    outcomes = set()
    for seed in SEEDS:

        def link(_: Simulation, source: int, target: int, message: ConsensusMessage) -> bool:
            if isinstance(message, Vote) and (message.height, message.view) == (1, 1):
                if message.kind is VoteKind.NOTARIZE:
                    return target == 0
                return (source == 0) is False
            is_certificate = isinstance(message, CertificateMessage | Final)
            return not (is_certificate and 0 in (source, target))

        plan = Plan(seed=seed, chaos_ms=260, link=link, genesis_hash=bytes([seed + 1]) * 32)
        simulation = Simulation(plan)
        simulation.run()
        if held(simulation.nodes[0], VoteKind.NOTARIZE, 1) and any(
            held(node, VoteKind.NULLIFY, 1) for node in simulation.nodes[1:]
        ):
            outcomes.add(simulation.finals[1].header.origin_view == 1)
    assert outcomes == {True, False}


def _leads(simulation: Simulation, view: int) -> bool:
    """Whether node 3 leads a view of height 1."""
    voters = simulation.validators
    return leader(simulation.plan.genesis_hash, view, voters, voters) == simulation.keys[3]


def led_by(views: dict[int, bool], link: Link, count: int) -> Iterator[Simulation]:
    """`count` booted simulations of four with a pending tx in which node 3 leads those views of
    height 1 that are True, and not those that are False."""
    for number in range(256):
        plan = Plan(seed=number, genesis_hash=bytes([number]) * 32, chaos_ms=60_000, link=link)
        simulation = Simulation(plan)
        if all(_leads(simulation, v) is leads for v, leads in views.items()):
            count -= 1
            for node in simulation.nodes:
                node.boot()
                node.wake_soon(1)
            yield simulation
        if count == 0:
            return
    raise AssertionError("too few such leaders")


def test_a_finalization_without_its_body_fetches_the_body() -> None:
    asked: list[int] = []

    def link(_: Simulation, source: int, target: int, message: ConsensusMessage) -> bool:
        if isinstance(message, BodyRequest):
            asked.append(source)
        return not (isinstance(message, Propose | Final) and target == 3)

    for simulation in led_by({1: False}, link, 20):
        late = simulation.nodes[3]
        simulation.run_until(3_000_000, lambda node=late: bool(node.disk.chain))  # type: ignore[misc]  # binds the loop's
        assert late.disk.chain
        assert 3 in asked
        asked.clear()


def test_a_leader_with_a_notarization_but_no_body_fetches_it_and_proposes_it_again() -> None:
    """Node 3 leads view 2, has the notarization of view 1 and never saw its block."""

    def link(_: Simulation, source: int, target: int, message: ConsensusMessage) -> bool:
        if isinstance(message, Vote) and message.kind is not VoteKind.NOTARIZE:
            return (message.height, message.view) != (1, 1)
        return not (isinstance(message, Propose) and target == 3 and message.view == 1)

    for simulation in led_by({1: False, 2: True}, link, 12):
        finals = simulation.finals
        simulation.run_until(5_000_000, lambda f=finals: bool(f))  # type: ignore[misc]  # as above
        notarized = held(simulation.nodes[3], VoteKind.NOTARIZE, 1)
        proposed = [
            s.block_hash
            for s in simulation.nodes[3].disk.guard.records
            if s.kind is StatementKind.PROPOSE and (s.height, s.view) == (1, 2)
        ]
        assert proposed == [c.block_hash for c in notarized] != []
        assert simulation.finals[1].hash == proposed[0]
        assert simulation.finals[1].header.origin_view == 1


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_node_that_missed_many_heights_catches_up(is_idle: bool) -> None:
    for missed in (8, 20):
        simulation = Simulation(Plan(seed=missed))
        running, late = simulation.nodes[:3], simulation.nodes[3]
        for node in running:
            node.boot()
        simulation.run_until(
            60_000_000,
            lambda n=missed, up=running: all(len(x.disk.chain) >= n for x in up),  # type: ignore[misc]  # as above
        )
        simulation.is_quiet = is_idle
        simulation.is_chaos = False
        if is_idle:
            simulation.run_until(simulation.now_us + 100_000, lambda: False)
        tip = max(len(n.disk.chain) for n in running)
        late.boot()
        for node in running:
            late.step(PeerUp(peer=str(node.index)))
            node.step(PeerUp(peer=str(late.index)))
        simulation.run_until(simulation.now_us + 500_000, lambda: False)
        assert len(late.disk.chain) >= tip >= missed


@pytest.mark.parametrize("adversary", ADVERSARIES, ids=lambda a: a.__name__)
def test_one_adversary_alone_neither_forks_nor_frames_nor_stops_the_rest(
    adversary: type[Node],
) -> None:
    for seed in range(12):
        plan = Plan(
            seed=seed,
            byzantine={seed % 4: adversary},
            loss=0.1,
            crash_per_step=0.01,
            skewed_clocks=seed % 2 == 0,
            delay_ms_max=40,
        )
        Simulation(plan).run()


@pytest.mark.parametrize("powers", [(1,) * 7, (10, 5, 3, 2, 1), (3, 1, 1, 1, 1)])
@pytest.mark.parametrize("adversary", [FinalizeWithholder, FalseViews])
def test_a_coalition_just_below_a_third_does_not_stop_validators_with_skewed_clocks(
    powers: tuple[int, ...], adversary: type[Node]
) -> None:
    """Helping notarizations along and withholding finalizations keeps views apart, if anything."""
    for seed in range(12):
        plan = Plan(seed=seed, powers=powers, skewed_clocks=True, delay_ms_max=60, loss=0.1)
        simulation = Simulation(plan)
        members = pick_byzantine(simulation.rng, powers, "fixed")
        assert members
        Simulation(
            Plan(
                seed=seed,
                powers=powers,
                skewed_clocks=True,
                delay_ms_max=60,
                loss=0.1,
                byzantine=dict.fromkeys(members, adversary),
            )
        ).run()


def test_an_honest_validator_that_votes_late_is_never_missing() -> None:
    """Rule: a validator missed a height only if neither the certificate nor late votes show it."""
    for seed in range(4):
        plan = Plan(
            seed=seed,
            late_votes=True,
            nobody_absent=True,
            chaos_ms=1,
            healed_heights=24,
            delay_ms_max=40,
            powers=(3, 1, 1, 1, 1),
            sets="rotating" if seed % 2 else "fixed",
        )
        simulation = Simulation(plan).run()
        assert _late_votes_in(simulation) > 0


@pytest.mark.parametrize("powers", [(1, 1, 1, 1), (10, 5, 3, 2, 1), (1,) * 7])
def test_whom_a_leader_shows_its_proposals_last_is_never_missing(powers: tuple[int, ...]) -> None:
    """The victim hears each time that the block is final before it can judge it."""
    for seed in range(6):
        byzantine = dict.fromkeys(
            pick_byzantine(random.Random(seed), powers, "fixed"), ShowsLastToOne
        )
        plan = Plan(
            seed=seed,
            late_votes=True,
            nobody_absent=True,
            chaos_ms=1,
            healed_heights=30,
            powers=powers,
            byzantine=dict(byzantine),
        )
        simulation = Simulation(plan).run()
        assert _late_votes_in(simulation) > 0


def _late_votes_in(simulation: Simulation) -> int:
    chains = (node.disk.chain for node in simulation.honest)
    return sum(len(block.late_votes) for chain in chains for block, _ in chain)


def test_the_whole_validator_set_changes_from_one_height_to_the_next() -> None:
    changed = 0
    for seed in range(8):
        plan = Plan(
            seed=seed,
            powers=(1,) * 8,
            sets="whole",
            crash_per_step=0.01,
            loss=0.1,
            healed_heights=6,
        )
        simulation = Simulation(plan).run()
        node = simulation.honest[0]
        for block, _ in node.disk.chain:
            voters = node.validators_at(block.height)
            following = node.validators_at(block.height + 1)
            assert block.header.validators_hash == voters.hash
            assert block.header.next_validators_hash == following.hash
            changed += not set(voters.index_by_key) & set(following.index_by_key)
    assert changed >= 8
