"""Four validators and the messages that they may send, honest or not, at any height."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from consensus.core import Core
from consensus.effects import Effect
from consensus.inputs import Received, Recovered, StartHeight
from consensus.leader import leader
from consensus.messages import CertificateMessage, ConsensusMessage, Final, Propose, Vote
from consensus.statement import propose_sign_bytes
from consensus.timing import Timing
from ledger.block import PROTOCOL_VERSION, Block, Header, compute_body_hash
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.validator_set import Validator, ValidatorSet
from tests.sim.crypto import sign_with

CHAIN = "zynk-unit"
KEYS = [bytes([i]) * 32 for i in range(1, 5)]
SET = ValidatorSet.of(Validator(public_key=k, power=1) for k in KEYS)
ZERO = b"\0" * 32
FIRST_HEIGHT = 9
FIRST_PARENT = b"\x07" * 32


def make_block(
    height: int = FIRST_HEIGHT,
    parent: Block | None = None,
    *,
    view: int = 1,
    salt: bytes = b"",
    parent_certificate: Certificate | None = None,
) -> Block:
    parent_hash = parent.hash if parent is not None else FIRST_PARENT
    header = Header(
        protocol_version=PROTOCOL_VERSION,
        chain_id=CHAIN,
        height=height,
        time_ms=1000 * height,
        parent_hash=parent_hash,
        origin_view=view,
        proposer=leader(parent_hash, view, SET, SET),
        vrf_proof=salt,
        body_hash=compute_body_hash((), parent_certificate),
        state_root=ZERO,
        audit_size=0,
        audit_root=ZERO,
        results_root=ZERO,
        validators_hash=SET.hash,
        next_validators_hash=SET.hash,
    )
    return Block(header, (), parent_certificate)


def vote(
    kind: VoteKind,
    key: bytes,
    block_hash: bytes = b"",
    *,
    height: int = FIRST_HEIGHT,
    view: int = 1,
) -> Vote:
    signed = vote_sign_bytes(CHAIN, kind, height, view, block_hash)
    return Vote(
        kind=kind,
        height=height,
        view=view,
        block_hash=block_hash,
        signer=key,
        signature=sign_with(key)(signed),
    )


def certify(
    kind: VoteKind,
    block_hash: bytes = b"",
    *,
    keys: Iterable[bytes] = KEYS[:3],
    height: int = FIRST_HEIGHT,
    view: int = 1,
) -> Certificate:
    votes = {k: vote(kind, k, block_hash, height=height, view=view).signature for k in keys}
    return Certificate.of(kind, height, view, block_hash, votes, SET)


def finalize(block: Block, *, keys: Iterable[bytes] = KEYS[:3], view: int = 1) -> Certificate:
    return certify(VoteKind.FINALIZE, block.hash, keys=keys, height=block.height, view=view)


def propose(
    block: Block, signer: bytes, *, view: int = 1, justify: tuple[Certificate, ...] = ()
) -> Propose:
    signed = propose_sign_bytes(CHAIN, block.height, view, block.hash)
    return Propose(
        height=block.height,
        view=view,
        block=block,
        justify=justify,
        signer=signer,
        signature=sign_with(signer)(signed),
    )


def new_core() -> Core:
    """A full node: it takes everything in and signs nothing."""
    from tests.sim.crypto import is_valid

    return Core(chain_id=CHAIN, key=None, sign=None, is_valid=is_valid, timing=Timing())


def start(
    core: Core,
    height: int = FIRST_HEIGHT,
    parent: Block | None = None,
    parent_certificate: Certificate | None = None,
    recovered: Recovered | None = None,
) -> list[Effect]:
    parent_hash = parent.hash if parent is not None else FIRST_PARENT
    return core.step(
        1000 * height,
        StartHeight(
            height=height,
            parent_hash=parent_hash,
            parent_certificate=parent_certificate,
            validators=SET,
            next_validators=SET,
            leaders=SET,
            seed=parent_hash,
            recovered=recovered,
        ),
    )


def receive(core: Core, message: ConsensusMessage) -> list[Effect]:
    return core.step(1000 * core.height, Received(peer="p", message=message))


def receive_certificate(core: Core, certificate: Certificate) -> list[Effect]:
    return receive(core, CertificateMessage(certificate=certificate))


def run_chain(core: Core, blocks: Sequence[Block], *, keys: Iterable[bytes] = KEYS[:3]) -> None:
    """Finalise `blocks` one after the other, each by `keys`, and start the next height."""
    keys = tuple(keys)
    if core.height == 0:
        start(core, blocks[0].height)
    for block in blocks:
        certificate = finalize(block, keys=keys)
        receive(core, Final(block=block, certificate=certificate))
        start(core, block.height + 1, block, certificate)


def chain_of(count: int) -> list[Block]:
    blocks: list[Block] = []
    for number in range(count):
        parent = blocks[-1] if blocks else None
        certificate = None if parent is None else finalize(parent)
        blocks.append(make_block(FIRST_HEIGHT + number, parent, parent_certificate=certificate))
    return blocks
