"""Sending again, answering those behind, and noticing that this node is behind (rules 16, 17)."""

from __future__ import annotations

from collections import Counter
from typing import assert_never

from consensus.context import VIEWS_AHEAD_MAX, Context
from consensus.effects import Broadcast, NeedSync, SendTo, ServeFinal
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
from consensus.statement import StatementKind, propose_sign_bytes, status_sign_bytes
from consensus.views import arm_retry, status
from ledger.certificate import Certificate, VoteKind, verify_certificate, vote_sign_bytes
from ledger.errors import InvalidInputError

FINALS_SERVED_MAX = 4
"""A node at most this many heights behind is served by consensus; beyond, by block sync."""
BUFFERED_PER_SIGNER_MAX = 256
BUFFERED_BLOCKS_PER_SIGNER_MAX = 4
BUFFERED_BLOCKS_MAX = 32

_Buffered = Vote | Propose | CertificateMessage | Final


class HeightBuffer:
    """Verified messages of the next height; `Final` up to four heights ahead. Each signer has its
    share; what is full of blocks makes room at the cost of who has most. Certificates and finals,
    which need more than 2/3 to sign them, share one as well (their signer is empty)."""

    def __init__(self) -> None:
        self._by_height: dict[int, dict[tuple[object, ...], tuple[str, _Buffered]]] = {}

    def add(self, peer: str, message: _Buffered) -> None:
        """Keep a message, unless it is here already or its signer's share is used up."""
        kept = self._by_height.setdefault(message.height, {})
        key = _identity(message)
        if key in kept:
            return
        signer, has_block = key[:2]
        count = sum(k[:2] == (signer, has_block) for k in kept)
        if count >= (BUFFERED_BLOCKS_PER_SIGNER_MAX if has_block else BUFFERED_PER_SIGNER_MAX):
            return
        if has_block and not self._make_room(count):
            return
        kept[key] = (peer, message)

    def _make_room(self, own_count: int) -> bool:
        """True if one more block fits, of a signer that has `own_count`."""
        blocks = [(height, k) for height, kept in self._by_height.items() for k in kept if k[1]]
        if len(blocks) < BUFFERED_BLOCKS_MAX:
            return True
        crowd, most = Counter(key[0] for _, key in blocks).most_common(1)[0]
        if most <= own_count + 1:
            return False
        height, key = next(place for place in blocks if place[1][0] == crowd)
        del self._by_height[height][key]
        return True

    def take(self, height: int) -> list[tuple[str, _Buffered]]:
        """Messages of `height`; what is older is dropped."""
        taken = self._by_height.pop(height, {})
        for stale in [h for h in self._by_height if h < height]:
            del self._by_height[stale]
        return list(taken.values())


def _identity(message: _Buffered) -> tuple[object, ...]:
    """(signer, whether it has a block, what else tells it from others of its height)."""
    match message:
        case Vote():
            return message.signer, False, message.kind, message.view, message.block_hash
        case Propose():
            return message.signer, True, message.view, message.block.hash
        case CertificateMessage():
            c = message.certificate
            return b"", False, c.kind, c.view, c.block_hash
        case Final():
            return b"", True, message.block.hash
        case _:
            assert_never(message)


def buffer_if_valid(c: Context, buffer: HeightBuffer, peer: str, message: ConsensusMessage) -> None:
    """Rule 17: keep a message of a later height if its signatures hold under the set of the next
    height, which is known; a `Final` further ahead under another set is left to its sender's next
    try. Raises InvalidInputError."""
    validators = c.s.next_validators
    match message:
        case Vote():
            signed = vote_sign_bytes(
                c.chain_id, message.kind, message.height, message.view, message.block_hash
            )
            if message.view > VIEWS_AHEAD_MAX or message.signer not in validators:
                return
            if not c.signatures(message.signer, signed, message.signature):
                raise InvalidInputError("vote has a bad signature")
        case Propose():
            signed = propose_sign_bytes(
                c.chain_id, message.height, message.view, message.block.hash
            )
            if message.signer not in validators:
                return
            if not c.signatures(message.signer, signed, message.signature):
                raise InvalidInputError("proposal has a bad signature")
        case Final() if message.block.header.validators_hash != validators.hash:
            return
        case CertificateMessage() | Final():
            verify_certificate(message.certificate, validators, c.chain_id, c.signatures)
        case _:
            return  # nothing that would help later
    buffer.add(peer, message)


def own_votes(c: Context, view: int) -> list[Vote]:
    """This node's votes of a view, from the tally."""
    s = c.s
    if c.key is None:
        return []
    choices: list[tuple[VoteKind, bytes]] = []
    if view in s.own.notarized:
        choices.append((VoteKind.NOTARIZE, s.own.notarized[view]))
    if view in s.own.nullified:
        choices.append((VoteKind.NULLIFY, b""))
    if view in s.own.finalized:
        choices.append((VoteKind.FINALIZE, s.own.finalized[view]))
    found = []
    for kind, block_hash in choices:
        signature = s.tally.signature_of(StatementKind(int(kind)), view, block_hash, c.key)
        if signature is not None:
            found.append(
                Vote(
                    kind=kind,
                    height=s.height,
                    view=view,
                    block_hash=block_hash,
                    signer=c.key,
                    signature=signature,
                )
            )
    return found


def retry_bundle(c: Context) -> list[ConsensusMessage]:
    """Rule 16: all that may have been lost and that others need from this node."""
    s = c.s
    if s.is_finalised:
        return []
    bundle: list[ConsensusMessage] = []
    if s.final is not None:
        bundle.append(CertificateMessage(certificate=s.final))
    else:
        proposal = s.own_proposals.get(s.view)
        if proposal is not None:
            bundle.append(proposal)
        bundle.extend(own_votes(c, s.view))
        certificates = [
            s.book.entry_to(s.view) if s.view > 1 else None,
            s.book.notarization(s.book.highest_notarized),
        ]
        sent: list[Certificate] = []
        for certificate in certificates:
            if certificate is not None and certificate not in sent:
                sent.append(certificate)
                bundle.append(CertificateMessage(certificate=certificate))
    bundle.append(status(c))
    if s.wanted_body is not None and s.wanted_body not in s.blocks:
        bundle.append(BodyRequest(height=s.height, block_hash=s.wanted_body))
    return bundle


def on_retry_timer(c: Context) -> None:
    c.s.is_retry_armed_idle = False
    for message in retry_bundle(c):
        c.out.emit(Broadcast(message=message))
    if c.s.awake or c.s.final is not None:
        c.s.retries += 1
        arm_retry(c)


def on_peer_up(c: Context, peer: str) -> None:
    """A new peer gets at once what a retry would bring it."""
    for message in retry_bundle(c):
        c.out.emit(SendTo(peer=peer, message=message))


def on_ahead(c: Context, peer: str, height: int) -> None:
    """A peer works on a later height than this node."""
    ahead = height - c.s.height
    if ahead > FINALS_SERVED_MAX:
        if c.limit(peer, "sync"):
            c.out.emit(NeedSync(peer=peer, height=height))
    elif ahead > 1:
        if c.limit(peer, "ahead"):
            c.out.emit(SendTo(peer=peer, message=status(c)))
    elif not c.s.awake and not c.s.is_finalised:
        # Perhaps this node merely missed the end of the height: ask, unless it ends by itself.
        arm_retry_once(c)


def arm_retry_once(c: Context) -> None:
    """Arm the retry timer if nothing armed it in this height yet."""
    if not c.s.is_retry_armed_idle:
        c.s.is_retry_armed_idle = True
        arm_retry(c)


def on_status(c: Context, peer: str, message: Status) -> None:
    """Rule 16: bring the sender forward, and learn that someone is ahead."""
    s = c.s
    if message.height > s.height:
        on_ahead(c, peer, message.height)
        if message.height == s.height + 1 and c.limit(peer, "ahead"):
            c.out.emit(SendTo(peer=peer, message=status(c)))
        return
    if message.height < s.height:
        serve_final(c, peer, message.height)
        return
    _note_view(c, message)
    if s.final is not None:
        if c.limit(peer, "final"):
            c.out.emit(SendTo(peer=peer, message=CertificateMessage(certificate=s.final)))
        return
    if message.view < s.view and c.limit(peer, "entry"):
        entry = s.book.entry_to(s.view)
        if entry is not None:
            c.out.emit(SendTo(peer=peer, message=CertificateMessage(certificate=entry)))
    if message.need and c.limit(peer, "need"):
        _answer_need(c, peer, message.need)


def _answer_need(c: Context, peer: str, need: tuple[int, ...]) -> None:
    """A notarization or nullification of each view, or else this node's own votes of it."""
    for view in need:
        certificate = c.s.book.nullified.get(view) or c.s.book.notarization(view)
        if certificate is not None:
            c.out.emit(SendTo(peer=peer, message=CertificateMessage(certificate=certificate)))
            continue
        for vote in own_votes(c, view):
            c.out.emit(SendTo(peer=peer, message=vote))


def _note_view(c: Context, message: Status) -> None:
    """Rule 11: a validator's signed word that it is in a later view."""
    s = c.s
    if message.view <= s.later_view_seen or message.signer not in s.validators.index_by_key:
        return
    signed = status_sign_bytes(c.chain_id, message.height, message.view)
    if c.signatures(message.signer, signed, message.signature):
        s.later_view_seen = message.view


def serve_final(c: Context, peer: str, height: int) -> None:
    """Rule 16: finalised heights for a peer a little behind; further behind, say where we are."""
    s = c.s
    if not c.limit(peer, "serve"):
        return
    if s.height - height > FINALS_SERVED_MAX:
        c.out.emit(SendTo(peer=peer, message=status(c)))
    else:
        c.out.emit(ServeFinal(peer=peer, heights=tuple(range(height, s.height))))


def on_body_request(c: Context, peer: str, message: BodyRequest) -> None:
    s = c.s
    if message.height < s.height:
        if s.height - message.height <= FINALS_SERVED_MAX:
            serve_final(c, peer, message.height)
        return
    block = s.blocks.get(message.block_hash)
    if block is not None and c.limit(peer, "body"):
        c.out.emit(SendTo(peer=peer, message=Body(block=block)))


def on_body(c: Context, message: Body) -> None:
    """Rule 8: a body is taken only if it was asked for."""
    if message.block.hash == c.s.wanted_body:
        c.s.keep_block(message.block)
