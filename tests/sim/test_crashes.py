"""A node is gone between what it wrote and what it was about to send, and comes back (rules 3, 20).

`guard_enforced` is on in each run: a restarted node that says something else than it has on record
breaks the run.
"""

from __future__ import annotations

import pytest

from consensus.effects import Persist
from consensus.messages import CertificateMessage, ConsensusMessage, Propose, Vote
from consensus.statement import StatementKind
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from tests.sim.adversaries import Mute, SilentLeader
from tests.sim.network import Simulation
from tests.sim.node import Node
from tests.sim.plan import Plan

SEEDS = range(25)


class CrashOnce:
    """Each honest node crashes right after it first made a statement of this kind durable."""

    def __init__(self, kind: StatementKind) -> None:
        self.kind = kind
        self.crashed: dict[int, tuple[int, int, bytes]] = {}

    def __call__(self, node: Node, persist: Persist) -> bool:
        for statement in persist.guard:
            if statement.kind is self.kind and node.index not in self.crashed:
                self.crashed[node.index] = (
                    statement.height,
                    statement.view,
                    statement.block_hash,
                )
                return True
        return False


@pytest.mark.parametrize("kind", list(StatementKind), ids=lambda k: k.name)
def test_a_crash_between_persist_and_send(kind: StatementKind) -> None:
    total = 0
    for seed in SEEDS:
        crash = CrashOnce(kind)
        # X needs views that end without a block, so one leader never proposes
        byzantine = {seed % 4: SilentLeader} if kind is StatementKind.NULLIFY else {}
        plan = Plan(seed=seed, chaos_ms=900, crash_after=crash, byzantine=dict(byzantine))
        simulation = Simulation(plan).run()
        total += len(crash.crashed)
        for index, said in crash.crashed.items():
            node = simulation.nodes[index]
            assert said in [(s.height, s.view, s.block_hash) for s in node.disk.guard.records]
    assert total >= 2 * len(SEEDS)


def test_a_leader_that_crashed_before_sending_sends_that_very_proposal() -> None:
    sent: set[bytes] = set()

    class Recorder(Node):
        def broadcast(self, message: ConsensusMessage) -> None:
            if hasattr(message, "block") and self.index in crash.crashed:
                sent.add(message.block.hash)
            super().broadcast(message)

    again = 0
    for seed in SEEDS:
        crash = CrashOnce(StatementKind.PROPOSE)
        sent.clear()
        Simulation(Plan(seed=seed, crash_after=crash, node_type=Recorder)).run()
        again += sum(said[2] in sent for said in crash.crashed.values())
    assert again >= len(SEEDS)


class HolderCrashes:
    """Only one node hears the notarizations of view 1; it crashes once they make a certificate."""

    def __init__(self, holder: int) -> None:
        self.holder = holder
        self.notarized: bytes | None = None
        self.others_knew = False

    def __call__(self, node: Node, persist: Persist) -> bool:
        for c in persist.certificates:
            if (c.kind, c.height, c.view) == (VoteKind.NOTARIZE, 1, 1):
                if node.index != self.holder:
                    self.others_knew |= node.sim.is_chaos
                elif self.notarized is None:
                    self.notarized = c.block_hash
                    return True
        return False

    def link(self, _: Simulation, source: int, target: int, message: ConsensusMessage) -> bool:
        is_notarize = isinstance(message, Vote) and message.kind is VoteKind.NOTARIZE
        if is_notarize:
            return target == self.holder
        if isinstance(message, Propose):
            return not message.justify
        return not isinstance(message, CertificateMessage)


def test_the_only_holder_of_a_notarization_restarts_and_its_block_is_final() -> None:
    """One of four is dead, so the holder's finalize vote leaves no way around its block."""
    tried = 0
    for seed in SEEDS:
        dead = 3
        holder = HolderCrashes(holder=seed % 3)
        plan = Plan(
            seed=seed,
            byzantine={dead: Mute},
            crash_after=holder,
            link=holder.link,
            genesis_hash=bytes([seed]) * 32,
        )
        simulation = Simulation(plan).run()
        if holder.notarized is None:
            continue  # the dead node leads view 1, or nobody was awake in time
        tried += 1
        assert not holder.others_knew
        assert simulation.finals[1].hash == holder.notarized
    assert tried >= len(SEEDS) // 2


def test_certificates_and_blocks_on_disk_are_those_that_votes_relied_on() -> None:
    """Rule 3: whatever F is on record, its notarization is too, and so is the body of each N
    (of a vote after the commit: in the chain)."""
    for seed in SEEDS:
        simulation = Simulation(Plan(seed=seed, crash_per_step=0.05, loss=0.1)).run()
        for node in simulation.honest:
            records = node.disk.records.records
            notarized = {
                (c.height, c.view, c.block_hash)
                for c in records
                if isinstance(c, Certificate) and c.kind is VoteKind.NOTARIZE
            }
            bodies = {b.hash for b in records if isinstance(b, Block)}
            bodies |= {b.hash for b, _ in node.disk.chain}
            final = {(b.height, c.view, b.hash) for b, c in node.disk.chain}
            for s in node.disk.guard.records:
                if s.kind is StatementKind.FINALIZE:
                    assert (s.height, s.view, s.block_hash) in notarized | final
                if s.kind in (StatementKind.NOTARIZE, StatementKind.PROPOSE):
                    assert s.block_hash in bodies
