"""Runs the consensus core: feeds it inputs and performs its effects in order.

One step at a time, on the event loop. A `Persist` is synced before any later effect of its step:
blocks and certificates in LevelDB first, then the sign guard (its sync costs a fraction of a
millisecond on a local disk; see docs/adr/0007). If a write fails the driver stops for good: no vote
leaves, nothing is announced, reads go on being served, and `stop_reason` says why. At a height that
needs newer software no height begins any more, but peers are still helped to the last one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

import structlog

from consensus import effects as fx
from consensus import inputs
from consensus.core import Core
from consensus.fork_proof import ForkProof
from consensus.leader import leader
from consensus.messages import (
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Vote,
    decode_message,
)
from consensus.statement import Statement, propose_sign_bytes
from ledger.block import Block
from ledger.certificate import Certificate
from ledger.chain import BlockTooEarly, Chain, Commit
from ledger.errors import DurabilityError, InvalidInputError, UsageError, ZynkError
from ledger.execution import BlockFacts, HandlerError
from ledger.tx import Tx
from ledger.upgrade import UpgradeNeeded
from node import wire
from node.block_facts import late_votes_of
from node.evidence_pool import EvidencePool
from node.guard import GuardFile
from node.proposals import ProposalExchange
from node.signature_pool import SignatureJob
from node.txpool import TxPool
from p2p.link import P2PLink

INPUTS_MAX = 20_000
BUILD_TRIES_MAX = 16
"""To build one block: each but the last bars one tx that a handler can not run."""
JUDGING_MAX = 16

log = structlog.get_logger("consensus")


class _StoppedError(Exception):
    """Ends a step whose remaining effects must not happen."""


class ConsensusDriver:
    """The runtime side of `consensus.core.Core`."""

    def __init__(
        self,
        *,
        chain: Chain,
        core: Core,
        make_facts: Callable[[int], BlockFacts],
        evidence: EvidencePool,
        guard: GuardFile | None,
        link: P2PLink,
        txpool: TxPool,
        wall_ms: Callable[[], int],
        on_commit: Callable[[Commit], None],
        on_need_sync: Callable[[str, int], None],
        on_offence: Callable[[str, str], None],
        on_fork: Callable[[ForkProof], None],
        on_other_chain: Callable[[str, int], None] = lambda peer, height: None,
    ) -> None:
        self.core = core
        self.stop_reason: str | None = None
        self._is_stopped = False
        self.nullified_views_total = 0
        self.evidence_total = 0
        self.failures_total = 0
        self.last_failure = ""
        self._chain = chain
        self._make_facts = make_facts
        self._evidence = evidence
        self._guard = guard
        self._link = link
        self._txpool = txpool
        self._wall_ms = wall_ms
        self._on_commit = on_commit
        self._on_need_sync = on_need_sync
        self._on_offence = on_offence
        self._on_fork = on_fork
        self._on_other_chain = on_other_chain
        self._is_forked = False
        self._loop = asyncio.get_running_loop()
        self._inputs: deque[inputs.Input] = deque()
        self._is_stepping = False
        self._timers: dict[inputs.TimerId, asyncio.TimerHandle] = {}
        self._judging: set[asyncio.Task[None]] = set()
        self.proposals = ProposalExchange(
            link=link, txpool=txpool, on_complete=self._on_proposal, on_offence=on_offence
        )

    # --- inputs ---

    def start_height(self) -> None:
        """Begin the height after the chain's tip, with whatever is stored for it. Raises
        DurabilityError if the stored records can not be read."""
        needed = self._chain.upgrade_needed()
        if needed is not None:
            self._end_before(needed)
            return
        height = self._chain.height + 1
        if height == self.core.height:
            return  # at work on it: beginning anew would forget the others' votes and the timer
        self._begin(height, is_anew=self.core.height == 0)

    def _begin(self, height: int, *, is_anew: bool) -> None:
        blocks, certificates = self._chain.load_consensus(height)
        records = () if self._guard is None else tuple(self._guard.records_at(height))
        recovered = None
        if blocks or certificates or records or is_anew:
            recovered = inputs.Recovered(
                guard=records, certificates=tuple(certificates), blocks=tuple(blocks)
            )
        self.feed(
            inputs.StartHeight(
                height=height,
                parent_hash=self._chain.head_hash,
                parent_certificate=self._chain.head_certificate,
                validators=self._chain.validators,
                next_validators=self._chain.next_validators,
                leaders=self._chain.leaders,
                seed=self._chain.seed,
                recovered=recovered,
            )
        )
        # A new chain makes its first block at once; peers may have come up before this call.
        if len(self._txpool.mempool) or (height == 1 and self._link.peers()):
            self.feed(inputs.Awake())

    def change_core(
        self, core: Core, make_facts: Callable[[int], BlockFacts], guard: GuardFile | None
    ) -> None:
        """Go on under another key, between a commit and the start of the next height."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.core, self._make_facts, self._guard = core, make_facts, guard

    def _end_before(self, needed: UpgradeNeeded) -> None:
        """No height begins any more. A core at the last one stays there: it has nothing to vote
        on, and whoever lacks that height gets it."""
        if self.stop_reason is not None:
            return
        if self.core.height != self._chain.height:
            self.stop(str(needed))
            return
        self.stop_reason = str(needed)
        log.error("consensus stopped", reason=self.stop_reason)

    def wake(self) -> None:
        """A tx is pending."""
        self.feed(inputs.Awake())

    def on_peer_up(self, peer: str) -> None:
        self.feed(inputs.PeerUp(peer=peer))
        self._evidence.on_peer_up(peer)
        if self._chain.height == 0:
            self.wake()  # for the first block, see start_height

    def on_certificate(self, peer: str, certificate: Certificate) -> None:
        """One that block sync found; nothing in it has been checked."""
        message = CertificateMessage(certificate=certificate)
        self.feed(inputs.Received(peer=peer, message=message))

    def on_message(self, peer: str, payload: bytes) -> None:
        """Channel 0. Raises InvalidInputError."""
        tag, body = payload[0], payload[1:]
        if tag == wire.TAG_CONSENSUS:
            message = decode_message(body)
            if isinstance(message, Final) and self._is_other_chain(message.block):
                self._on_other_chain(peer, message.height)
            if isinstance(message, Vote | Propose):
                self._check_signer(message.height, message.signer)
            self.feed(inputs.Received(peer=peer, message=message))
        elif tag == wire.TAG_COMPACT:
            compact = wire.CompactProposal.decode(body)
            if self._is_worth_completing(compact):
                self.proposals.on_compact(peer, compact)
        elif tag == wire.TAG_EVIDENCE:
            self._evidence.on_message(body)
        else:
            self.proposals.on_message(peer, tag, body)

    def _check_signer(self, height: int, signer: bytes) -> None:
        """Only validators vote and propose. Raises InvalidInputError, for the two heights whose set
        is known here: the one in work and the next."""
        ahead = height - (self._chain.height + 1)
        if ahead not in (0, 1):
            return
        validators = self._chain.next_validators if ahead else self._chain.validators
        if signer not in validators:
            raise InvalidInputError("signer is no validator", got=signer.hex())

    def _is_other_chain(self, block: Block) -> bool:
        """True if a block of the next height does not follow our tip."""
        return (
            self.stop_reason is None
            and block.height == self._chain.height + 1
            and block.header.parent_hash != self._chain.head_hash
        )

    def _is_worth_completing(self, compact: wire.CompactProposal) -> bool:
        """A proposal of this height's leader, or of a validator for the next height (whose leader
        is not known yet), signed. Raises InvalidInputError for a forged one."""
        ahead = compact.height - (self._chain.height + 1)
        if ahead not in (0, 1):
            return False
        self._check_signer(compact.height, compact.signer)
        if ahead == 0 and compact.signer != leader(
            self._chain.seed, compact.view, self._chain.leaders, self._chain.validators
        ):
            raise InvalidInputError("proposal by another than the leader")
        message = propose_sign_bytes(
            self._chain.chain_id, compact.height, compact.view, compact.header.hash
        )
        if not self.core.signature_check(compact.signer, message, compact.signature):
            raise InvalidInputError("proposal has a bad signature")
        return True

    def _on_proposal(self, peer: str, propose: Propose) -> None:
        self.feed(inputs.Received(peer=peer, message=propose))

    def feed(self, event: inputs.Input) -> None:
        """Queue an input and step until none is left. What comes before the first height starts is
        dropped: the start tells all peers where this node is, and they answer."""
        if self.core.height == 0 and not isinstance(event, inputs.StartHeight):
            return
        if self._is_stopped or len(self._inputs) >= INPUTS_MAX:
            return
        self._inputs.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._inputs:
                self._step(self._inputs.popleft())
        finally:
            self._is_stepping = False

    def _step(self, event: inputs.Input) -> None:
        """One step. An exception below is a bug of ours, perhaps met on purpose by a peer: losing
        that step is better than stopping, since the guard keeps us from signing twice whatever
        state this leaves. But a timer that is lost would never come again, so the height is then
        built anew from its records, as after a crash; if even that fails, nothing is left."""
        try:
            effects = self.core.step(int(self._loop.time() * 1000), event)
        except Exception:
            self._note_failure("a consensus step failed", input=type(event).__name__)
            if isinstance(event, inputs.StartHeight):
                self.stop(f"height {event.height} can not be started, for a bug of this node")
            elif isinstance(event, inputs.TimerFired):
                self._rebuild_height()
            return
        try:
            for effect in effects:
                self._perform_or_note(effect)
        except _StoppedError:
            pass
        except DurabilityError as error:
            self.stop(f"a write failed: {error}")

    def _perform_or_note(self, effect: fx.Effect) -> None:
        """A bug in one effect costs that effect. But nothing may leave that was not persisted, and
        a height whose block was not committed never ends: these two stop the driver. Raises
        DurabilityError, and _StoppedError if nothing more may happen."""
        try:
            self._perform(effect)
        except (_StoppedError, DurabilityError):
            raise
        except Exception as error:
            name = type(effect).__name__
            self._note_failure("an effect of consensus failed", effect=name)
            if isinstance(effect, fx.Persist | fx.Finalise):
                self.stop(f"{name} failed, for a bug of this node: {error!r}")
                raise _StoppedError from error

    def _rebuild_height(self) -> None:
        try:
            self._begin(self._chain.height + 1, is_anew=True)
        except Exception:
            self._note_failure("the records of a height can not be read")
            self.stop("the height can not be built anew: its records can not be read")

    def _note_failure(self, what: str, **details: object) -> None:
        """Called while an exception is handled."""
        self.failures_total += 1
        self.last_failure = what
        log.exception(what, **details)

    def stop(self, reason: str) -> None:
        """Stop for good; the node goes on serving reads."""
        if self._is_stopped:
            return
        self._is_forked = False
        self._is_stopped = True
        self.stop_reason = self.stop_reason or reason
        self._inputs.clear()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._judging:
            task.cancel()
        if reason != "node is stopping":
            log.error("consensus stopped", reason=reason)

    # --- effects ---

    def _perform(self, effect: fx.Effect) -> None:
        if self._is_stopped:
            raise _StoppedError  # an effect before this one ended it: the rest must not happen
        if self._is_forked and isinstance(effect, fx.Persist | fx.Finalise):
            raise _StoppedError
        match effect:
            case fx.Persist():
                if effect.blocks or effect.certificates:
                    self._chain.store_consensus(effect.blocks, effect.certificates)
                if effect.guard and self._guard is not None:
                    self._append_to_guard(effect.guard)
            case fx.Broadcast():
                self._broadcast(effect.message)
            case fx.SendTo():
                self._link.send(effect.peer, wire.CHANNEL_CONSENSUS, _encode(effect.message))
            case fx.ServeFinal():
                self._serve_final(effect.peer, effect.heights)
            case fx.SetTimer():
                self._set_timer(effect.timer, effect.delay_ms)
            case fx.CancelTimer():
                timer = self._timers.pop(effect.timer, None)
                if timer is not None:
                    timer.cancel()
            case fx.BuildBlock():
                self._build(effect)
            case fx.JudgeBlock():
                self._judge(effect.block, effect.fresh)
            case fx.Finalise():
                self._finalise(effect)
            case fx.FoundEvidence():
                self.evidence_total += 1
                self._evidence.found(effect.evidence)
            case fx.LookUpFinal():
                self._look_up_final(effect.height)
            case fx.Halt():
                self._halt(effect)
            case fx.RefusedFork():
                log.error(
                    "refused a second finalization of a height older than the trusting period",
                    height=effect.height,
                    block_hash=effect.block_hash.hex(),
                )
            case fx.NeedSync():
                self._on_need_sync(effect.peer, effect.height)
            case fx.BadPeer():
                self._on_offence(effect.peer, effect.reason)
            case _:
                assert_never(effect)

    def _append_to_guard(self, records: Sequence[Statement]) -> None:
        """Raises DurabilityError. A refusal means that core and guard disagree on what was signed:
        nothing may leave any more."""
        assert self._guard is not None
        try:
            self._guard.append(records)
        except UsageError as error:
            self.stop(f"the sign guard refused a vote: {error}")
            raise _StoppedError from error

    def _broadcast(self, message: ConsensusMessage) -> None:
        if isinstance(message, Propose):
            self.proposals.remember(message.block)
            compact = wire.CompactProposal.of(message, self._txpool.is_spread)
            self._link.broadcast(wire.CHANNEL_CONSENSUS, compact.encode())
        else:
            self._link.broadcast(wire.CHANNEL_CONSENSUS, _encode(message))

    def _serve_final(self, peer: str, heights: tuple[int, ...]) -> None:
        for height in heights:
            if 1 <= height <= self._chain.height:
                final = Final(
                    block=self._chain.block(height), certificate=self._chain.certificate(height)
                )
                self._link.send(peer, wire.CHANNEL_CONSENSUS, _encode(final))

    def _look_up_final(self, height: int) -> None:
        final = None
        try:
            header = self._chain.header(height)
            final = inputs.StoredFinal(
                header=header,
                certificate=self._chain.certificate(height),
                validators=self._chain.validators_at(height),
                certificates=tuple(self._chain.load_consensus(height)[1]),
                is_trusted=self._wall_ms() - header.time_ms
                <= self._chain.params.trusting_period_ms,
            )
        except InvalidInputError as error:  # pruned, or never here
            log.info("a final height can not be looked up", height=height, error=str(error))
        self.feed(inputs.FinalFound(height=height, final=final))

    def _halt(self, effect: fx.Halt) -> None:
        self.stop(effect.reason)  # also if saving the proof fails
        if effect.fork_proof is not None:
            self._on_fork(effect.fork_proof)
            # The core still trades certificates with its peers, so that each proof names the
            # guilty; it signs and finalises nothing.
            self._is_forked, self._is_stopped = True, False

    def _set_timer(self, timer: inputs.TimerId, delay_ms: int) -> None:
        running = self._timers.pop(timer, None)
        if running is not None:
            running.cancel()

        def fire() -> None:
            self._timers.pop(timer, None)
            self.feed(inputs.TimerFired(timer=timer))

        self._timers[timer] = self._loop.call_later(delay_ms / 1000, fire)

    def _build(self, effect: fx.BuildBlock) -> None:
        block = None
        if effect.height == self._chain.height + 1:
            try:
                block = self._build_around_bugs(effect.view)
            except UsageError:  # the operator's to mend; others lead on
                self._note_failure("no block could be built", height=effect.height)
        self.feed(inputs.BlockBuilt(height=effect.height, view=effect.view, block=block))

    def _build_around_bugs(self, view: int) -> Block:
        """A block of what is pending. A tx that a handler can not run is barred, since it would
        keep every leader that holds it from proposing; after some of them the block is empty."""
        params = self._chain.params
        time_ms = self._wall_ms()
        facts = self._make_facts(time_ms)
        for tries_left in reversed(range(BUILD_TRIES_MAX)):
            candidates = self._txpool.mempool.candidates(
                bytes_max=params.block_bytes_max, count_max=params.block_txs_max
            )
            try:
                return self._chain.build(
                    view=view,
                    facts=facts,
                    time_ms=time_ms,
                    candidates=candidates if tries_left else (),
                )
            except HandlerError as error:
                self._note_failure("a tx can not be executed; it is barred", tx=error.tx_id.hex())
                self._txpool.bar(error.tx_id)
        raise AssertionError("a block without txs runs no handler")

    def _judge(self, block: Block, fresh: bool) -> None:
        txs = self._txpool.pending_txs(block.tx_ids)
        votes = self._txpool.signatures.unknown(late_votes_of(self._chain, block))
        if txs is not None and not votes:
            self.feed(self._verdict(block, txs, fresh))
            return
        if len(self._judging) >= JUDGING_MAX:
            self.feed(inputs.BlockJudged(block_hash=block.hash, verdict=inputs.Verdict.EARLY))
            return
        task = self._loop.create_task(self._judge_unseen(block, votes, fresh), name="judge")
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _judge_unseen(self, block: Block, votes: Sequence[SignatureJob], fresh: bool) -> None:
        try:
            txs = await self._txpool.verified_txs(block.txs, votes)
        except InvalidInputError as error:
            log.warning("block refused", height=block.height, error=str(error))
            self.feed(inputs.BlockJudged(block_hash=block.hash, verdict=inputs.Verdict.INVALID))
        else:
            self.feed(self._verdict(block, txs, fresh))

    def _verdict(self, block: Block, txs: Sequence[Tx], fresh: bool) -> inputs.BlockJudged:
        verdict = inputs.Verdict.VALID
        try:
            self._chain.judge(block, txs, now_ms=self._wall_ms() if fresh else None)
        except BlockTooEarly:
            verdict = inputs.Verdict.EARLY
        except InvalidInputError as error:
            log.warning("block refused", height=block.height, error=str(error))
            verdict = inputs.Verdict.INVALID
        except Exception:  # a bug of ours: no vote for what we can not judge
            self._note_failure("a block can not be judged", height=block.height)
            verdict = inputs.Verdict.INVALID
        return inputs.BlockJudged(block_hash=block.hash, verdict=verdict)

    def _finalise(self, effect: fx.Finalise) -> None:
        if effect.block.height != self._chain.height + 1:
            return  # block sync was faster
        try:
            commit = self._chain.commit(effect.block, effect.certificate, None)
        except DurabilityError:
            raise
        except ZynkError as error:
            # More than 2/3 of the stake signed a block that our rules refuse: never go on.
            self.stop(f"a finalised block breaks our rules: {error}")
            return
        self.nullified_views_total += effect.certificate.view - 1
        try:
            self.committed(commit)
        except DurabilityError:
            raise
        except Exception:  # the height is final whoever can not hear of it
            self._note_failure("a final height was not told to all", height=commit.height)
        self.start_height()

    def committed(self, commit: Commit) -> None:
        """After each height, by consensus or by sync. Raises DurabilityError if the guard can
        not be written; by then all have heard of the height, which is final whatever happens."""
        self._link.set_height(commit.height)
        self.proposals.on_commit(commit.height)
        self._evidence.on_commit()
        self._on_commit(commit)
        if self._guard is not None:
            self._guard.prune_below(commit.height)


def _encode(message: ConsensusMessage) -> bytes:
    return bytes([wire.TAG_CONSENSUS]) + message.encode()
