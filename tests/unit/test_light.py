"""The light client: verdicts, sequential and skipping verification, attacks."""

from __future__ import annotations

import dataclasses
import time

import pytest

from ledger.block import Header
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import CannotTellError, FinalityProof, verify_finality
from ledger.light import (
    CLOCK_DRIFT_MAX_MS,
    Attack,
    Bisection,
    ExpiredTrustError,
    Judgement,
    LightBlock,
    Reached,
    TooOldError,
    TrustPoint,
    Verdict,
    compare,
    format_span,
    judge,
    trust_header,
    verdict_of,
    verify_age,
    verify_sequential,
    verify_trusted,
)
from tests.vectors.light_chain import (
    BLOCK_MS,
    CHAIN_ID,
    DAY_MS,
    GENESIS_TIME_MS,
    LightChain,
    key_of,
    set_of,
    sign,
)

SETS = [set_of(range(i, i + 6)) for i in range(5)]  # a skip spans two changes, never four
PLAN = [(s, 8) for s in SETS]
CHAIN = LightChain(PLAN, seed=1, key_count=20)
TOP = CHAIN.height
NOW_MS = GENESIS_TIME_MS + TOP * BLOCK_MS + 500
TRUST = CHAIN.trust(0)
PROOF = CHAIN.finality(TOP, 0)


def judged(proof: FinalityProof, **changes: int) -> Verdict:
    now_ms = changes.pop("now_ms", NOW_MS)
    return judge(proof.encode(), TRUST, now_ms=now_ms, **changes).verdict


def with_header(proof: FinalityProof, header: Header, signers: range) -> FinalityProof:
    certificate = sign(header, SETS[-1], [key_of(n) for n in signers])
    return dataclasses.replace(proof, header=header, certificate=certificate)


# --- verdicts ---


def test_a_proof_is_valid_within_the_trusting_period_and_age() -> None:
    judgement = judge(PROOF.encode(), TRUST, now_ms=NOW_MS, max_age_ms=500)
    assert judgement == Judgement(verdict=Verdict.VALID, reason="", header=CHAIN.header(TOP))
    assert len(PROOF.handoffs) == 2


def test_an_expired_trust_point_is_told_apart() -> None:
    limit_ms = GENESIS_TIME_MS + TRUST.trusting_period_ms
    assert judged(PROOF, now_ms=limit_ms) is Verdict.VALID
    assert judged(PROOF, now_ms=limit_ms + 1) is Verdict.VALID_BUT_EXPIRED_TRUST


def test_a_stale_header_is_too_old_even_if_the_trust_has_expired_as_well() -> None:
    assert judged(PROOF, max_age_ms=499) is Verdict.TOO_OLD
    assert judged(PROOF, now_ms=NOW_MS + 15 * DAY_MS, max_age_ms=1) is Verdict.TOO_OLD


def test_a_header_from_the_future_is_wrong_beyond_the_clock_drift() -> None:
    time_ms = CHAIN.header(TOP).time_ms
    assert judged(PROOF, now_ms=time_ms - CLOCK_DRIFT_MAX_MS) is Verdict.VALID
    assert judged(PROOF, now_ms=time_ms - CLOCK_DRIFT_MAX_MS - 1) is Verdict.WRONG


def test_a_header_not_later_than_the_trust_point_in_time_is_wrong() -> None:
    header = dataclasses.replace(CHAIN.header(TOP), time_ms=GENESIS_TIME_MS)
    trust = dataclasses.replace(TRUST, validators=SETS[-1])
    signed = with_header(dataclasses.replace(PROOF, handoffs=()), header, range(4, 10))
    assert judge(signed.encode(), trust, now_ms=NOW_MS).verdict is Verdict.WRONG


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Header)])
def test_every_altered_header_field_is_refused(field: str) -> None:
    value = getattr(PROOF.header, field)
    other = {int: value, str: "light-2", bytes: b"\7" * 32}[type(value)]
    if isinstance(other, int):
        other += 1
    header = dataclasses.replace(PROOF.header, **{field: other})
    verdict = judged(dataclasses.replace(PROOF, header=header))
    assert verdict is (Verdict.CANNOT_TELL if field == "protocol_version" else Verdict.WRONG)


def test_no_answer_and_what_the_trust_does_not_reach_can_not_be_told() -> None:
    assert judge(b"", TRUST, now_ms=NOW_MS).verdict is Verdict.CANNOT_TELL
    older = CHAIN.finality(5, 0).encode()
    assert judge(older, CHAIN.trust(8), now_ms=NOW_MS).verdict is Verdict.CANNOT_TELL
    assert judge(older, CHAIN.trust(5), now_ms=NOW_MS).verdict is Verdict.VALID  # known already


def test_garbage_is_wrong() -> None:
    for data in (b"\xc1", PROOF.encode()[:-1], PROOF.encode() + b"\0"):
        assert judge(data, TRUST, now_ms=NOW_MS).verdict is Verdict.WRONG


# --- checks that go on from a proof ---


def trusted_by(proof: FinalityProof, trust: TrustPoint) -> Header:
    return verify_trusted(proof, trust, CHAIN_ID, now_ms=NOW_MS)


def test_a_proof_from_genesis_does_for_a_later_trust_point_if_it_leads_on_from_there() -> None:
    whole = CHAIN.finality(TOP, 0)
    assert trusted_by(whole, TRUST) == trusted_by(whole, CHAIN.trust(TOP - 3)) == CHAIN.header(TOP)
    assert trusted_by(whole, CHAIN.trust(TOP)) == CHAIN.header(TOP), "the trusted header itself"
    assert judge(whole.encode(), CHAIN.trust(TOP - 3), now_ms=NOW_MS).verdict is not Verdict.VALID
    for height in (TOP + 1, TOP + 100):
        with pytest.raises(CannotTellError, match="at or below"):
            trusted_by(whole, dataclasses.replace(CHAIN.trust(TOP), height=height))
    stranger = dataclasses.replace(CHAIN.trust(TOP - 3), validators=set_of(range(20, 26)))
    with pytest.raises(CannotTellError, match="does not lead on"):
        trusted_by(whole, stranger)


def test_a_lie_stays_wrong_by_a_trust_point_and_a_set_needs_no_clock() -> None:
    header = dataclasses.replace(PROOF.header, state_root=b"\7" * 32)
    with pytest.raises(InvalidInputError) as caught:
        trusted_by(dataclasses.replace(PROOF, header=header), TRUST)
    assert verdict_of(caught.value) is Verdict.WRONG
    assert verify_trusted(PROOF, SETS[0], CHAIN_ID, now_ms=None) == PROOF.header
    with pytest.raises(UsageError, match="judged at a time"):
        verify_trusted(PROOF, TRUST, CHAIN_ID, now_ms=None)


def test_ages_are_judged_to_the_millisecond_and_a_bare_set_has_none() -> None:
    time_ms, period_ms = CHAIN.header(TOP).time_ms, TRUST.trusting_period_ms
    verify_age(time_ms, TRUST, now_ms=time_ms + 500, max_age_ms=500)
    with pytest.raises(TooOldError) as too_old:
        verify_age(time_ms, TRUST, now_ms=time_ms + 501, max_age_ms=500)
    assert verdict_of(too_old.value) is Verdict.TOO_OLD
    verify_age(time_ms, TRUST, now_ms=GENESIS_TIME_MS + period_ms, max_age_ms=None)
    with pytest.raises(ExpiredTrustError) as expired:
        verify_age(time_ms, TRUST, now_ms=GENESIS_TIME_MS + period_ms + 1, max_age_ms=None)
    assert verdict_of(expired.value) is Verdict.VALID_BUT_EXPIRED_TRUST
    verify_age(time_ms, SETS[0], now_ms=2**60, max_age_ms=None)
    spans = [format_span(n) for n in (0, 61_500, 120_000, 36 * 3_600_000, 14 * DAY_MS)]
    assert spans == ["0 s", "61.5 s", "2 minutes", "36 hours", "14 days"]


# --- trust points ---


def test_a_header_is_trusted_by_its_hash_and_only_if_it_is_final() -> None:
    block = CHAIN.light_block(16)
    trust = trust_header(
        block.encode(), block.header.hash, CHAIN_ID, trusting_period_ms=14 * DAY_MS
    )
    assert trust == CHAIN.trust(16)
    with pytest.raises(InvalidInputError, match="not the trusted one"):
        trust_header(block.encode(), bytes(32), CHAIN_ID, trusting_period_ms=1)
    thin = dataclasses.replace(block, certificate=sign(block.header, block.validators, [key_of(2)]))
    with pytest.raises(InvalidInputError, match="quorum"):
        trust_header(thin.encode(), block.header.hash, CHAIN_ID, trusting_period_ms=1)


def test_a_light_block_round_trips_and_carries_the_sets_of_its_header() -> None:
    block = CHAIN.light_block(8)
    assert LightBlock.decode(block.encode()) == block
    other = dataclasses.replace(block, next_validators=block.validators)
    with pytest.raises(InvalidInputError, match="names not"):
        LightBlock.decode(other.encode())


# --- sequential ---


def test_sequential_verification_follows_every_height_and_set() -> None:
    blocks = [CHAIN.light_block(h) for h in range(1, TOP + 1)]
    assert verify_sequential(blocks, TRUST, now_ms=NOW_MS) == CHAIN.trust(TOP)


def test_sequential_verification_refuses_a_gap_a_fork_the_future_and_expired_trust() -> None:
    blocks = [CHAIN.light_block(h) for h in range(1, 5)]
    with pytest.raises(InvalidInputError, match="missing"):
        verify_sequential([blocks[0], *blocks[2:]], TRUST, now_ms=NOW_MS)
    other = LightChain(PLAN, seed=2, key_count=20)
    with pytest.raises(InvalidInputError, match="does not follow"):
        verify_sequential([blocks[0], other.light_block(2)], TRUST, now_ms=NOW_MS)
    with pytest.raises(InvalidInputError, match="future"):
        verify_sequential(blocks, TRUST, now_ms=GENESIS_TIME_MS - CLOCK_DRIFT_MAX_MS)
    with pytest.raises(InvalidInputError, match="trusting period"):
        verify_sequential(blocks, TRUST, now_ms=NOW_MS + 15 * DAY_MS)


# --- bisection ---


def run(chain: LightChain, target: int, start: int = 0) -> tuple[Reached | Judgement, list[int]]:
    """Feed what is wanted; how it ended and the heights it asked for."""
    asked: list[int] = []
    step: Bisection | Reached | Judgement = Bisection.begin(chain.trust(start), target)
    now_ms = chain.header(chain.height).time_ms
    while isinstance(step, Bisection):
        asked.append(step.wanted)
        step = step.on_block(chain.light_block(step.wanted).encode(), now_ms=now_ms)
    return step, asked


@pytest.mark.parametrize("length", [1, 2, 8])
def test_bisection_reaches_every_height_and_gives_its_proof(length: int) -> None:
    sets = [set_of(range(i * 3, i * 3 + 4)) for i in range(6)]  # one of four stays: never a skip
    chain = LightChain([(s, length) for s in sets], seed=5, key_count=30)
    for start in range(chain.height):
        for target in range(start + 1, chain.height + 1):
            reached, asked = run(chain, target, start)
            assert isinstance(reached, Reached)
            assert reached.trust == chain.trust(target)
            assert len(asked) == len(set(asked))
            header = verify_finality(reached.proof, chain.sets[start], CHAIN_ID)
            assert header == chain.header(target)


def test_bisection_asks_once_where_the_trusted_validators_still_sign() -> None:
    assert run(CHAIN, 16)[1] == [16]
    reached, asked = run(CHAIN, TOP)
    assert isinstance(reached, Reached)
    assert asked == [40, 20]


def test_bisection_ends_on_a_wrong_height_a_bad_signature_silence_and_expired_trust() -> None:
    begun = Bisection.begin(TRUST, TOP)
    cases: list[tuple[bytes, int, Verdict]] = [
        (CHAIN.light_block(5).encode(), NOW_MS, Verdict.WRONG),
        (b"\xc1", NOW_MS, Verdict.WRONG),
        (b"", NOW_MS, Verdict.CANNOT_TELL),
        (CHAIN.light_block(TOP).encode(), NOW_MS + 15 * DAY_MS, Verdict.WRONG),
        (CHAIN.light_block(TOP).encode(), GENESIS_TIME_MS, Verdict.WRONG),
    ]
    for data, now_ms, verdict in cases:
        step = begun.on_block(data, now_ms=now_ms)
        assert isinstance(step, Judgement)
        assert step.verdict is verdict
    assert Bisection.begin(TRUST, TOP) == begun, "a refused block leaves it as it was"


def test_a_forged_block_half_way_is_wrong() -> None:
    """The target is real; the pivot is signed by validators that nobody trusts."""
    begun = Bisection.begin(TRUST, TOP).on_block(CHAIN.light_block(TOP).encode(), now_ms=NOW_MS)
    assert isinstance(begun, Bisection)
    real = CHAIN.light_block(begun.wanted)
    forged = dataclasses.replace(
        real, certificate=dataclasses.replace(real.certificate, signatures=(bytes(64),) * 5)
    )
    step = begun.on_block(forged.encode(), now_ms=NOW_MS)
    assert isinstance(step, Judgement)
    assert step.verdict is Verdict.WRONG


def test_there_is_no_way_back() -> None:
    with pytest.raises(UsageError):
        Bisection.begin(CHAIN.trust(7), 7)


@pytest.mark.slow
def test_skipping_over_ten_thousand_heights_takes_at_most_a_second_of_cpu() -> None:
    """100 validators, three changes that replace a tenth each, or everybody."""
    for shift in (10, 100):
        sets = [set_of(range(i * shift, i * shift + 100)) for i in range(4)]
        plan = list(zip(sets, (1_234, 3_210, 2_345, 3_211), strict=True))
        chain = LightChain(plan, seed=1, key_count=3 * shift + 100)
        now_ms = chain.header(10_000).time_ms
        proof = chain.finality(10_000, 0).encode()
        blocks: dict[int, bytes] = {}
        cpu_s = -time.process_time()
        assert judge(proof, chain.trust(0), now_ms=now_ms).verdict is Verdict.VALID
        cpu_s += time.process_time()
        assert cpu_s <= 1
        step: Bisection | Reached | Judgement = Bisection.begin(chain.trust(0), 10_000)
        cpu_s = 0.0
        while isinstance(step, Bisection):
            blocks[step.wanted] = chain.light_block(step.wanted).encode()
            cpu_s -= time.process_time()
            step = step.on_block(blocks[step.wanted], now_ms=now_ms)
            cpu_s += time.process_time()
        assert isinstance(step, Reached)
        assert cpu_s <= 1


# --- attacks ---


def test_two_final_headers_of_one_height_are_an_attack_with_both_proofs() -> None:
    fork = LightChain(PLAN, seed=2, key_count=20, fork_from=20)
    other = fork.finality(TOP, 0)
    found = compare(PROOF, other.encode(), TRUST, now_ms=NOW_MS)
    assert found == Attack(trust=TRUST, first=PROOF, second=other)
    for proof in (found.first, found.second):
        verify_finality(proof, TRUST.validators, CHAIN_ID)


def test_witnesses_that_agree_lie_or_are_silent_are_told_apart() -> None:
    def judged(data: bytes) -> Verdict:
        found = compare(PROOF, data, TRUST, now_ms=NOW_MS)
        assert isinstance(found, Judgement)
        return found.verdict

    assert judged(CHAIN.finality(TOP, 0).encode()) is Verdict.VALID
    header = dataclasses.replace(PROOF.header, state_root=b"\1" * 32)
    assert judged(dataclasses.replace(PROOF, header=header).encode()) is Verdict.WRONG
    assert judged(b"") is Verdict.CANNOT_TELL
    assert judged(CHAIN.finality(TOP - 1, 0).encode()) is Verdict.CANNOT_TELL
