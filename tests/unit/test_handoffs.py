"""Steps between validator sets: skips, and the shortest chain of them."""

from __future__ import annotations

import dataclasses
import itertools
from random import Random

import pytest

from ledger.certificate import Certificate
from ledger.errors import InvalidInputError
from ledger.finality import (
    FinalityProof,
    Handoff,
    TooLittleOverlapError,
    verify_finality,
    verify_handoff,
    verify_handoffs,
)
from ledger.handoffs import (
    SEARCH_STAGES_MAX,
    SEARCHES_MAX,
    Handoffs,
    plan_steps,
)
from tests.vectors.light_chain import CHAIN_ID, LightChain, key_of, make_header, set_of, sign


def skip_of(validators: range, signers: range, height: int = 9) -> Handoff:
    its_set = set_of(validators)
    header = make_header(height, bytes(32), its_set, its_set, 0)
    certificate = sign(header, its_set, [key_of(n) for n in signers])
    return Handoff(header=header, certificate=certificate, next_validators=its_set)


def test_a_skip_carries_only_with_more_than_a_third_of_the_trusted_power() -> None:
    """Trusted: 0..5, power 6. Two of them are exactly 1/3, three are more."""
    trusted = set_of(range(6))
    third = skip_of(range(4, 12), range(4, 12))
    with pytest.raises(TooLittleOverlapError, match="too few"):
        verify_handoff(third, trusted, CHAIN_ID)
    more = skip_of(range(3, 11), range(3, 11))
    assert verify_handoff(more, trusted, CHAIN_ID) == more.next_validators


def test_only_those_who_signed_count_for_the_overlap() -> None:
    trusted = set_of(range(6))
    silent = skip_of(range(3, 12), range(5, 12))  # 3 and 4 are in the set and did not sign
    with pytest.raises(TooLittleOverlapError):
        verify_handoff(silent, trusted, CHAIN_ID)


def test_the_overlap_counts_the_power_in_the_trusted_set() -> None:
    """Validator 0 holds 4 of 6 in the trusted set and 1 of 4 later; 1 the other way round."""
    later = set_of([0, 1, 2], [1, 8, 1])
    header = make_header(9, bytes(32), later, later, 0)
    certificate = sign(header, later, [key_of(1)])
    handoff = Handoff(header=header, certificate=certificate, next_validators=later)
    with pytest.raises(TooLittleOverlapError):
        verify_handoff(handoff, set_of([0, 1, 3], [4, 1, 1]), CHAIN_ID)
    assert verify_handoff(handoff, set_of([0, 1, 3], [1, 2, 1]), CHAIN_ID) == later


def test_a_skip_needs_the_quorum_of_the_set_it_carries() -> None:
    with pytest.raises(InvalidInputError, match="quorum"):
        verify_handoff(skip_of(range(9), range(6)), set_of(range(4)), CHAIN_ID)


def test_a_skip_carries_the_set_that_voted_not_the_one_that_votes_next() -> None:
    now, following = set_of(range(1, 5)), set_of(range(8, 12))
    header = make_header(9, bytes(32), now, following, 0)
    certificate = sign(header, now, [key_of(n) for n in range(1, 5)])
    trusted = set_of(range(4))
    good = Handoff(header=header, certificate=certificate, next_validators=now)
    assert verify_handoff(good, trusted, CHAIN_ID) == now
    bad = dataclasses.replace(good, next_validators=following)
    with pytest.raises(InvalidInputError, match="another validator set"):
        verify_handoff(bad, trusted, CHAIN_ID)
    # once the set of the header is trusted, the same header hands over to the next
    proof_header = make_header(10, header.hash, following, following, 0)
    proof = FinalityProof(
        header=proof_header,
        certificate=sign(proof_header, following, [key_of(n) for n in range(8, 12)]),
        handoffs=(good, bad),
    )
    assert verify_finality(proof, trusted, CHAIN_ID) == proof_header


def test_times_must_increase_from_step_to_step() -> None:
    chain = LightChain([(set_of(range(4)), 5), (set_of(range(4, 8)), 5)], seed=1, key_count=8)
    proof = chain.finality(9, 0)
    assert verify_finality(proof, chain.sets[0], CHAIN_ID) == chain.header(9)
    stale = dataclasses.replace(chain.header(9), time_ms=chain.header(5).time_ms)
    certificate = sign(stale, chain.sets[8], [key_of(n) for n in range(4, 8)])
    late = dataclasses.replace(proof, header=stale, certificate=certificate)
    with pytest.raises(InvalidInputError, match="time does not increase"):
        verify_finality(late, chain.sets[0], CHAIN_ID)


# --- the shortest way ---


def naive_shortest(hashes: list[bytes], can_skip: set[tuple[int, int]]) -> int:
    """Floyd and Warshall over all stages."""
    size = len(hashes)
    cost = [[1000] * size for _ in range(size)]
    for i, j in itertools.product(range(size), repeat=2):
        if i <= j and hashes[i] == hashes[j]:
            cost[i][j] = 0
        elif j == i + 1 or (i, j) in can_skip:
            cost[i][j] = 1
    for k, i, j in itertools.product(range(size), repeat=3):
        cost[i][j] = min(cost[i][j], cost[i][k] + cost[k][j])
    return cost[0][size - 1]


def test_planned_steps_are_as_few_as_a_naive_search_finds() -> None:
    random = Random(7)
    for _ in range(300):
        size = random.randint(1, 9)
        hashes = [bytes([random.randint(0, 6)]) for _ in range(size)]
        allowed = {
            (i, j) for i in range(size) for j in range(i + 2, size) if random.random() < 0.25
        }
        steps = plan_steps(hashes, lambda i, j, allowed=allowed: (i, j) in allowed)  # type: ignore[misc]  # a default binds the loop's value
        assert len(steps) == naive_shortest(hashes, allowed)
        at = 0
        for stage, other in steps:
            assert hashes[stage] == hashes[at]
            assert stage >= at
            assert other == stage + 1 or (stage, other) in allowed
            at = other
        assert hashes[at] == hashes[size - 1]


def test_greedy_furthest_would_not_be_the_shortest() -> None:
    """From 0 the furthest is 3, from where each stage must be walked; by way of 1 it is two."""
    allowed = {(0, 3), (1, 6)}
    hashes = [bytes([i]) for i in range(7)]
    assert plan_steps(hashes, lambda i, j: (i, j) in allowed) == [(0, 1), (1, 6)]


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_the_way_found_leads_from_every_height_to_every_height(length: int, overlap: int) -> None:
    """Sets slide along the validators; `overlap` of four stay at each change. With stages of one
    height, skips and adjacent steps fall on the same header."""
    sets = [set_of(range(i * (4 - overlap), i * (4 - overlap) + 4)) for i in range(8)]
    chain = LightChain([(s, length) for s in sets], seed=3, key_count=40)
    for trusted in range(chain.height):
        for height in range(trusted + 1, chain.height + 1):
            proof = chain.finality(height, trusted)
            assert verify_finality(proof, chain.sets[trusted], CHAIN_ID) == chain.header(height)
            changes = len(chain.handoff_heights(trusted + 1, height - 1, 1000))
            assert len(proof.handoffs) <= changes


def test_one_skip_spans_many_small_changes() -> None:
    sets = [set_of(range(6), [50] * 5 + [power]) for power in range(1, 41)]
    chain = LightChain([(s, 4) for s in sets], seed=1, key_count=6)
    assert len(chain.finality(chain.height, 0).handoffs) == 1


@pytest.mark.slow
def test_more_changes_than_are_searched_at_once_still_give_a_short_way() -> None:
    count = 5 * SEARCH_STAGES_MAX
    sets = [set_of(range(i // 32, i // 32 + 6), [5] * 5 + [1 + i % 2]) for i in range(count)]
    chain = LightChain([(s, 2) for s in sets], seed=1, key_count=count // 32 + 8)
    proof = chain.finality(chain.height, 0)
    assert verify_finality(proof, chain.sets[0], CHAIN_ID) == chain.header(chain.height)
    assert len(proof.handoffs) <= 8


def test_validators_that_changed_too_often_are_refused_with_a_reason() -> None:
    count = 20 * SEARCH_STAGES_MAX
    sets = [set_of(range(i * 4, i * 4 + 4)) for i in range(count)]
    chain = LightChain([(s, 1) for s in sets], seed=1, key_count=count * 4)
    for _ in range(count // SEARCH_STAGES_MAX // SEARCHES_MAX + 1):
        with pytest.raises(InvalidInputError) as caught:
            chain.finality(chain.height, 0)
    assert "too often" in str(caught.value)
    assert not caught.value.retry
    assert chain.finality(chain.height, chain.height - 20).handoffs


def test_steps_that_would_not_fit_a_proof_are_refused() -> None:
    sets = [set_of(range(i * 4, i * 4 + 4)) for i in range(6)]
    chain = LightChain([(s, 2) for s in sets], seed=1, key_count=24)
    steps = chain.finality(chain.height, 0)
    size = len(steps.encode()) - len(dataclasses.replace(steps, handoffs=()).encode())
    with pytest.raises(InvalidInputError, match="too often"):
        Handoffs(chain, bytes_max=size).find(0, chain.height)
    roomy = size + 256 * len(steps.handoffs)
    assert Handoffs(chain, bytes_max=roomy).find(0, chain.height) == steps.handoffs


class CountingChain(LightChain):
    """How many certificates were read for answers."""

    reads = 0

    def certificate(self, height: int) -> Certificate:
        self.reads += 1
        return super().certificate(height)


@pytest.mark.slow
@pytest.mark.parametrize("is_refused", [False, True])
def test_the_work_of_answers_is_kept_and_shared_refusals_too(is_refused: bool) -> None:
    """No call does more than its searches, and one from another height than before does no more
    than search the two ends again and read what it gives."""
    count = 20 * SEARCH_STAGES_MAX
    if is_refused:  # no skip carries
        sets = [set_of(range(i * 4, i * 4 + 4)) for i in range(count)]
    else:
        sets = [set_of(range(i // 32, i // 32 + 6), [5] * 5 + [1 + i % 2]) for i in range(count)]
    chain = CountingChain([(s, 2) for s in sets], seed=1, key_count=count * 4)
    handoffs = Handoffs(chain)

    def find(trusted: int, height: int) -> tuple[Handoff, ...] | bool:
        """The steps, or whether it is worth a retry."""
        before = chain.reads
        try:
            found: tuple[Handoff, ...] | bool = handoffs.find(trusted, height)
        except InvalidInputError as error:
            found = error.retry
        assert chain.reads - before <= (SEARCHES_MAX + 1) * (SEARCH_STAGES_MAX + 1)
        return found

    calls = 1
    while (steps := find(0, chain.height)) is True:
        calls += 1
    assert 2 <= calls <= count // SEARCH_STAGES_MAX // SEARCHES_MAX + 1
    assert (steps is False) is is_refused
    known = chain.reads
    assert find(0, chain.height) == find(1, chain.height) == steps
    assert chain.reads == known
    find(chain.height // 7, chain.height - 5)
    assert chain.reads - known <= 6 * SEARCH_STAGES_MAX


def test_a_fork_proof_gets_its_handoffs_whatever_they_take() -> None:
    count = 20 * SEARCH_STAGES_MAX
    sets = [set_of(range(i // 32, i // 32 + 6), [5] * 5 + [1 + i % 2]) for i in range(count)]
    chain = LightChain([(s, 2) for s in sets], seed=1, key_count=count // 32 + 8)
    steps = Handoffs(chain).find_to_voters(chain.height)
    assert verify_handoffs(steps, chain.sets[0], CHAIN_ID) == chain.sets[chain.height - 1]
