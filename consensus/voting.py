"""Own votes, counting votes, and what follows from certificates (rules 1-3, 14).

Whatever this node signs goes through `sign_statement`, which puts the guard record into the step's
`Persist`; the runtime sends nothing of a step before that is durable.
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.context import Context
from consensus.effects import Broadcast, FoundEvidence
from consensus.inputs import Verdict
from consensus.messages import Vote
from consensus.statement import KIND_OF_VOTE, Statement, StatementKind, statement_sign_bytes
from ledger.certificate import Certificate, VoteKind, verify_certificate, vote_sign_bytes


def sign_statement(c: Context, statement: Statement) -> bytes:
    """Record and sign; the caller has checked the rules."""
    c.s.own.add(statement)
    c.out.persist_statement(statement)
    return resign(c, statement)


def resign(c: Context, statement: Statement) -> bytes:
    """Sign what is already on record. Ed25519 is deterministic: the bytes are those of before."""
    assert c.key is not None, "only a validator signs"
    assert c.sign is not None, "a key comes with its signer"
    message = statement_sign_bytes(c.chain_id, statement)
    signature = c.sign(message)
    c.signatures.remember(c.key, message, signature)
    return signature


def cast(c: Context, kind: VoteKind, view: int, block_hash: bytes) -> None:
    """Sign a vote, send it and count it."""
    statement = Statement(
        kind=KIND_OF_VOTE[kind], height=c.s.height, view=view, block_hash=block_hash
    )
    signature = sign_statement(c, statement)
    c.out.emit(Broadcast(message=own_vote(c, statement, signature)))
    assert c.key is not None
    count(c, statement.kind, view, block_hash, c.key, signature)


def own_vote(c: Context, statement: Statement, signature: bytes) -> Vote:
    assert c.key is not None
    return Vote(
        kind=VoteKind(int(statement.kind)),
        height=statement.height,
        view=statement.view,
        block_hash=statement.block_hash,
        signer=c.key,
        signature=signature,
    )


def verify_and_count(c: Context, vote: Vote) -> bool | None:
    """Take in someone's vote of this height. None: not needed. False: bad signature."""
    kind = KIND_OF_VOTE[vote.kind]
    if not c.s.tally.accepts(kind, vote.view, vote.block_hash, vote.signer):
        return None
    message = vote_sign_bytes(c.chain_id, vote.kind, vote.height, vote.view, vote.block_hash)
    if not c.signatures(vote.signer, message, vote.signature):
        return False
    c.s.later_view_seen = max(c.s.later_view_seen, vote.view)
    count(c, kind, vote.view, vote.block_hash, vote.signer, vote.signature)
    return True


def count(
    c: Context, kind: StatementKind, view: int, block_hash: bytes, signer: bytes, signature: bytes
) -> None:
    """Count a verified statement; report a contradiction; form a certificate at a quorum."""
    s = c.s
    if not s.tally.accepts(kind, view, block_hash, signer):
        return
    evidence = s.tally.add(kind, view, block_hash, signer, signature)
    if evidence is not None:
        c.out.emit(FoundEvidence(evidence=evidence))
    if kind is StatementKind.PROPOSE:
        return
    vote_kind = VoteKind(int(kind))
    if s.book.holds(vote_kind, view, block_hash):
        return
    signatures = s.tally.signatures(vote_kind, view, block_hash)
    power = s.tally.power(vote_kind, view, block_hash)
    if c.rules.has_quorum(s.validators, signatures, power):
        accept_certificate(
            c,
            Certificate.of(vote_kind, s.height, view, block_hash, signatures, s.validators),
            is_durable=False,
        )


def verify_and_accept(c: Context, certificate: Certificate) -> None:
    """Take in someone's certificate of this height. One that is held already may still show votes
    that are not. Raises InvalidInputError."""
    s = c.s
    held = s.book.get(certificate.kind, certificate.view, certificate.block_hash)
    if held is not None and (held == certificate or not _has_new_votes(c, certificate)):
        return
    verify_certificate(certificate, s.validators, c.chain_id, c.signatures)
    accept_certificate(c, certificate, is_durable=False)
    count_votes_of(c, certificate)


def _has_new_votes(c: Context, certificate: Certificate) -> bool:
    statement = Statement.of_certificate(certificate)
    return any(
        c.s.tally.accepts(statement.kind, statement.view, statement.block_hash, signer)
        for signer, _ in certificate.signed_by(c.s.validators)
    )


def count_votes_of(c: Context, certificate: Certificate) -> None:
    """The votes inside a certificate count like any others, and may contradict others."""
    statement = Statement.of_certificate(certificate)
    for signer, signature in certificate.signed_by(c.s.validators):
        count(c, statement.kind, statement.view, statement.block_hash, signer, signature)


def own_statements_of(c: Context, certificates: Iterable[Certificate]) -> list[Statement]:
    """What this validator said inside certificates of the height in work, above the floor."""
    index = None if c.key is None else c.s.validators.index_by_key.get(c.key)
    return [
        Statement.of_certificate(certificate)
        for certificate in certificates
        if certificate.height == c.s.height
        and (certificate.height, certificate.view) > c.floor
        and index in certificate.signer_indexes(c.s.validators)
    ]


def accept_certificate(c: Context, certificate: Certificate, *, is_durable: bool) -> None:
    """Enter a verified certificate into the book, and make it durable with this step."""
    s = c.s
    if s.book.holds(certificate.kind, certificate.view, certificate.block_hash):
        return
    s.book.add(certificate)
    if certificate.kind is VoteKind.FINALIZE:
        # The commit of the block makes it durable; if the body is missing, `finality` persists it.
        if s.final is None:
            s.final = certificate
        return
    if not is_durable:
        c.out.persist_certificate(certificate)
    if certificate.kind is VoteKind.NOTARIZE:
        s.finalizable.append((certificate.view, certificate.block_hash))


def is_block_valid(c: Context, block_hash: bytes, *, fresh: bool) -> bool:
    """What was valid as a fresh block is valid when proposed again (rule 7)."""
    verdicts = c.s.verdicts
    if verdicts.get((block_hash, True)) is Verdict.VALID:
        return True
    return not fresh and verdicts.get((block_hash, False)) is Verdict.VALID


def notarize_pending(c: Context) -> bool:
    """Rule 14, N: vote for one proposal if the rules allow it. True if a vote was cast."""
    s = c.s
    for (view, block_hash), fresh in list(s.votable.items()):
        if view > s.view:
            continue
        if not c.rules.may_notarize(s.own, view):
            del s.votable[view, block_hash]
            continue
        if not c.may_sign(view) or not is_block_valid(c, block_hash, fresh=fresh):
            continue
        del s.votable[view, block_hash]
        c.out.persist_block(s.blocks[block_hash])
        cast(c, VoteKind.NOTARIZE, view, block_hash)
        return True
    return False


def finalize_pending(c: Context) -> bool:
    """Rule 14, F: vote for one notarized block if the rules allow it. True if a vote was cast."""
    s = c.s
    for position, (view, block_hash) in enumerate(s.finalizable):
        if c.may_sign(view) and c.rules.may_finalize(s.own, view, block_hash):
            del s.finalizable[position]
            cast(c, VoteKind.FINALIZE, view, block_hash)
            return True
    return False


def finalize_after_quorum(c: Context) -> None:
    """Rule 15: give F for what is final, if this node would have, had the notarization come before
    the others' finalization. Nobody needs this vote, but it shows that this node was not absent."""
    s = c.s
    if s.final is None:
        return
    view, block_hash = s.final.view, s.final.block_hash
    if c.may_sign_what_is_final(view) and c.rules.may_finalize(s.own, view, block_hash):
        cast(c, VoteKind.FINALIZE, view, block_hash)
