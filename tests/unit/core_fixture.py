"""Four validators, of which one is a core under test; what it is told, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.core import Core
from consensus.effects import Broadcast, Effect, SetTimer
from consensus.inputs import BlockJudged, Received, Recovered, StartHeight, TimerId, Verdict
from consensus.leader import leader
from consensus.messages import ConsensusMessage, Propose, Vote
from consensus.statement import propose_sign_bytes
from consensus.timing import Timing
from ledger.block import PROTOCOL_VERSION, Block, Header, compute_body_hash
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.validator_set import Validator, ValidatorSet
from tests.sim.crypto import is_valid, sign_with

CHAIN = "zynk-unit"
KEYS = [bytes([i]) * 32 for i in range(1, 5)]
SET = ValidatorSet.of(Validator(public_key=k, power=1) for k in KEYS)
PARENT, ZERO = b"\x07" * 32, b"\0" * 32
LEADER_1 = leader(PARENT, 1, SET, SET)
LEADER_2 = leader(PARENT, 2, SET, SET)
FOLLOWER = next(k for k in KEYS if k not in (LEADER_1, LEADER_2))
OTHERS = [k for k in KEYS if k != FOLLOWER]
TIMING = Timing()


def new_core(key: bytes | None = FOLLOWER, floor: tuple[int, int] = (0, 0)) -> Core:
    return Core(
        chain_id=CHAIN,
        key=key,
        sign=None if key is None else sign_with(key),
        is_valid=is_valid,
        timing=TIMING,
        floor=floor,
    )


def start(recovered: Recovered | None = None, height: int = 9) -> StartHeight:
    return StartHeight(
        height=height,
        parent_hash=PARENT,
        parent_certificate=None,
        validators=SET,
        next_validators=SET,
        leaders=SET,
        seed=PARENT,
        recovered=recovered,
    )


def started(key: bytes | None = FOLLOWER, floor: tuple[int, int] = (0, 0)) -> Core:
    core = new_core(key, floor)
    core.step(0, start())
    return core


def make_block(view: int = 1, salt: bytes = b"", proposer: bytes | None = None) -> Block:
    header = Header(
        PROTOCOL_VERSION,
        CHAIN,
        9,
        1000,
        PARENT,
        view,
        proposer or leader(PARENT, view, SET, SET),
        salt,
        compute_body_hash((), None),
        *(ZERO, 0, ZERO, ZERO, SET.hash, SET.hash),
    )
    return Block(header, (), None)


def vote(kind: VoteKind, key: bytes, view: int = 1, block_hash: bytes = b"") -> Vote:
    message = vote_sign_bytes(CHAIN, kind, 9, view, block_hash)
    return Vote(
        kind=kind,
        height=9,
        view=view,
        block_hash=block_hash,
        signer=key,
        signature=sign_with(key)(message),
    )


def certificate(
    kind: VoteKind, view: int = 1, block_hash: bytes = b"", count: int = 3
) -> Certificate:
    votes = {k: vote(kind, k, view, block_hash).signature for k in KEYS[:count]}
    return Certificate.of(kind, 9, view, block_hash, votes, SET)


def propose(
    block: Block, view: int = 1, justify: tuple[Certificate, ...] = (), key: bytes | None = None
) -> Propose:
    signer = key or leader(PARENT, view, SET, SET)
    return Propose(
        height=9,
        view=view,
        block=block,
        justify=justify,
        signer=signer,
        signature=sign_with(signer)(propose_sign_bytes(CHAIN, 9, view, block.hash)),
    )


def receive(core: Core, message: ConsensusMessage, now_ms: int = 10) -> list[Effect]:
    return core.step(now_ms, Received(peer="p", message=message))


def own_votes(effects: Sequence[Effect], kind: VoteKind) -> list[Vote]:
    return [
        e.message
        for e in effects
        if isinstance(e, Broadcast) and isinstance(e.message, Vote) and e.message.kind is kind
    ]


def timers(effects: Sequence[Effect]) -> dict[TimerId, int]:
    return {e.timer: e.delay_ms for e in effects if isinstance(e, SetTimer)}


def notarized(core: Core, block: Block) -> list[Effect]:
    """Propose, judge valid, and add two more notarizations: what the last step did."""
    receive(core, propose(block))
    core.step(11, BlockJudged(block_hash=block.hash, verdict=Verdict.VALID))
    effects: list[Effect] = []
    for key in OTHERS[:2]:
        effects = receive(core, vote(VoteKind.NOTARIZE, key, 1, block.hash), 12)
    return effects
