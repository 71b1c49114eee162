"""A simulated node: the real core, a disk that forgets, a clock that drifts, crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.core import Core
from consensus.effects import (
    BadPeer,
    Broadcast,
    BuildBlock,
    CancelTimer,
    Effect,
    Finalise,
    FoundEvidence,
    Halt,
    JudgeBlock,
    LookUpFinal,
    NeedSync,
    Persist,
    SendTo,
    ServeFinal,
    SetTimer,
)
from consensus.inputs import (
    Awake,
    BlockBuilt,
    BlockJudged,
    FinalFound,
    Input,
    PeerUp,
    Received,
    Recovered,
    StartHeight,
    StoredFinal,
    TimerFired,
    TimerId,
    Verdict,
)
from consensus.messages import CertificateMessage, ConsensusMessage, Final, decode_message
from ledger.block import PROTOCOL_VERSION, Block, Header, compute_body_hash
from ledger.certificate import Certificate
from ledger.validator_set import ValidatorSet
from tests.sim.blocks import is_valid_block, late_votes
from tests.sim.disk import Disk
from tests.sim.plan import CHAIN_ID, TIMING

if TYPE_CHECKING:
    from tests.sim.network import Simulation

ZERO = b"\0" * 32


PERSIST_BOUNDARIES = 4
"""Write and sync the store, write and sync the guard: a crash here is between persist and send."""


class Crash(Exception):
    """Thrown at an effect boundary: the process is gone."""


class Node:
    """One honest validator, or a follower without a key."""

    is_honest = True
    core_type: type[Core] = Core

    def __init__(self, sim: Simulation, index: int) -> None:
        self.sim = sim
        self.index = index
        self.key = sim.keys[index]
        self.is_validator = any(self.key in validators for validators in sim.sets)
        self.disk = Disk()
        self.is_up = False
        self.clock_percent = sim.rng.randint(50, 200) if sim.plan.skewed_clocks else 100
        if sim.plan.clocks:
            self.clock_percent = sim.plan.clocks[index]
        self.rejections: list[str] = []
        self._timers: dict[TimerId, int] = {}
        self._timer_count = 0
        self._life = 0
        self.core = self._new_core()

    def _new_core(self) -> Core:
        return self.core_type(
            chain_id=CHAIN_ID,
            key=self.key if self.is_validator else None,
            sign=self.sim.scheme.signer(self.key) if self.is_validator else None,
            is_valid=self.sim.scheme.is_valid,
            timing=TIMING,
            rules=self.sim.plan.rules() if self.is_honest else None,
        )

    @property
    def now_ms(self) -> int:
        """The local monotonic clock."""
        return self.sim.now_us * self.clock_percent // 100_000

    # --- life ---

    def boot(self) -> None:
        self._life += 1
        self.is_up = True
        self.core = self._new_core()
        self._timers = {}
        self.start_height(self.recovered())
        for node in self.sim.nodes:
            if node is not self and self.is_up and node.is_up and self._life > 1:
                self.step(PeerUp(peer=str(node.index)))
                node.step(PeerUp(peer=str(self.index)))

    def recovered(self) -> Recovered:
        """What the disk has about the height to work on."""
        height = len(self.disk.chain) + 1
        return Recovered(
            guard=tuple(r for r in self.disk.guard.records if r.height == height),
            certificates=tuple(
                r
                for r in self.disk.records.records
                if isinstance(r, Certificate) and r.height == height
            ),
            blocks=tuple(
                r for r in self.disk.records.records if isinstance(r, Block) and r.height == height
            ),
        )

    def start_height(self, recovered: Recovered | None) -> None:
        chain = self.disk.chain
        self.step(
            StartHeight(
                height=len(chain) + 1,
                parent_hash=self.parent_hash(),
                parent_certificate=chain[-1][1] if chain else None,
                validators=self.validators_at(len(chain) + 1),
                next_validators=self.validators_at(len(chain) + 2),
                leaders=self.validators_at(len(chain) + 1),
                seed=self.parent_hash(),
                recovered=recovered,
            )
        )
        if self.is_up and (not self.sim.is_chaos or self.sim.rng.random() < 0.8):
            self.wake_soon(30)

    def parent_hash(self) -> bytes:
        return self.disk.chain[-1][0].hash if self.disk.chain else self.sim.plan.genesis_hash

    def validators_at(self, height: int) -> ValidatorSet:
        """The set that votes on `height`, up to two past this node's chain: what block H-2 made."""
        sets = self.sim.sets
        if height <= 2 or len(sets) == 1:
            return sets[0]
        return sets[self.disk.chain[height - 3][0].hash[0] % len(sets)]

    def wake_soon(self, within_ms: int) -> None:
        """A tx arrives."""
        if self.sim.is_quiet:
            return
        life = self._life
        delay_us = int(self.sim.rng.random() * within_ms * 1000)
        self.sim.after(delay_us, lambda: self._step_if_alive(life, Awake()))

    def crash(self) -> None:
        self.sim.trace("crash", self.index)
        self.is_up = False
        self._timers = {}
        self.disk.crash(self.sim.rng)
        down_us = int(self.sim.rng.random() * 300_000)
        self.sim.after(down_us, self._restart)

    def _restart(self) -> None:
        if not self.is_up:
            self.boot()

    # --- inputs ---

    def receive(self, source: int, message: ConsensusMessage) -> None:
        if not self.is_up:
            return
        self.sim.trace_receipt(source, self.index)
        if self.sim.plan.wire:
            message = decode_message(message.encode())
        self.step(Received(peer=str(source), message=message))

    def _step_if_alive(self, life: int, event: Input) -> None:
        if self.is_up and life == self._life:
            self.step(event)

    def step(self, event: Input) -> None:
        """One input and its effects, perhaps cut short by a crash at any boundary."""
        if not self.is_up:
            return
        effects = self.core.step(self.now_ms, event)
        plan, rng = self.sim.plan, self.sim.rng
        crash_at = -1
        if (
            plan.crash_after is not None
            and self.is_honest
            and effects
            and isinstance(effects[0], Persist)
            and plan.crash_after(self, effects[0])
        ):
            crash_at = PERSIST_BOUNDARIES
        elif self.is_honest and self.sim.is_chaos and effects and plan.crash_per_step:
            has_persist = isinstance(effects[0], Persist)
            # Steps with something to lose are where a crash is worth simulating.
            if rng.random() < plan.crash_per_step * (4 if has_persist else 1):
                crash_at = rng.randint(0, len(effects) + (3 if has_persist else 0))
        try:
            boundary = 0
            for effect in effects:
                boundary = self._perform(effect, boundary, crash_at)
            if crash_at >= 0:
                raise Crash
        except Crash:
            self.crash()

    # --- effects ---

    def _perform(self, effect: Effect, boundary: int, crash_at: int) -> int:
        """Carry out one effect; raises Crash before the boundary numbered `crash_at`."""
        if isinstance(effect, Persist):
            writes: tuple[Callable[[], None], ...] = (
                lambda: self._write_records(effect),
                self.disk.records.sync,
                lambda: self._write_guard(effect),
                self.disk.guard.sync,
            )
            for write in writes:
                if boundary == crash_at:
                    raise Crash
                write()
                boundary += 1
            return boundary
        if boundary == crash_at:
            raise Crash
        self._act(effect)
        return boundary + 1

    def _write_records(self, effect: Persist) -> None:
        records: tuple[Block | Certificate, ...] = (*effect.blocks, *effect.certificates)
        for record in records:
            self.disk.records.append(record)

    def _write_guard(self, effect: Persist) -> None:
        for statement in effect.guard:
            if self.sim.plan.guard_enforced and self.is_honest:
                self.disk.check_guard(statement, self.sim)
            self.disk.guard.append(statement)

    def _act(self, effect: Effect) -> None:
        sim = self.sim
        match effect:
            case Broadcast():
                self.broadcast(effect.message)
            case SendTo():
                sim.send(self.index, int(effect.peer), effect.message)
            case SetTimer():
                self._set_timer(effect)
            case CancelTimer():
                self._timers.pop(effect.timer, None)
            case BuildBlock():
                self._later(lambda: self._built(effect))
            case JudgeBlock():
                self._later(lambda: self._judged(effect))
            case Finalise():
                self._commit(effect.block, effect.certificate)
            case FoundEvidence():
                if self.is_honest:
                    sim.on_evidence(effect.evidence)
            case Halt():
                if self.is_honest:
                    sim.on_halt(self, effect)
            case LookUpFinal():
                self._later(lambda: self.step(self._found(effect.height)))
            case ServeFinal():
                for height in effect.heights:
                    block, certificate = self.disk.chain[height - 1]
                    sim.send(
                        self.index, int(effect.peer), Final(block=block, certificate=certificate)
                    )
            case NeedSync():
                sim.after(5000, lambda: self._sync_from(int(effect.peer)))
            case BadPeer():
                self.rejections.append(effect.reason)
            case _:
                pass

    def _found(self, height: int) -> FinalFound:
        if not 1 <= height <= len(self.disk.chain):
            return FinalFound(height=height, final=None)
        block, certificate = self.disk.chain[height - 1]
        stored = StoredFinal(
            header=block.header,
            certificate=certificate,
            validators=self.validators_at(height),
            certificates=tuple(
                r
                for r in self.disk.records.records
                if isinstance(r, Certificate) and r.height == height
            ),
            is_trusted=True,
        )
        return FinalFound(height=height, final=stored)

    def broadcast(self, message: ConsensusMessage) -> None:
        self.sim.broadcast(self.index, message)

    def _later(self, action: Callable[[], None]) -> None:
        life = self._life

        def run() -> None:
            if self.is_up and life == self._life:
                action()

        self.sim.after(int(self.sim.rng.random() * 4000), run)

    def _set_timer(self, effect: SetTimer) -> None:
        self._timer_count += 1
        count, life, timer = self._timer_count, self._life, effect.timer
        self._timers[timer] = count

        def fire() -> None:
            if self.is_up and life == self._life and self._timers.get(timer) == count:
                del self._timers[timer]
                self.step(TimerFired(timer=timer))

        delay_us = effect.delay_ms * 100_000 // self.clock_percent + 1000
        self.sim.after(delay_us, fire)

    def make_block(self, height: int, view: int, *, is_valid_block: bool = True) -> Block:
        """A block that differs from each other one ever made."""
        parent = self.core.parent_certificate()
        late = self.late_votes()
        header = Header(
            protocol_version=PROTOCOL_VERSION,
            chain_id=CHAIN_ID,
            height=height,
            time_ms=self.sim.now_us // 1000,
            parent_hash=self.parent_hash(),
            origin_view=view,
            proposer=self.key,
            vrf_proof=self.sim.rng.randbytes(16),
            body_hash=compute_body_hash((), parent, late),
            state_root=ZERO,
            audit_size=0 if is_valid_block else 1,
            audit_root=ZERO,
            results_root=ZERO,
            validators_hash=self.validators_at(height).hash,
            next_validators_hash=self.validators_at(height + 1).hash,
        )
        block = Block(header, (), parent, late)
        if is_valid_block:
            self.sim.valid_hashes.add(block.hash)
        return block

    def late_votes(self) -> tuple[bytes, ...]:
        return late_votes(self) if self.sim.plan.late_votes else ()

    def _built(self, effect: BuildBlock) -> None:
        if effect.height == len(self.disk.chain) + 1:
            block = self.make_block(effect.height, effect.view)
            self.step(BlockBuilt(height=effect.height, view=effect.view, block=block))

    def _judged(self, effect: JudgeBlock) -> None:
        verdict = Verdict.VALID if is_valid_block(self, effect.block) else Verdict.INVALID
        if effect.fresh and self.sim.is_chaos and self.sim.rng.random() < 0.05:
            verdict = Verdict.EARLY
        self.step(BlockJudged(block_hash=effect.block.hash, verdict=verdict))

    def _commit(self, block: Block, certificate: Certificate) -> None:
        assert block.height == len(self.disk.chain) + 1, "the core finalises one height at a time"
        self.disk.chain.append((block, certificate))
        if self.is_honest:
            self.sim.on_commit(self, block, certificate)
        self._later(lambda: self.start_height(None))

    def _sync_from(self, peer: int) -> None:
        """Block sync: take over a peer's committed heights."""
        if not self.is_up or not self.sim.can_talk(self.index, peer):
            return
        ours, theirs = self.disk.chain, self.sim.nodes[peer].disk.chain
        if len(theirs) <= len(ours):
            return
        for block, certificate in theirs[len(ours) :]:
            if block.header.parent_hash != self.parent_hash():
                # the peer's chain is another one: the core judges what finalizes its tip
                other = block.parent_certificate
                if other is not None:
                    message = CertificateMessage(certificate=other)
                    self.step(Received(peer=str(peer), message=message))
                return
            ours.append((block, certificate))
            if self.is_honest:
                self.sim.on_commit(self, block, certificate)
        self.start_height(self.recovered())
