"""A seeded network of real consensus cores, with everything around them that can go wrong.

The real `Core` runs against simulated time, links, disks and crashes. All choices come from one
`random.Random(seed)` and one event queue, so a seed is a schedule: the same seed gives the same
trace hash. A schedule has two phases: chaos (loss, delay, duplication, reordering, partitions,
crashes at any effect boundary) up to `chaos_ms`, then a healed network in which every honest node
must soon finalise more heights.

Invariants, checked as it runs: honest nodes never commit different blocks at a height; no invalid
block is committed; no evidence is found against an honest validator; nothing halts; the healed
network moves. Where a plan asks for it: the chain shows every honest validator at every height.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from hashlib import blake2b

from consensus.effects import Halt
from consensus.evidence import Evidence, verify_evidence
from consensus.fork_proof import ForkProof, IncompleteForkProofError, verify_fork_proof
from consensus.messages import ConsensusMessage
from consensus.statement import Statement, StatementKind
from ledger.block import Block
from ledger.certificate import Certificate, verify_certificate
from ledger.errors import InvalidInputError
from tests.sim.blocks import LATE_HEIGHTS, shown_at
from tests.sim.node import Node
from tests.sim.plan import CHAIN_ID, Plan, validator_sets

EVENTS_MAX = 400_000


class InvariantBroken(Exception):
    """The simulation found what must never be."""


class Simulation:
    """Runs one plan; raises InvariantBroken."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.delay_us_max = plan.delay_ms_max * 1000
        self.now_us = 0
        self.is_chaos = True
        self.finals: dict[int, Block] = {}
        self.valid_hashes: set[bytes] = set()
        self.evidence: dict[bytes, Evidence] = {}
        self.forks: dict[int, ForkProof] = {}
        self.has_forked = False
        self.events = 0
        self._trace = blake2b(digest_size=16)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._side: dict[int, int] = {}
        self.scheme = plan.scheme()
        self.count = len(plan.powers)
        self.keys = [self.scheme.public_key(i) for i in range(self.count + plan.followers)]
        for twin, original in plan.twins.items():
            self.keys[twin] = self.keys[original]
        self.sets = validator_sets(plan, self.keys[: self.count])
        self.validators = self.sets[0]
        self.is_quiet = False
        self.nodes: list[Node] = []
        for i in range(self.count + plan.followers):
            make = plan.byzantine.get(i) or plan.node_type or Node
            self.nodes.append(make(self, i))
        self.honest = [n for n in self.nodes if n.is_honest]
        self.honest_keys = {n.key for n in self.honest}

    # --- time ---

    def after(self, delay_us: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._sequence, action))

    def trace(self, *what: object) -> None:
        """Enter something into the trace: numbers, text and bytes, whose `repr` is stable."""
        self._trace.update(repr((self.now_us, *what)).encode())

    def trace_receipt(self, source: int, target: int) -> None:
        self._trace.update((self.now_us << 16 | source << 8 | target).to_bytes(12, "big"))

    @property
    def trace_hash(self) -> str:
        return self._trace.hexdigest()

    # --- running ---

    def run(self) -> Simulation:
        """Chaos, then heal, then see that the network moves."""
        for node in self.nodes:
            node.boot()
        self._plan_partitions()
        for number, side in enumerate(self.plan.fixed_sides):
            self._side.update(dict.fromkeys(side, number))
        self.run_until(
            self.plan.chaos_ms * 1000,
            lambda: min(len(n.disk.chain) for n in self.honest) >= self.plan.chaos_heights,
        )
        self._heal()
        goal = max(len(n.disk.chain) for n in self.honest) + self.plan.healed_heights

        def is_done() -> bool:
            if self.has_forked:
                return self.is_fork_proven()
            return all(len(n.disk.chain) >= goal for n in self.honest)

        self.run_until(self.now_us + self.plan.healed_ms_max * 1000, is_done)
        if not is_done() and not self.has_forked and not self.plan.may_stall:
            heights = [(n.index, n.core.height, n.core.view) for n in self.honest]
            raise InvariantBroken(f"stuck after healing: (node, height, view) = {heights}")
        if self.plan.nobody_absent:
            for node in self.honest:
                self._check_presence(node)
        return self

    def run_until(self, end_us: int, is_done: Callable[[], bool]) -> None:
        """Carry out events up to the moment `end_us`, or until `is_done`."""
        queue = self._queue
        while queue and queue[0][0] <= end_us:
            self.now_us, _, action = heapq.heappop(queue)
            action()
            self.events += 1
            if self.events > EVENTS_MAX:
                raise InvariantBroken("the schedule does not end")
            if self.events % 16 == 0 and is_done():
                return
        if not is_done():
            self.now_us = max(self.now_us, end_us)

    def _plan_partitions(self) -> None:
        for _ in range(self.plan.partitions):
            start_us = self.rng.randrange(self.plan.chaos_ms * 1000)
            self.after(start_us, self._split)
            self.after(start_us + self.rng.randrange(400_000), self._join)

    def _split(self) -> None:
        if self.is_chaos:
            self._side = {n.index: self.rng.randrange(2) for n in self.nodes}

    def _join(self) -> None:
        self._side = {}

    def _heal(self) -> None:
        self.is_chaos = False
        self._join()
        for node in self.nodes:
            if not node.is_up:
                node.boot()
            node.wake_soon(1)

    # --- links ---

    def can_talk(self, a: int, b: int) -> bool:
        return self.nodes[b].is_up and self._side.get(a) == self._side.get(b)

    def send(self, source: int, target: int, message: ConsensusMessage) -> None:
        rng, plan = self.rng, self.plan
        if source == target:
            return
        copies = 1
        if self.is_chaos:
            if self._side and self._side.get(source) != self._side.get(target):
                return
            if plan.link is not None and not plan.link(self, source, target, message):
                return
            if plan.loss and rng.random() < plan.loss:
                return
            if plan.duplication and rng.random() < plan.duplication:
                copies = 2
        node = self.nodes[target]
        for _ in range(copies):
            delay_us = 500 + int(rng.random() * self.delay_us_max)
            self.after(delay_us, lambda: node.receive(source, message))

    def broadcast(self, source: int, message: ConsensusMessage) -> None:
        for node in self.nodes:
            self.send(source, node.index, message)

    # --- invariants ---

    def on_commit(self, node: Node, block: Block, certificate: Certificate) -> None:
        """Called for each commit of an honest node."""
        self.trace("commit", node.index, block.height, block.hash)
        first = self.finals.setdefault(block.height, block)
        if first.hash != block.hash:
            self.has_forked = True
            if self.plan.stops_at_fork:
                raise InvariantBroken(f"two blocks are final at height {block.height}")
        try:
            verify_certificate(
                certificate,
                node.validators_at(block.height),
                CHAIN_ID,
                node.core.signature_check,
            )
        except InvalidInputError as error:
            raise InvariantBroken(f"height {block.height} is final without proof") from error
        if block.hash not in self.valid_hashes:
            raise InvariantBroken(f"an invalid block is final at height {block.height}")

    def _check_presence(self, node: Node) -> None:
        """What the liveness rule would judge by now: nobody honest is missing."""
        for height in range(1, len(node.disk.chain) - LATE_HEIGHTS):
            honest = self.honest_keys & set(node.validators_at(height).index_by_key)
            absent = honest - shown_at(node, height)
            names = [n.index for n in self.honest if n.key in absent and not _is_bound(n, height)]
            if names:
                raise InvariantBroken(f"honest nodes {names} count as absent at height {height}")

    def on_evidence(self, evidence: Evidence) -> None:
        verify_evidence(evidence, CHAIN_ID, self.scheme.is_valid)
        self.evidence[evidence.signer] = evidence
        if evidence.signer in self.honest_keys:
            raise InvariantBroken(
                f"an honest validator is framed: {evidence.first} and {evidence.second}"
            )

    def on_halt(self, node: Node, halt: Halt) -> None:
        self.has_forked = True
        if halt.fork_proof is not None:
            self.forks[node.index] = halt.fork_proof
        if self.plan.stops_at_fork:
            raise InvariantBroken(f"node {node.index} halted: {halt.reason}")

    def is_fork_proven(self) -> bool:
        """True if every honest node holds a proof that names the guilty."""
        for node in self.honest:
            proof = self.forks.get(node.index)
            if proof is None:
                return False
            try:
                validators = node.validators_at(proof.height)
                verify_fork_proof(proof, validators, CHAIN_ID, node.core.signature_check)
            except IncompleteForkProofError:
                return False
        return True

    def on_guard_refusal(self, statement: Statement) -> None:
        raise InvariantBroken(f"the sign guard had to refuse {statement}")


def _is_bound(node: Node, height: int) -> bool:
    """Its timer expired in the view that became final, or it notarized another block there: then a
    finalize vote would be evidence against it (rule 15 says why that can't get it jailed)."""
    if len(node.disk.chain) < height:
        return False
    final = node.disk.chain[height - 1][1]
    said = {
        (r.kind, r.block_hash)
        for r in node.disk.guard.records
        if (r.height, r.view) == (height, final.view)
    }
    others = {b for k, b in said if k is StatementKind.NOTARIZE} - {final.block_hash}
    return bool(others) or (StatementKind.NULLIFY, b"") in said
