"""Heights that are final: votes and certificates that come late (rules 15, 16, 21).

After a height is final its honest validators' last votes still arrive. The last `FINALS_KEPT_MAX`
heights keep their tally, so that

- late finalize votes can be carried in a later block: who voted late was not absent;
- the parent's certificate can be carried with every signer known, not just a quorum;
- a contradiction is evidence whenever its second half arrives;
- a finalization of another block is noticed, whether it comes as a certificate or as votes.

A height that is not held here (the node was restarted, or it is older) is looked up: `LookUpFinal`
asks the runtime, `FinalFound` answers, and what waited is taken in. Older heights are looked up for
finalizations only. A fork is judged with the runtime's word on the trusting period (rule 15).

Bounded: validators' statements only, at most two hashes for a signer, view and kind, and no view
more than `LATE_VIEWS_MAX` past the last one that this node saw. Proposals wait for no look-up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from consensus.context import Context, HeightState
from consensus.effects import BadPeer, Broadcast, FoundEvidence, LookUpFinal
from consensus.inputs import FinalFound, StoredFinal
from consensus.justify import CertificateBook
from consensus.messages import CertificateMessage, ConsensusMessage, Final, Propose, Vote
from consensus.statement import KIND_OF_VOTE, Statement, StatementKind, statement_sign_bytes
from consensus.tally import Tally
from consensus.voting import own_vote, sign_statement
from ledger.block import Header
from ledger.certificate import Certificate, VoteKind, verify_certificate
from ledger.errors import InvalidInputError
from ledger.validator_set import ValidatorSet

FINALS_KEPT_MAX = 17
"""The parent, and the 16 heights below it whose late votes a block may carry."""
LATE_VIEWS_MAX = 8
WAITING_HEIGHTS_MAX = 32
WAITING_PER_HEIGHT_MAX = 64

Late = Vote | Propose | CertificateMessage | Final


@dataclass(slots=True, kw_only=True)
class FinalHeight:
    """What is kept of a final height."""

    header: Header
    certificate: Certificate
    validators: ValidatorSet
    tally: Tally
    book: CertificateBook
    view_end: int
    """Votes and proposals of later views are dropped."""

    @classmethod
    def of_state(cls, s: HeightState) -> FinalHeight:
        """Keep what is known of the height that has just ended."""
        assert s.final is not None, "a finalised height has its certificate"
        return cls(
            header=s.blocks[s.final.block_hash].header,
            certificate=s.final,
            validators=s.validators,
            tally=s.tally,
            book=s.book,
            view_end=max(s.view, s.final.view) + LATE_VIEWS_MAX,
        )

    @classmethod
    def of_stored(cls, stored: StoredFinal) -> FinalHeight:
        """Build it from the runtime's own records, which were verified before they were stored."""
        view = max((c.view for c in stored.certificates), default=stored.certificate.view)
        final = cls(
            header=stored.header,
            certificate=stored.certificate,
            validators=stored.validators,
            tally=Tally(stored.header.height, stored.validators),
            book=CertificateBook(),
            view_end=max(view, stored.certificate.view) + LATE_VIEWS_MAX,
        )
        for certificate in (stored.certificate, *stored.certificates):
            final.book.add(certificate)
            for signer, signature in certificate.signed_by(stored.validators):
                statement = Statement.of_certificate(certificate)
                if final.tally.accepts(
                    statement.kind, statement.view, statement.block_hash, signer
                ):
                    final.tally.add_statement(statement, signer, signature)
        return final

    def other_finalization(self) -> Certificate | None:
        """A finalization of another block than the final one."""
        for (_, block_hash), certificate in sorted(self.book.finalized.items()):
            if block_hash != self.certificate.block_hash:
                return certificate
        return None

    def widest_certificate(self) -> Certificate:
        """Of the finalizations of the final block, that with the most power known now."""
        block_hash = self.certificate.block_hash
        best, best_power = self.certificate, -1
        for view, finalized in sorted(self.book.finalized):
            power = self.tally.power(VoteKind.FINALIZE, view, block_hash)
            if finalized == block_hash and power > best_power:
                signatures = self.tally.signatures(VoteKind.FINALIZE, view, block_hash)
                best_power = power
                best = Certificate.of(
                    VoteKind.FINALIZE,
                    self.header.height,
                    view,
                    block_hash,
                    signatures,
                    self.validators,
                )
        return best

    def finalize_vote(self, signer: bytes) -> Vote | None:
        """The signer's finalize vote for the final block, in whatever view."""
        block_hash = self.certificate.block_hash
        found = self.tally.first_signature(StatementKind.FINALIZE, block_hash, signer)
        if found is None:
            return None
        return Vote(
            kind=VoteKind.FINALIZE,
            height=self.header.height,
            view=found[0],
            block_hash=block_hash,
            signer=signer,
            signature=found[1],
        )


@dataclass(slots=True)
class FinalHeights:
    """The final heights that are held, and what waits for one that is looked up."""

    _held: dict[int, FinalHeight] = field(default_factory=dict)
    _waiting: dict[int, list[tuple[str, Late]]] = field(default_factory=dict)

    def remember(self, final: FinalHeight, below: int) -> None:
        """Hold a height; `below` is the height in work, or the next one."""
        self._held[final.header.height] = final
        for height in [h for h in self._held if h < below - FINALS_KEPT_MAX]:
            del self._held[height]

    def start_height(self) -> None:
        """What waits belongs to the height before; whoever meant it sends it again."""
        self._waiting.clear()

    def get(self, height: int) -> FinalHeight | None:
        return self._held.get(height)

    def finalize_votes(self, height: int, signers: Collection[bytes]) -> tuple[Vote, ...]:
        """Those of `signers` that are known to have voted for the final block of `height`."""
        final = self._held.get(height)
        if final is None:
            return ()
        votes = (final.finalize_vote(v.public_key) for v in final.validators.validators)
        return tuple(v for v in votes if v is not None and v.signer in signers)

    def vote_after_commit(self, c: Context, block_hash: bytes) -> None:
        """Rule 15: give N and F for what has been final, if this node has said nothing there. `c`
        is of the height that consensus has just left: its block `block_hash` is committed, so it
        was executed and is valid. Who was shown the proposal last is not absent by that."""
        final = self._held.get(c.s.height)
        if final is None or final.certificate.block_hash != block_hash:
            return
        view = final.certificate.view
        if not c.may_sign_what_is_final(view) or not c.rules.may_vote_after_commit(c.s.own, view):
            return
        assert c.key is not None, "it may sign"
        for kind in (StatementKind.NOTARIZE, StatementKind.FINALIZE):
            statement = Statement(kind=kind, height=c.s.height, view=view, block_hash=block_hash)
            signature = sign_statement(c, statement)
            c.out.emit(Broadcast(message=own_vote(c, statement, signature)))
            if final.tally.accepts(kind, view, block_hash, c.key):
                _count(c, final, statement, c.key, signature)

    # --- taking in ---

    def on_late(self, c: Context, peer: str, message: Late) -> None:
        """Take in a message of a height that is final here; look the height up if need be."""
        final = self._held.get(message.height)
        if final is None:
            if isinstance(message, Propose):
                return
            if isinstance(message, Final):  # what waits holds no blocks
                message = CertificateMessage(certificate=message.certificate)
            is_recent = message.height >= c.s.height - FINALS_KEPT_MAX
            is_worth_it = is_recent or _is_finalization(message)
            if is_worth_it and (message.height in self._waiting or c.limit(peer, "look up")):
                self.look_up(c, peer, message)
            return
        take_in(c, peer, final, message)
        other = final.other_finalization()
        if other is not None:
            self.look_up(c, peer, CertificateMessage(certificate=other))

    def look_up(self, c: Context, peer: str, message: Late) -> None:
        """Let a message wait for the runtime's word on its height."""
        waiting = self._waiting.get(message.height)
        if waiting is None:
            if len(self._waiting) >= WAITING_HEIGHTS_MAX:
                return
            waiting = self._waiting[message.height] = []
            c.out.emit(LookUpFinal(height=message.height))
        if len(waiting) < WAITING_PER_HEIGHT_MAX:
            waiting.append((peer, message))

    def on_found(self, c: Context, found: FinalFound) -> FinalHeight | None:
        """Take in what waited for this height. The answer is a height with two finalizations, if
        there is one."""
        waiting = self._waiting.pop(found.height, [])
        if found.final is None:
            return None
        final = self._held.get(found.height) or FinalHeight.of_stored(found.final)
        if found.height >= c.s.height - FINALS_KEPT_MAX:
            self.remember(final, c.s.height)
        for peer, message in waiting:
            take_in(c, peer, final, message)
        return final if final.other_finalization() is not None else None


def _is_finalization(message: Late) -> bool:
    return isinstance(message, CertificateMessage) and message.certificate.kind is VoteKind.FINALIZE


def certificates_of(message: ConsensusMessage) -> tuple[Certificate, ...]:
    """The certificates of a message's own height."""
    match message:
        case CertificateMessage() | Final():
            return (message.certificate,)
        case Propose():
            return message.justify
        case _:
            return ()


def take_in(c: Context, peer: str, final: FinalHeight, message: Late) -> None:
    """Count all that a message says of a final height."""
    try:
        if isinstance(message, Vote | Propose):
            if message.signer not in final.validators or message.view > final.view_end:
                return
            statement = statement_of(message)
            _count_signed(c, final, statement, message.signer, message.signature)
        for certificate in certificates_of(message):
            _count_certificate(c, final, certificate)
    except InvalidInputError as error:
        if peer:  # else it was inside a block that is final
            c.out.emit(BadPeer(peer=peer, reason=str(error)))


def statement_of(message: Vote | Propose) -> Statement:
    """What the signature of a vote or proposal is about."""
    if isinstance(message, Propose):
        kind, block_hash = StatementKind.PROPOSE, message.block.hash
    else:
        kind, block_hash = KIND_OF_VOTE[message.kind], message.block_hash
    return Statement(kind=kind, height=message.height, view=message.view, block_hash=block_hash)


def _count_signed(
    c: Context, final: FinalHeight, statement: Statement, signer: bytes, signature: bytes
) -> None:
    """Count one statement. Raises InvalidInputError for a bad signature."""
    if not final.tally.accepts(statement.kind, statement.view, statement.block_hash, signer):
        return
    if not c.signatures(signer, statement_sign_bytes(c.chain_id, statement), signature):
        raise InvalidInputError("late message has a bad signature")
    _count(c, final, statement, signer, signature)


def _count(
    c: Context, final: FinalHeight, statement: Statement, signer: bytes, signature: bytes
) -> None:
    """Count a verified statement; report a contradiction; form a certificate at a quorum."""
    evidence = final.tally.add_statement(statement, signer, signature)
    if evidence is not None:
        c.out.emit(FoundEvidence(evidence=evidence))
    if statement.kind is StatementKind.PROPOSE:
        return
    kind = VoteKind(int(statement.kind))
    view, block_hash = statement.view, statement.block_hash
    if final.book.holds(kind, view, block_hash):
        return
    if c.rules.has_quorum(
        final.validators,
        final.tally.signatures(kind, view, block_hash),
        final.tally.power(kind, view, block_hash),
    ):
        final.book.add(
            Certificate.of(
                kind,
                statement.height,
                view,
                block_hash,
                final.tally.signatures(kind, view, block_hash),
                final.validators,
            )
        )


def _count_certificate(c: Context, final: FinalHeight, certificate: Certificate) -> None:
    """Verify a certificate if it says anything new, and count its votes. Raises
    InvalidInputError."""
    held = final.book.get(certificate.kind, certificate.view, certificate.block_hash)
    if held == certificate:
        return
    statement = Statement.of_certificate(certificate)
    new = [
        (signer, signature)
        for signer, signature in certificate.signed_by(final.validators)
        if final.tally.accepts(statement.kind, statement.view, statement.block_hash, signer)
    ]
    if held is not None and not new:
        return
    verify_certificate(certificate, final.validators, c.chain_id, c.signatures)
    if held is None:
        final.book.add(certificate)
    for signer, signature in new:
        _count(c, final, statement, signer, signature)
