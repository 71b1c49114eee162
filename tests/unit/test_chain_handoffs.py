"""A chain whose validators change proves with the fewest handoffs from any trusted height."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from did import resolver
from did.syntax import encode_did
from did.verify import Outcome, verify_resolution
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.chain import Chain
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext
from ledger.finality import verify_finality, verify_handoffs
from ledger.handoffs import Handoffs
from ledger.store import MemoryStore
from ledger.validator_rows import NEXT_KEY
from ledger.validator_set import ValidatorSet
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, VALIDATOR_KEYS, LeafListLog, build, handlers
from tests.vectors.light_chain import key_of, set_of

KEYS = {**VALIDATOR_KEYS, **{key_of(n).public_key: key_of(n) for n in range(20)}}
CHANGES = {3: set_of(range(6)), 6: set_of(range(1, 7)), 9: set_of(range(2, 8))}
"""Height that decides -> set that votes from two heights later on. The first shares nobody with
the genesis set, so that there is no skip; the others may be skipped to."""
TOP = 16


class Elections:
    """Names the sets of `CHANGES`."""

    def begin(self, context: BlockContext) -> None:
        pass

    def end(self, context: BlockContext) -> None:
        if context.height in CHANGES:
            context.state.put(NEXT_KEY, CHANGES[context.height].encoded)


def grown(store: MemoryStore, top: int = TOP) -> Chain:
    chain = open_chain(store)
    while chain.height < top:
        voters: ValidatorSet = chain.validators
        facts = chain.plain_facts(voters.validators[0].public_key)
        block = chain.build(view=1, facts=facts, time_ms=0, candidates=())
        message = vote_sign_bytes(CHAIN_ID, VoteKind.FINALIZE, block.height, 1, block.hash)
        signatures: Mapping[bytes, bytes] = {
            v.public_key: KEYS[v.public_key].sign(message) for v in voters.validators
        }
        certificate = Certificate.of(
            VoteKind.FINALIZE, block.height, 1, block.hash, signatures, voters
        )
        chain.commit(block, certificate)
    return chain


def open_chain(store: MemoryStore) -> Chain:
    return Chain.open(store, GENESIS, handlers(), LeafListLog(), modules=[Elections()])


STORE = MemoryStore()
CHAIN = grown(STORE)


def test_sets_count_two_heights_after_they_were_decided() -> None:
    for decided, validators in CHANGES.items():
        assert CHAIN.validators_at(decided + 1) != validators
        assert CHAIN.validators_at(decided + 2) == validators


def test_every_height_is_proven_from_every_height_before_it() -> None:
    for trusted in range(TOP + 1):
        trusted_set = CHAIN.validators_at(trusted + 1)
        for height in range(max(trusted, 1), TOP + 1):
            proof = CHAIN.finality(height, trusted)
            if height > trusted:
                assert verify_finality(proof, trusted_set, CHAIN_ID) == CHAIN.header(height)


def test_handoffs_are_as_few_as_the_overlaps_allow() -> None:
    counts = [len(CHAIN.finality(TOP, trusted).handoffs) for trusted in range(TOP)]
    # one step from genesis to the first new set, and from there one skip over both others
    assert counts == [2] * 4 + [1] * 6 + [0] * 6
    assert counts[0] < len(CHANGES)


@pytest.mark.parametrize("top", range(TOP + 1))
def test_handoffs_lead_to_the_voters_of_each_height_by_headers_below_it(top: int) -> None:
    """Also to those of the height in work, of which no block is final yet: a fork may be there."""
    chain = grown(MemoryStore(), top)
    for height in range(1, top + 2):
        handoffs = chain.handoffs_to(height)
        assert verify_handoffs(handoffs, GENESIS.validators, CHAIN_ID) == chain.validators_at(
            height
        )
        assert all(step.header.height < height for step in handoffs)


def test_a_trusted_height_above_the_answer_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="above") as caught:
        CHAIN.finality(TOP, TOP + 1)
    assert caught.value.retry, "the node may be behind"
    with pytest.raises(InvalidInputError, match="above") as caught:
        CHAIN.finality(3, 4)
    assert not caught.value.retry


def test_a_reopened_chain_serves_the_same_handoffs() -> None:
    again = open_chain(STORE)
    assert again.finality(TOP, 0) == CHAIN.finality(TOP, 0)
    assert Handoffs(again).find(0, TOP) == CHAIN.finality(TOP, 0).handoffs


def test_a_did_answer_verifies_through_a_skip_from_the_trusted_height() -> None:
    did = encode_did(bytes(32))
    for trusted in (0, 5, 12):
        answer = resolver.resolve(CHAIN.view_at(TOP, trusted), did)
        verdict = verify_resolution(
            answer,
            did=did,
            trusted=CHAIN.validators_at(trusted + 1),
            chain_id=CHAIN_ID,
            max_age_ms=None,
            now_ms=None,
        )
        assert verdict.outcome is Outcome.NOT_FOUND
        assert verdict.height == TOP
    with pytest.raises(InvalidInputError):
        verify_resolution(
            answer, did=did, trusted=GENESIS.validators, chain_id=CHAIN_ID, max_age_ms=None,
            now_ms=None,
        )  # fmt: skip


def test_a_block_of_the_old_set_is_refused_once_it_has_handed_over() -> None:
    block = build(CHAIN)
    header = dataclasses.replace(block.header, validators_hash=GENESIS.validators.hash)
    with pytest.raises(InvalidInputError, match="validators hash"):
        CHAIN.judge(dataclasses.replace(block, header=header), [], now_ms=None)
