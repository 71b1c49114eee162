"""Finalising a height, and noticing a fork (rules 15 and 17)."""

from __future__ import annotations

from dataclasses import dataclass

from consensus.context import Context
from consensus.effects import Broadcast, Finalise, Halt
from consensus.evidence import ForkProof
from consensus.inputs import TimerId
from consensus.justify import CertificateBook
from consensus.messages import BodyRequest, CertificateMessage
from consensus.views import arm_retry
from ledger.certificate import Certificate, VoteKind, verify_certificate
from ledger.errors import InvalidInputError
from ledger.validator_set import ValidatorSet

FINAL_KEPT_MAX = 16
"""Heights whose finalization is remembered here, to notice a second one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalHeight:
    """What is kept of a finalised height."""

    validators: ValidatorSet
    certificate: Certificate
    book: CertificateBook


def finalise_if_ready(c: Context) -> bool:
    """Rule 15: with a finalization and its body, hand the block over. True if it was."""
    s = c.s
    if s.final is None or s.is_finalised:
        return False
    for timer in (TimerId.VIEW, TimerId.PROPOSE, TimerId.HEARTBEAT, TimerId.JUDGE):
        c.out.cancel_timer(timer)
    block = s.blocks.get(s.final.block_hash)
    if block is None:
        if s.wanted_body != s.final.block_hash:
            s.wanted_body = s.final.block_hash
            c.out.persist_certificate(s.final)
            request = BodyRequest(height=s.height, block_hash=s.final.block_hash)
            c.out.emit(Broadcast(message=request))
            arm_retry(c)
        return False
    c.out.cancel_timer(TimerId.RETRY)
    s.is_finalised = True
    started_ms = s.view_started_ms.get(s.final.view)
    if started_ms is not None:
        c.base_ms = c.timing.next_base_ms(c.base_ms, max(c.now_ms - started_ms, 0))
    c.out.emit(Finalise(block=block, certificate=s.final))
    c.out.emit(Broadcast(message=CertificateMessage(certificate=s.final)))
    return True


def halt_if_forked(c: Context, parent: FinalHeight | None) -> bool:
    """True, with a `Halt`, if the height in work has finalizations of two blocks, or of one that
    does not follow the block that is final here. `parent` is what is kept of the height below."""
    s = c.s
    if s.final is None or s.is_finalised:
        return False
    for (_, block_hash), certificate in s.book.finalized.items():
        if block_hash != s.final.block_hash:
            known = FinalHeight(validators=s.validators, certificate=s.final, book=s.book)
            halt(c, known, certificate)
            return True
    block = s.blocks.get(s.final.block_hash)
    if block is None or block.header.parent_hash == s.parent_hash:
        return False
    # More than 2/3 signed it, so its body carries the finalization of the other parent.
    other = block.parent_certificate or s.final
    first = parent.certificate if parent is not None else s.parent_certificate or s.final
    between = tuple(parent.book.all()) if parent is not None else ()
    proof = ForkProof(height=other.height, first=first, second=other, between=between)
    c.out.emit(Halt(fork_proof=proof))
    return True


def is_fork(known: FinalHeight, certificate: Certificate, c: Context) -> bool:
    """Judge a finalization of a height that is final here. Raises InvalidInputError."""
    if certificate.kind is not VoteKind.FINALIZE:
        return False
    if certificate.block_hash == known.certificate.block_hash:
        return False
    verify_certificate(certificate, known.validators, c.chain_id, c.signatures)
    return True


def halt(c: Context, known: FinalHeight, second: Certificate) -> None:
    """Rule 15: stop, and export the proof."""
    between = tuple(x for x in known.book.all() if x.kind is not VoteKind.FINALIZE)
    c.out.emit(
        Halt(
            fork_proof=ForkProof(
                height=second.height, first=known.certificate, second=second, between=between
            )
        )
    )


def parent_finalization(certificate: Certificate | None, height: int) -> Certificate:
    """Rule 17: the finalization of `height` carried by a block of the next height.

    Raises InvalidInputError if there is none.
    """
    if (
        certificate is None
        or certificate.kind is not VoteKind.FINALIZE
        or certificate.height != height
    ):
        raise InvalidInputError("block carries no finalization of its parent")
    return certificate
