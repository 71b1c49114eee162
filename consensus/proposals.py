"""Making and judging proposals (rules 6-9, 13)."""

from __future__ import annotations

from dataclasses import replace

from consensus.context import VIEWS_AHEAD_MAX, Context
from consensus.effects import BadPeer, Broadcast, BuildBlock, JudgeBlock, SendTo
from consensus.inputs import BlockBuilt, BlockJudged, TimerId, Verdict
from consensus.messages import BodyRequest, Propose
from consensus.statement import Statement, StatementKind, propose_sign_bytes
from consensus.views import status, wake
from consensus.voting import count, is_block_valid, resign, sign_statement, verify_and_accept
from ledger.block import Block
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError, UsageError


def on_propose(c: Context, peer: str, propose: Propose) -> None:
    """Check a proposal of this height, take in its certificates, and have its block judged."""
    s = c.s
    block_hash = propose.block.hash
    if (propose.view, block_hash) in s.proposals_seen:
        return
    kind = StatementKind.PROPOSE
    if propose.signer != s.leader(propose.view):
        c.out.emit(BadPeer(peer=peer, reason="proposal by another than the leader"))
        return
    message = propose_sign_bytes(c.chain_id, s.height, propose.view, block_hash)
    if not c.signatures(propose.signer, message, propose.signature):
        c.out.emit(BadPeer(peer=peer, reason="proposal has a bad signature"))
        return
    if propose.view > s.view + VIEWS_AHEAD_MAX and not _is_justified(c, peer, propose):
        return  # else a leader could grow the tally by every view that it leads
    count(c, kind, propose.view, block_hash, propose.signer, propose.signature)
    if s.tally.signature_of(kind, propose.view, block_hash, propose.signer) is None:
        return  # a third hash for this view (rule 8)
    if _is_justified(c, peer, propose) and (
        s.held_proposal is None or s.held_proposal[1].view <= propose.view
    ):
        s.held_proposal = (peer, propose)
        take_in_held(c)


def take_in_held(c: Context) -> bool:
    """Rule 6: take in the held proposal once all its nullifications are here; until then ask its
    sender for them. True if it was taken in."""
    s = c.s
    if s.held_proposal is None:
        return False
    peer, propose = s.held_proposal
    missing = c.rules.missing_for(propose, s.book)
    if missing:
        if c.limit(peer, "justify"):
            c.out.emit(SendTo(peer=peer, message=replace(status(c), need=missing)))
        return False
    s.held_proposal = None
    s.proposals_seen.add((propose.view, propose.block.hash))
    wake(c)
    s.later_view_seen = max(s.later_view_seen, propose.view)
    s.proposed_view = max(s.proposed_view, propose.view)
    consider(c, propose.view, propose.block)
    return True


def _is_justified(c: Context, peer: str, propose: Propose) -> bool:
    """Rules 6 and 8: the header fits, and the certificates show that it may be proposed; they are
    taken in. A bad one counts against the message, never the hash."""
    try:
        _verify_header(c, propose)
        c.rules.verify_justify(propose, c.s.validators, c.chain_id, c.signatures)
        for certificate in propose.justify:
            verify_and_accept(c, certificate)
    except InvalidInputError as error:
        c.out.emit(BadPeer(peer=peer, reason=str(error)))
        return False
    return True


def _verify_header(c: Context, propose: Propose) -> None:
    """Rule 9 as far as the core can tell; the rest is `JudgeBlock`'s. Raises InvalidInputError."""
    s, header = c.s, propose.block.header
    if header.chain_id != c.chain_id or header.height != s.height:
        raise InvalidInputError("block is of another chain or height")
    if header.parent_hash != s.parent_hash:
        raise InvalidInputError(
            "block has another parent", expected=s.parent_hash.hex(), got=header.parent_hash.hex()
        )
    if not 1 <= header.origin_view <= propose.view:
        raise InvalidInputError("block has an impossible origin view", got=str(header.origin_view))
    if header.proposer != s.leader(header.origin_view):
        raise InvalidInputError("block's proposer does not lead its origin view")


def consider(c: Context, view: int, block: Block) -> None:
    """Hold a well-justified proposal and have it judged if this node may still vote for it."""
    s = c.s
    s.keep_block(block)
    if not c.rules.may_notarize(s.own, view):
        return
    fresh = block.header.origin_view == view
    s.votable[view, block.hash] = fresh
    _judge(c, block.hash, fresh)


def _judge(c: Context, block_hash: bytes, fresh: bool) -> None:
    """Ask for a verdict unless it is known or under way; one question a block at a time."""
    s = c.s
    if (
        block_hash in s.judging
        or (block_hash, fresh) in s.verdicts
        or is_block_valid(c, block_hash, fresh=fresh)
    ):
        return
    s.judging[block_hash] = fresh
    c.out.emit(JudgeBlock(block=s.blocks[block_hash], fresh=fresh))


def on_block_judged(c: Context, judged: BlockJudged) -> None:
    s = c.s
    fresh = s.judging.pop(judged.block_hash, None)
    if fresh is None:
        return
    if judged.verdict is Verdict.EARLY:
        s.early.add(judged.block_hash)
        c.out.set_timer(TimerId.JUDGE, c.now_ms, c.timing.early_retry_ms)
    else:
        s.verdicts[judged.block_hash, fresh] = judged.verdict
    if judged.verdict is Verdict.INVALID:
        for view, block_hash in [k for k, f in s.votable.items() if f is fresh]:
            if block_hash == judged.block_hash:
                del s.votable[view, block_hash]
    _judge_votable(c, {judged.block_hash} - s.early)


def on_judge_timer(c: Context) -> None:
    """Rule 7: a block from the near future was held; judge it again."""
    early, c.s.early = c.s.early, set()
    _judge_votable(c, early)


def _judge_votable(c: Context, hashes: set[bytes]) -> None:
    for (_, block_hash), fresh in list(c.s.votable.items()):
        if block_hash in hashes:
            _judge(c, block_hash, fresh)


def propose_if_leader(c: Context) -> bool:
    """Rule 13. True if something was proposed."""
    s = c.s
    view = s.view
    if (
        s.building_view == view
        or view in s.own.proposed
        or view in s.own.nullified
        or not s.awake
        or c.key != s.leader(view)
        or not c.may_sign(view)
        or (view == 1 and not _is_interval_over(c))
    ):
        return False
    justify = s.book.justify_for(view)
    if justify is None:
        return False
    block_hash, certificates = justify
    if block_hash is None:
        s.building_view = view
        c.out.emit(BuildBlock(height=s.height, view=view))
        return False
    block = s.blocks.get(block_hash)
    if block is None:
        if s.wanted_body != block_hash:
            s.wanted_body = block_hash
            c.out.emit(Broadcast(message=BodyRequest(height=s.height, block_hash=block_hash)))
        return False
    _send_proposal(c, view, block, certificates)
    return True


def _is_interval_over(c: Context) -> bool:
    """Rule 19: the minimum interval, and a longer one for a block that nobody waits for."""
    s, timing = c.s, c.timing
    wait_ms = timing.block_interval_min_ms if s.has_tx else timing.empty_interval_ms
    left_ms = s.started_ms + wait_ms - c.now_ms
    if left_ms > 0:
        c.out.set_timer(TimerId.PROPOSE, c.now_ms, left_ms)
    return left_ms <= 0


def on_block_built(c: Context, built: BlockBuilt) -> None:
    """Propose what was asked for, if the view is still the same and still wants a fresh block.

    Raises UsageError if the runtime built something else than asked.
    """
    s = c.s
    if (built.height, built.view) != (s.height, s.building_view):
        return
    if built.block is None:
        return
    s.building_view = None
    header = built.block.header
    if (header.height, header.origin_view, header.proposer, header.parent_hash) != (
        s.height,
        s.view,
        c.key,
        s.parent_hash,
    ):
        raise UsageError("the block built is not the one asked for", expected=repr(built.view))
    if s.view in s.own.nullified or not c.may_sign(s.view):
        return
    justify = s.book.justify_for(s.view)
    if justify is None or justify[0] is not None:
        return
    s.verdicts[built.block.hash, True] = Verdict.VALID
    _send_proposal(c, s.view, built.block, justify[1])


def _send_proposal(
    c: Context, view: int, block: Block, certificates: tuple[Certificate, ...]
) -> None:
    """Rule 13: the proposal is durable before it leaves, and is never replaced by another."""
    s = c.s
    statement = Statement(
        kind=StatementKind.PROPOSE, height=s.height, view=view, block_hash=block.hash
    )
    c.out.persist_block(block)
    signature = sign_statement(c, statement)
    _hold_own(c, statement, block, certificates, signature)
    c.out.emit(Broadcast(message=s.own_proposals[view]))


def restore_own_proposal(c: Context, statement: Statement) -> None:
    """Rule 20: rebuild a recorded proposal from the stored block and certificates."""
    block = c.s.blocks.get(statement.block_hash)
    justify = c.s.book.justify_for(statement.view)
    if block is not None and justify is not None:
        _hold_own(c, statement, block, justify[1], resign(c, statement))


def _hold_own(
    c: Context,
    statement: Statement,
    block: Block,
    certificates: tuple[Certificate, ...],
    signature: bytes,
) -> None:
    assert c.key is not None
    c.s.own_proposals[statement.view] = Propose(
        height=c.s.height,
        view=statement.view,
        block=block,
        justify=certificates,
        signer=c.key,
        signature=signature,
    )
    c.s.proposals_seen.add((statement.view, block.hash))
    count(c, statement.kind, statement.view, block.hash, c.key, signature)
    consider(c, statement.view, block)
