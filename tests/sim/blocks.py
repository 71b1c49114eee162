"""What the simulated chain says of a block: what `JudgeBlock` and `BuildBlock` stand for here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consensus.liveness import LateVote
from ledger.block import Block
from ledger.certificate import VoteKind, verify_certificate, vote_sign_bytes
from ledger.errors import InvalidInputError
from tests.sim.plan import CHAIN_ID

if TYPE_CHECKING:
    from tests.sim.node import Node

LATE_HEIGHTS = 16


def is_valid_block(node: Node, block: Block) -> bool:
    header, height = block.header, block.height
    if header.audit_size or height != len(node.disk.chain) + 1:
        return False
    if header.validators_hash != node.validators_at(height).hash:
        return False
    if header.next_validators_hash != node.validators_at(height + 1).hash:
        return False
    return _is_parent_shown(node, block) and all(_is_late_vote(node, v) for v in block.late_votes)


def _is_parent_shown(node: Node, block: Block) -> bool:
    certificate = block.parent_certificate
    if certificate is None or block.height == 1:
        return certificate is None and block.height == 1
    if (certificate.kind, certificate.block_hash) != (VoteKind.FINALIZE, node.parent_hash()):
        return False
    try:
        verify_certificate(
            certificate,
            node.validators_at(block.height - 1),
            CHAIN_ID,
            node.core.signature_check,
        )
    except InvalidInputError:
        return False
    return True


def _is_late_vote(node: Node, data: bytes) -> bool:
    vote = LateVote.decode(data)
    block = node.disk.chain[vote.height - 1][0]
    signed = vote_sign_bytes(CHAIN_ID, VoteKind.FINALIZE, vote.height, vote.view, block.hash)
    return (
        vote.signer in node.validators_at(vote.height)
        and vote.signer not in shown_at(node, vote.height)
        and node.core.signature_check(vote.signer, signed, vote.signature)
    )


def late_votes(node: Node) -> tuple[bytes, ...]:
    """For the next block: late votes of the last 16 heights below the parent."""
    height = len(node.disk.chain) + 1
    found = []
    for below in range(max(1, height - LATE_HEIGHTS), height - 1):
        everyone = [v.public_key for v in node.validators_at(below).validators]
        absent = set(everyone) - shown_at(node, below)
        for vote in node.core.finalize_votes(below, absent):
            late = LateVote(
                height=below, view=vote.view, signer=vote.signer, signature=vote.signature
            )
            found.append(late.encode())
    return tuple(found)


def shown_at(node: Node, height: int) -> set[bytes]:
    """Whose finalize votes of `height` this node's chain shows."""
    shown: set[bytes] = set()
    for block, _ in node.disk.chain[height : height + LATE_HEIGHTS]:
        certificate = block.parent_certificate
        if block.height == height + 1 and certificate is not None:
            shown |= {key for key, _ in certificate.signed_by(node.validators_at(height))}
        for data in block.late_votes:
            vote = LateVote.decode(data)
            if vote.height == height:
                shown.add(vote.signer)
    return shown
