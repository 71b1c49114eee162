"""Simplex, one height at a time, as a pure function of inputs: `Core.step(now, input) -> effects`.

A height runs through views. In each, a leader proposes a block; validators notarize it; a
notarization (more than 2/3 of the power) lets them finalize it; a finalization ends the height,
three message delays after the proposal. If the view's timer expires first they nullify the view,
and a nullification lets everyone enter the next one. Whoever proposes must show by certificates
(`justify`) that no other block can have become final before.

The rules are numbered in docs/adr/0002-simplex.md, and each is cited where it is carried out:

    leader      who proposes                     justify     rules 5, 6, 13: why a leader may
    statement   what is signed, what conflicts   tally       counting, contradictions (8, 21)
    messages    wire (4)                         rules       when this node may vote (2, 11, 14)
    inputs      what the core is told            voting      casting and counting (1-3, 14)
    effects     what it wants done               proposals   making and judging (6-9, 13)
    context     the state                        views       timers, entering views (10-12, 18, 19)
    guard       own statements, durable (3)      catchup     retry, answers, buffering (16, 17)
    evidence    proofs of guilt (21)             finality    finalising, forks (15, 17)
    fork_proof  who made a fork (21)             finals      heights that are final: late votes,
                                                             late contradictions (15, 21)

Why it is safe, in short. Say F-cert(v, h) exists. A nullification of v, or a notarization of
another block in v, would share more than 1/3 of the power with it, and an honest validator gives
neither vote beside its F (rule 14). So each valid proposal in a view w > v, which must show
nullifications back to a notarization, finds one at p >= v, and by induction of h itself.

A step takes in one input, then applies the rules until none of them has anything left to do.
Nothing here reads a clock, does I/O, or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import assert_never

from consensus import catchup, finality, proposals, views, voting
from consensus.context import VIEWS_AHEAD_MAX, Context, HeightState
from consensus.effects import BadPeer, Broadcast, Effect, Halt, RefusedFork
from consensus.finals import FinalHeight, FinalHeights
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
    TimerFired,
    TimerId,
)
from consensus.messages import (
    Body,
    BodyRequest,
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Status,
    Vote,
)
from consensus.rules import Rules
from consensus.signatures import SignatureCache
from consensus.statement import StatementKind
from consensus.timing import Timing
from ledger.certificate import Certificate, SignatureCheck, VoteKind
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStatus:
    """A snapshot for `zynk status`. Powers are sums of voting power in the current view."""

    height: int
    view: int
    leader: bytes
    is_leader: bool
    is_awake: bool
    is_finalised: bool
    is_halted: bool
    timeout_base_ms: int
    total_power: int
    notarize_power: int
    nullify_power: int
    finalize_power: int
    waiting_for_body: bool
    not_voting_because: str | None


class Core:
    """One validator's (or, without a key, one full node's) consensus.

    `sign` signs with the key; `floor` is the sign guard's: nothing is signed at or below that
    (height, view). `is_valid` checks one signature; `signature_check` is the same behind a cache
    (itself, if it is one), for the runtime to check a block's parent certificate with.
    """

    def __init__(
        self,
        *,
        chain_id: str,
        key: bytes | None,
        sign: Callable[[bytes], bytes] | None,
        timing: Timing,
        is_valid: SignatureCheck = is_valid_signature,
        floor: tuple[int, int] = (0, 0),
        rules: Rules | None = None,
    ) -> None:
        if (key is None) != (sign is None):
            raise UsageError("a key and its signer come together")
        self.signature_check = (
            is_valid if isinstance(is_valid, SignatureCache) else SignatureCache(is_valid)
        )
        self._chain_id = chain_id
        self._key = key
        self._sign = sign
        self._timing = timing
        self._floor = floor
        self._rules = rules if rules is not None else Rules()
        self._context: Context | None = None
        self._buffer = catchup.HeightBuffer()
        self._finals = FinalHeights()
        self._forks: finality.Forks = {}
        self._halted = False

    @property
    def height(self) -> int:
        """The height in work; 0 before the first `StartHeight`."""
        return 0 if self._context is None else self._context.s.height

    @property
    def view(self) -> int:
        return 0 if self._context is None else self._context.s.view

    def parent_certificate(self) -> Certificate | None:
        """For whoever builds the block of the height in work: the finalization of its parent with
        every signer known by now. None in height 1."""
        if self._context is None:
            return None
        final = self._finals.get(self._context.s.height - 1)
        return self._context.s.parent_certificate if final is None else final.widest_certificate()

    def finalize_votes(self, height: int, signers: Collection[bytes]) -> tuple[Vote, ...]:
        """Verified finalize votes for the final block of one of the last
        `finals.FINALS_KEPT_MAX` heights, by those of `signers` of whom one is known."""
        return self._finals.finalize_votes(height, signers)

    def status(self) -> CoreStatus | None:
        """A snapshot; None before the first `StartHeight`."""
        c = self._context
        if c is None:
            return None
        s = c.s
        reason = c.why_not_signing()
        if self._halted:
            reason = "halted: the chain has forked, see the fork proof"
        elif reason is None and s.final is not None and not s.is_finalised:
            reason = "the height is final; its block is being fetched"
        return CoreStatus(
            height=s.height,
            view=s.view,
            leader=s.leader(s.view),
            is_leader=s.leader(s.view) == c.key,
            is_awake=s.awake,
            is_finalised=s.is_finalised,
            is_halted=self._halted,
            timeout_base_ms=c.base_ms,
            total_power=s.validators.total_power,
            notarize_power=s.tally.power_of_kind(VoteKind.NOTARIZE, s.view),
            nullify_power=s.tally.power_of_kind(VoteKind.NULLIFY, s.view),
            finalize_power=s.tally.power_of_kind(VoteKind.FINALIZE, s.view),
            waiting_for_body=s.wanted_body is not None and s.wanted_body not in s.blocks,
            not_voting_because=reason,
        )

    def step(self, now_ms: int, event: Input) -> list[Effect]:
        """Take in one input; return what is to be done, in order (see `effects`).

        `now_ms` is a monotonic clock and never goes back. Input from peers never raises.
        Raises UsageError for a call that makes no sense (an input before `StartHeight`, another
        block than asked for).
        """
        c = self._context
        if self._halted:
            if c is None or not self._forks:
                return []
            c.now_ms = now_ms
            other = finality.find_other_fork(c, self._forks, self._finals, event)
            if other is not None:
                self._halt(c, finality.fork_of(other), other.book.all())
            else:
                finality.on_input_when_forked(c, self._forks, event)
            return c.out.take()
        if isinstance(event, StartHeight):
            return self._start_height(now_ms, event)
        if c is None:
            raise UsageError("the core got an input before its first StartHeight")
        c.now_ms = now_ms
        self._take_in(c, event)
        if not self._halted:
            self._apply_rules(c)
        return c.out.take()

    def _take_in(
        self,
        c: Context,
        event: Received | TimerFired | Awake | BlockBuilt | BlockJudged | FinalFound | PeerUp,
    ) -> None:
        match event:
            case Received():
                self._on_received(c, event.peer, event.message)
            case TimerFired():
                self._on_timer(c, event.timer)
            case Awake():
                c.s.has_tx = True
                views.wake(c)
            case BlockBuilt():
                proposals.on_block_built(c, event)
            case BlockJudged():
                proposals.on_block_judged(c, event)
            case FinalFound():
                self._on_final_found(c, event)
            case PeerUp():
                catchup.on_peer_up(c, event.peer)
            case _:
                assert_never(event)

    def _apply_rules(self, c: Context) -> None:
        """Until nothing is left to do. Each rule that acts makes progress that it can't undo:
        a vote cast, a view entered, a proposal made, the height ended; so this ends."""
        while True:
            if c.s.final is not None:
                self._finalise(c)
                return
            if not (
                views.change_view(c)
                or voting.notarize_pending(c)
                or voting.finalize_pending(c)
                or proposals.take_in_held(c)
                or proposals.propose_if_leader(c)
            ):
                return

    def _finalise(self, c: Context) -> None:
        s = c.s
        fork = finality.find_fork(c)
        if fork is not None:
            self._halt(c, fork, s.book.all())
            return
        if not (s.is_finalised or s.is_orphan):
            try:
                other = finality.find_orphan(c)
            except InvalidInputError as error:
                self._halt_without_proof(c, str(error))
                return
            if other is not None:
                s.is_orphan = True
                self._finals.look_up(c, "", CertificateMessage(certificate=other))
                return
        if not s.is_finalised:
            voting.finalize_after_quorum(c)
        if finality.finalise_if_ready(c):
            self._finals.remember(FinalHeight.of_state(s), s.height + 1)

    def _on_final_found(self, c: Context, found: FinalFound) -> None:
        """Rule 15: a second finalization inside the trusting period halts, an older one is refused;
        but no node goes on past a block that does not follow its own chain."""
        conflicting = self._finals.on_found(c, found)
        if conflicting is not None and found.final is not None:
            if found.final.is_trusted:
                self._halt(c, finality.fork_of(conflicting), conflicting.book.all())
                return
            second = conflicting.other_finalization()
            if second is not None and c.limit("", "refused fork"):
                c.out.emit(RefusedFork(height=found.height, block_hash=second.block_hash))
        if c.s.is_orphan and found.height == c.s.height - 1:
            self._halt_without_proof(c, "the finalization of its parent proves nothing here")

    def _halt(self, c: Context, fork: finality.Fork, certificates: Iterable[Certificate]) -> None:
        self._halted = True
        finality.halt(c, self._forks, fork, certificates)

    def _halt_without_proof(self, c: Context, why: str) -> None:
        self._halted = True
        c.out.emit(Halt(reason=f"{finality.REASON_ORPHAN}: {why}", fork_proof=None))

    # --- starting a height ---

    def _start_height(self, now_ms: int, start: StartHeight) -> list[Effect]:
        """Rules 10, 17, 19, 20."""
        old = self._context
        state = HeightState(start, now_ms)
        c = Context(
            chain_id=self._chain_id,
            key=self._key,
            sign=self._sign,
            signatures=self.signature_check,
            timing=self._timing,
            rules=self._rules,
            floor=self._floor,
            base_ms=self._timing.view_timeout_base_ms if old is None else old.base_ms,
            s=state,
            now_ms=now_ms,
        )
        if old is not None:
            c.out = old.out
            c.out.take()  # what a step that failed has left was neither stored nor sent
            for timer in TimerId:
                c.out.cancel_timer(timer)
            if start.height == old.s.height + 1:
                self._finals.vote_after_commit(old, start.parent_hash)
        self._context = c
        self._finals.start_height()
        c.out.set_timer(TimerId.HEARTBEAT, now_ms, self._timing.heartbeat_ms)
        if start.recovered is not None:
            self._recover(c, start.recovered)
        for peer, message in self._buffer.take(start.height):
            self._on_received(c, peer, message)
        if not self._halted:
            self._apply_rules(c)
        return c.out.take()

    def _recover(self, c: Context, recovered: Recovered) -> None:
        """Rule 20: reload, count own votes again, send again."""
        s = c.s
        for block in recovered.blocks:
            if block.height == s.height:
                s.keep_block(block)
        for certificate in recovered.certificates:
            if certificate.height == s.height:
                voting.accept_certificate(c, certificate, is_durable=True)
                voting.count_votes_of(c, certificate)
        own = [x for x in recovered.guard if x.height == s.height]
        for statement in voting.own_statements_of(c, recovered.certificates):
            # A crash between the two writes of a `Persist`: the certificate is durable with a vote
            # of ours inside, the guard record is not. Others may see that vote, so it binds us.
            if statement not in own:
                own.append(statement)
                c.out.persist_statement(statement)
        for statement in own:
            s.own.add(statement)
        s.view = max(
            1, s.own.highest_view(), s.book.highest_notarized, s.book.highest_nullified + 1
        )
        self._recount(c, recovered)
        if own or s.view > 1:
            views.wake(c)
            s.expired = s.view in s.own.nullified
            for message in catchup.retry_bundle(c):
                c.out.emit(Broadcast(message=message))
        else:
            c.out.emit(Broadcast(message=views.status(c)))

    def _recount(self, c: Context, recovered: Recovered) -> None:
        if c.key is None or c.key not in c.s.validators.index_by_key:
            return
        for statement in recovered.guard:
            if statement.height != c.s.height:
                continue
            if statement.kind is StatementKind.PROPOSE:
                proposals.restore_own_proposal(c, statement)
            else:
                voting.count(
                    c,
                    statement.kind,
                    statement.view,
                    statement.block_hash,
                    c.key,
                    voting.resign(c, statement),
                )

    # --- messages ---

    def _on_received(self, c: Context, peer: str, message: ConsensusMessage) -> None:
        s = c.s
        if message.height > s.height and not isinstance(message, Status):
            self._on_later_height(c, peer, message)
            return
        if (message.height < s.height or s.is_finalised) and isinstance(
            message, Vote | Propose | CertificateMessage | Final
        ):
            self._finals.on_late(c, peer, message)
            return
        match message:
            case Status():
                catchup.on_status(c, peer, message)
            case BodyRequest():
                catchup.on_body_request(c, peer, message)
            case Vote():
                self._on_vote(c, peer, message)
            case Propose():
                self._look_for_other_parent(c, peer, message)
                if s.final is None:
                    proposals.on_propose(c, peer, message)
            case CertificateMessage():
                self._on_certificate(c, peer, message.certificate)
            case Body():
                catchup.on_body(c, message)
            case Final():
                self._on_final(c, peer, message)
            case _:
                assert_never(message)

    def _on_later_height(self, c: Context, peer: str, message: ConsensusMessage) -> None:
        """Rule 17. A proposal for the next height carries the finalization of this one."""
        s = c.s
        ahead = message.height - s.height
        if ahead == 1 or (isinstance(message, Final) and ahead <= catchup.FINALS_SERVED_MAX):
            try:
                catchup.buffer_if_valid(c, self._buffer, peer, message)
            except InvalidInputError as error:
                c.out.emit(BadPeer(peer=peer, reason=str(error)))
                return
        if ahead == 1 and isinstance(message, Propose):
            try:
                certificate = finality.parent_finalization(
                    message.block.parent_certificate, s.height
                )
                if s.is_finalised:
                    self._finals.on_late(c, peer, CertificateMessage(certificate=certificate))
                else:
                    voting.verify_and_accept(c, certificate)
            except InvalidInputError as error:
                c.out.emit(BadPeer(peer=peer, reason=str(error)))
        catchup.on_ahead(c, peer, message.height)

    def _on_vote(self, c: Context, peer: str, vote: Vote) -> None:
        if vote.view > c.s.view + VIEWS_AHEAD_MAX:
            return
        counted = voting.verify_and_count(c, vote)
        if counted:
            views.wake(c)
        elif counted is False:
            c.out.emit(BadPeer(peer=peer, reason="vote has a bad signature"))

    def _on_certificate(self, c: Context, peer: str, certificate: Certificate) -> None:
        """Take in a certificate of this height."""
        s = c.s
        try:
            voting.verify_and_accept(c, certificate)
        except InvalidInputError as error:
            c.out.emit(BadPeer(peer=peer, reason=str(error)))
            return
        views.wake(c)
        s.later_view_seen = max(s.later_view_seen, certificate.view)

    def _look_for_other_parent(self, c: Context, peer: str, propose: Propose) -> None:
        """A proposal on another parent than ours may show that this parent is final too."""
        certificate = propose.block.parent_certificate
        if (
            certificate is not None
            and certificate.height == c.s.height - 1
            and certificate.block_hash != c.s.parent_hash
        ):
            self._finals.on_late(c, peer, CertificateMessage(certificate=certificate))

    def _on_final(self, c: Context, peer: str, message: Final) -> None:
        """Rule 16: a finalised block of this height from a peer that is ahead."""
        s = c.s
        self._on_certificate(c, peer, message.certificate)
        if s.final is not None and not s.is_finalised and s.final.block_hash == message.block.hash:
            s.keep_block(message.block)

    # --- timers ---

    def _on_timer(self, c: Context, timer: TimerId) -> None:
        if not c.out.is_due(timer, c.now_ms):
            return
        match timer:
            case TimerId.VIEW:
                views.on_view_timer(c)
            case TimerId.RETRY:
                catchup.on_retry_timer(c)
            case TimerId.HEARTBEAT:
                views.wake(c)
            case TimerId.JUDGE:
                proposals.on_judge_timer(c)
            case TimerId.PROPOSE:
                pass  # `propose_if_leader` looks again after each input
            case _:
                assert_never(timer)
