"""Misses are judged late, from certificates and late votes; too many of them jail."""

from __future__ import annotations

import dataclasses
import random

import pytest

from consensus.liveness import (
    LATE_HEIGHTS,
    LateVote,
    LivenessModule,
    Misses,
    missed_key,
    read_misses,
    read_pending,
    wanted_votes,
)
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.errors import InvalidInputError
from ledger.execution import BlockFacts
from ledger.staking_rows import read_validator
from tests.unit.block_context import BlockWorld
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, NETWORK, PARAMS, VALIDATOR_KEYS

WINDOW, MISSED_MAX = 40, 20
HASHES = [bytes([n]) * 32 for n in range(200)]
KEYS = [v.public_key for v in GENESIS.validators.validators]
LATE = KEYS[3]
OPERATOR = {n.validator_key.public_key: n.operator_key.public_key for n in NETWORK.nodes}


def new_world() -> BlockWorld:
    world = BlockWorld(CHAIN_ID)
    world.params = dataclasses.replace(
        PARAMS, downtime_window=WINDOW, downtime_missed_max=MISSED_MAX
    )
    world.rows.update(GENESIS.state_rows())
    return world


def certificate(height: int, signers: list[bytes], view: int = 1) -> Certificate:
    message = vote_sign_bytes(CHAIN_ID, VoteKind.FINALIZE, height, view, HASHES[height])
    signatures = {key: VALIDATOR_KEYS[key].sign(message) for key in signers}
    return Certificate.of(
        VoteKind.FINALIZE, height, view, HASHES[height], signatures, GENESIS.validators
    )


def late_vote(height: int, key: bytes, view: int = 1) -> bytes:
    message = vote_sign_bytes(CHAIN_ID, VoteKind.FINALIZE, height, view, HASHES[height])
    return LateVote(
        height=height, view=view, signer=key, signature=VALIDATOR_KEYS[key].sign(message)
    ).encode()


def block(world: BlockWorld, signers: list[bytes], late: tuple[bytes, ...] = ()) -> None:
    """The next block, whose parent `signers` finalized."""
    parent = world.height
    world.height += 1
    world.parent_hash = HASHES[parent]
    world.facts = BlockFacts(
        proposer=KEYS[0], parent_certificate=certificate(parent, signers), late_votes=late
    )
    before = dict(world.rows)
    try:
        LivenessModule().begin(world)
    except InvalidInputError:
        world.height = parent
        world.restore(before)
        raise


def test_who_signs_leaves_no_trace_but_the_pending_heights() -> None:
    world = new_world()
    for _ in range(LATE_HEIGHTS + 10):
        block(world, KEYS)
    assert [p.height for p in read_pending(world.state)] == list(
        range(world.height - LATE_HEIGHTS, world.height)
    )
    assert wanted_votes(world.state) == {}
    assert not any(world.state.get(missed_key(o)) for o in OPERATOR.values())


def test_an_absent_validator_has_missed_the_height_once_no_late_vote_can_come() -> None:
    world = new_world()
    block(world, KEYS[:3])
    assert wanted_votes(world.state) == {1: frozenset([LATE])}
    for _ in range(LATE_HEIGHTS - 1):
        block(world, KEYS)
    assert read_misses(world.state, OPERATOR[LATE]).bits == 0
    block(world, KEYS)
    assert read_misses(world.state, OPERATOR[LATE]) == Misses(height=1, bits=1)


@pytest.mark.parametrize("after", [1, 7, LATE_HEIGHTS - 1])
def test_a_late_but_honest_signer_is_not_counted_as_missing(after: int) -> None:
    world = new_world()
    block(world, KEYS[:3])
    for _ in range(after - 1):
        block(world, KEYS)
    block(world, KEYS, (late_vote(1, LATE, view=3),))
    for _ in range(LATE_HEIGHTS + 2):
        block(world, KEYS)
    assert world.state.get(missed_key(OPERATOR[LATE])) is None


def test_late_votes_that_show_nothing_new_or_nothing_true_make_a_block_invalid() -> None:
    world = new_world()
    block(world, KEYS[:3])
    good = late_vote(1, LATE)
    vote = LateVote.decode(good)
    stranger = dataclasses.replace(vote, signer=bytes(32)).encode()
    bad = dataclasses.replace(vote, signature=bytes(64)).encode()
    other = dataclasses.replace(vote, view=2).encode()
    for late in (
        (late_vote(1, KEYS[0]),),
        (late_vote(3, LATE),),
        (good, good),
        (stranger,),
        (bad,),
        (other,),
        (b"",),
        (good + b"\0",),
    ):
        rows = dict(world.rows)
        with pytest.raises(InvalidInputError):
            block(world, KEYS, late)
        assert world.rows == rows
    block(world, KEYS, (good,))
    with pytest.raises(InvalidInputError, match="nothing new"):
        block(world, KEYS, (good,))


def test_too_many_misses_in_the_window_jail_and_cost_stake() -> None:
    world = new_world()
    before = read_validator(world.state, OPERATOR[LATE])
    for _ in range(LATE_HEIGHTS + MISSED_MAX):
        block(world, KEYS[:3])
    record = read_validator(world.state, OPERATOR[LATE])
    assert record is not None
    assert not record.is_jailed
    block(world, KEYS[:3])
    record = read_validator(world.state, OPERATOR[LATE])
    assert record is not None
    assert before is not None
    assert record.is_jailed
    assert not record.is_tombstoned
    assert record.jailed_until_ms == world.time_ms + PARAMS.downtime_jail_ms
    burned = before.tokens * PARAMS.slash_downtime_ppm // 1_000_000
    assert record.tokens == before.tokens - burned
    assert world.state.get(missed_key(OPERATOR[LATE])) is None
    for _ in range(4):  # it is still in the set for two heights: no second punishment
        block(world, KEYS[:3])
    assert read_validator(world.state, OPERATOR[LATE]) == record


def test_misses_that_left_the_window_do_not_count() -> None:
    world = new_world()
    for n in range(5 * WINDOW // 2):
        block(world, KEYS[:3] if n % 10 == 0 else KEYS)
    record = read_validator(world.state, OPERATOR[LATE])
    assert record is not None
    assert not record.is_jailed


def test_the_window_agrees_with_a_list_of_heights() -> None:
    rng = random.Random(7)
    for _ in range(50):
        window, misses, heights = rng.randint(2, 64), Misses(height=0, bits=0), []
        height = 0
        for _ in range(100):
            height += rng.choice((1, 1, 2, 3, window, window + 1))
            heights.append(height)
            misses = misses.after_miss(height, window)
            assert misses.bits.bit_count() == sum(h > height - window for h in heights)
            later = height + rng.randint(0, window + 2)
            assert misses.count_at(later, window) == sum(h > later - window for h in heights)
            assert Misses.decode(misses.encode()) == misses


@pytest.mark.parametrize("data", [late_vote(1, LATE), Misses(height=9, bits=0x1F0).encode()])
def test_every_truncation_and_a_trailing_byte_are_refused(data: bytes) -> None:
    decode = LateVote.decode if len(data) > 64 else Misses.decode
    for bad in (*(data[:n] for n in range(len(data))), data + b"\0", b"\x90", b"\xc0"):
        with pytest.raises(InvalidInputError):
            decode(bad)
