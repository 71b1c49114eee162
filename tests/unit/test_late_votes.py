"""A late vote gets into a block in time, and its signature is checked once, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from consensus.core import Core
from consensus.liveness import (
    LATE_HEIGHTS,
    LateVote,
    LivenessModule,
    late_vote_signatures,
    read_pending,
    wanted_votes,
)
from consensus.messages import Vote
from consensus.timing import Timing
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.execution import BlockFacts
from ledger.validator_rows import LAST_KEY
from ledger.validator_set import VALIDATORS_MAX, Validator, ValidatorSet
from node.block_facts import choose_late_votes
from node.signature_pool import SignatureJob, SignaturePool
from tests.unit.block_context import BlockWorld

KEYS = [number.to_bytes(32, "big") for number in range(1, VALIDATORS_MAX + 1)]
PARENT = bytes(32)
HEIGHTS = 64
SIGNATURE = b"s" * 64


def find_all(height: int, signers: Collection[bytes]) -> list[Vote]:
    """A leader that heard every vote by now."""
    return [
        Vote(
            kind=VoteKind.FINALIZE,
            height=height,
            view=1,
            block_hash=bytes(32),
            signer=key,
            signature=SIGNATURE,
        )
        for key in sorted(signers)
    ]


def count_missed(validators: ValidatorSet, signers: list[bytes], carrying: set[int]) -> int:
    """Misses in a chain whose certificates name `signers` alone, and in which those blocks that
    are in `carrying` hold what late votes their leaders may choose."""
    world = BlockWorld("late-1")
    world.rows[LAST_KEY] = validators.encoded
    module = LivenessModule(is_valid=lambda *_: True)
    missed = 0
    for height in range(2, HEIGHTS):
        world.height, world.parent_hash = height, bytes(32)
        wanted = wanted_votes(world.state)
        late = choose_late_votes(wanted, find_all) if height in carrying else ()
        certificate = Certificate.of(
            VoteKind.FINALIZE,
            height - 1,
            1,
            bytes(32),
            dict.fromkeys(signers, SIGNATURE),
            validators,
        )
        world.facts = BlockFacts(proposer=KEYS[0], parent_certificate=certificate, late_votes=late)
        before = {p.height: p for p in read_pending(world.state)}
        module.begin(world)
        after = {p.height for p in read_pending(world.state)}
        carried = {(v.height, v.signer) for v in map(LateVote.decode, late)}
        for due in set(before) - after:
            missed += sum((due, key) not in carried for key in before[due].absent)
    return missed


@pytest.mark.parametrize(
    ("powers", "signers"),
    [
        pytest.param([1] * VALIDATORS_MAX, 171, id="a third of 256"),
        pytest.param([1000] + [1] * (VALIDATORS_MAX - 1), 1, id="all but one"),
    ],
)
@pytest.mark.parametrize("silent", [0, 1, LATE_HEIGHTS - 2])
def test_as_many_late_votes_as_a_height_can_lack_are_all_carried_in_time(
    powers: list[int], signers: int, silent: int
) -> None:
    """`silent` leaders in a row carry none, then one in three goes on like that."""
    validators = ValidatorSet.of(
        Validator(public_key=k, power=p) for k, p in zip(KEYS, powers, strict=True)
    )
    present = [v.public_key for v in validators.validators][:signers]
    carrying = {h for h in range(2 + silent, HEIGHTS) if not silent or h % 3}
    assert count_missed(validators, present, carrying) == 0
    assert count_missed(validators, present, set()) > 0


def test_signatures_of_late_votes_are_checked_in_the_pool_and_then_known() -> None:
    """What a block may not carry costs no check there: the module refuses it by itself."""
    key = KeyPair.from_seed(bytes(32))
    validators = ValidatorSet.of(
        Validator(public_key=k, power=1) for k in (key.public_key, *KEYS[:3])
    )
    world = BlockWorld("late-1")
    world.rows[LAST_KEY] = validators.encoded

    def late_vote(signer: bytes, height: int, sign: KeyPair = key) -> bytes:
        message = vote_sign_bytes("late-1", VoteKind.FINALIZE, height, 1, PARENT)
        vote = LateVote(height=height, view=1, signer=signer, signature=sign.sign(message))
        return vote.encode()

    good = late_vote(key.public_key, 7)
    forged = late_vote(KEYS[0], 7)
    others = [late_vote(bytes(32), 7), late_vote(key.public_key, 3), good]

    def jobs_of(votes: list[bytes]) -> list[SignatureJob]:
        return late_vote_signatures(world.state, "late-1", (7, PARENT), votes)

    jobs = jobs_of([good, forged, *others])
    assert [job[0] for job in jobs] == [key.public_key, KEYS[0]]
    assert jobs_of([good, b"\xc1"]) == []
    pool = SignaturePool(threads=1)
    assert pool.unknown(jobs) == jobs
    asyncio.run(pool.warm(jobs))
    assert pool.unknown(jobs) == jobs[1:]
    assert Core(
        chain_id="late-1", key=None, sign=None, timing=Timing(), is_valid=pool.cache
    ).signature_check.knows(*jobs[0])
    pool.close()
