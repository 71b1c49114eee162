"""The buffer for the next height holds what validators said, and each of them its share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.catchup import (
    BUFFERED_BLOCKS_MAX,
    BUFFERED_BLOCKS_PER_SIGNER_MAX,
    BUFFERED_PER_SIGNER_MAX,
    HeightBuffer,
)
from consensus.effects import BadPeer
from consensus.messages import (
    Body,
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Vote,
)
from consensus.statement import propose_sign_bytes
from ledger.block import Block, Header, compute_body_hash
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from tests.sim.crypto import sign_with
from tests.unit.core_fixture import CHAIN, KEYS, LEADER_1, OTHERS, SET, receive, started

ZERO = b"\0" * 32
STRANGER = b"\x63" * 32


def block(height: int, view: int = 1, salt: int = 0) -> Block:
    header = Header(
        *(1, CHAIN, height, salt, ZERO, view, LEADER_1, b"", compute_body_hash((), None)),
        *(ZERO, 0, ZERO, ZERO, SET.hash, SET.hash),
    )
    return Block(header, (), None)


def vote(height: int, signer: bytes = KEYS[0], view: int = 1) -> Vote:
    message = vote_sign_bytes(CHAIN, VoteKind.NULLIFY, height, view, b"")
    return Vote(
        kind=VoteKind.NULLIFY,
        height=height,
        view=view,
        block_hash=b"",
        signer=signer,
        signature=sign_with(signer)(message),
    )


def proposal(height: int, signer: bytes = KEYS[0], salt: int = 0) -> Propose:
    one = block(height, salt=salt)
    message = propose_sign_bytes(CHAIN, height, 1, one.hash)
    return Propose(
        height=height,
        view=1,
        block=one,
        justify=(),
        signer=signer,
        signature=sign_with(signer)(message),
    )


def finalization(of: Block) -> Certificate:
    message = vote_sign_bytes(CHAIN, VoteKind.FINALIZE, of.height, 1, of.hash)
    votes = {key: sign_with(key)(message) for key in KEYS[:3]}
    return Certificate.of(VoteKind.FINALIZE, of.height, 1, of.hash, votes, SET)


def test_messages_come_out_at_their_height_in_order_once_and_older_ones_are_dropped() -> None:
    buffer = HeightBuffer()
    first, second = vote(7), vote(7, KEYS[1])
    for message in (vote(5), first, vote(6), second, first):
        buffer.add("a", message)
    assert buffer.take(7) == [("a", first), ("a", second)]
    assert buffer.take(6) == []


def test_one_signer_can_not_take_the_others_share() -> None:
    buffer = HeightBuffer()
    for number in range(2 * BUFFERED_PER_SIGNER_MAX):
        buffer.add("a", vote(5, view=number + 1))
        buffer.add("a", proposal(5, salt=number))
    modest = vote(5, KEYS[1])
    buffer.add("a", modest)
    taken = buffer.take(5)
    assert len(taken) == BUFFERED_PER_SIGNER_MAX + BUFFERED_BLOCKS_PER_SIGNER_MAX + 1
    assert taken[-1] == ("a", modest)


def test_blocks_are_bounded_in_all_and_who_has_most_makes_room() -> None:
    buffer = HeightBuffer()
    for number in range(BUFFERED_BLOCKS_MAX):
        signer = bytes([number // BUFFERED_BLOCKS_PER_SIGNER_MAX + 100]) * 32
        buffer.add("a", proposal(5, signer, number))
    modest = proposal(5, KEYS[1], 999)
    buffer.add("a", modest)
    taken = buffer.take(5)
    assert len(taken) == BUFFERED_BLOCKS_MAX
    assert ("a", modest) in taken
    for number in range(2 * BUFFERED_BLOCKS_MAX):
        buffer.add("a", proposal(6, bytes([number + 1]) * 32, number))
    assert len(buffer.take(6)) == BUFFERED_BLOCKS_MAX, "all have one: none goes for another"


FORGED = b"\x01" * 64
MINORITY = replace(finalization(block(10)), bitmap=b"\x80", signatures=(FORGED,))


@pytest.mark.parametrize(
    "bad",
    [
        replace(vote(10, OTHERS[0]), signature=FORGED),
        replace(proposal(10, LEADER_1), signature=FORGED),
        CertificateMessage(certificate=MINORITY),
        Final(block=block(10), certificate=MINORITY),
    ],
    ids=["vote", "proposal", "certificate", "final"],
)
def test_what_is_forged_is_not_kept_and_its_sender_told_of(bad: ConsensusMessage) -> None:
    """Unchecked, eight strangers filled all places for blocks."""
    core = started()
    assert [type(e) for e in receive(core, bad)] == [BadPeer]
    assert not core._buffer.take(10)


@pytest.mark.parametrize(
    "useless",
    [vote(10, STRANGER), proposal(10, STRANGER), Body(block=block(10)), vote(10, view=99)],
    ids=["vote of a stranger", "proposal of a stranger", "body", "view far ahead"],
)
def test_what_nobody_needs_at_the_next_height_is_not_kept(useless: ConsensusMessage) -> None:
    core = started()
    receive(core, useless)
    assert not core._buffer.take(10)


def test_an_honest_leader_is_heard_behind_a_flood_of_strangers() -> None:
    core = started()
    for number in range(200):
        receive(core, proposal(10, STRANGER, number))
        receive(core, replace(proposal(10, OTHERS[0], number), signature=FORGED))
    honest = Final(block=block(10), certificate=finalization(block(10)))
    real = proposal(10, LEADER_1, 7)
    receive(core, honest)
    receive(core, real)
    assert core._buffer.take(10) == [("p", honest), ("p", real)]
