"""The core's rules, one input at a time: four validators, of which one is the core under test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.core import Core
from consensus.effects import (
    BadPeer,
    Broadcast,
    BuildBlock,
    Effect,
    Finalise,
    JudgeBlock,
    NeedSync,
    Persist,
    SendTo,
    ServeFinal,
    SetTimer,
)
from consensus.inputs import (
    Awake,
    BlockBuilt,
    BlockJudged,
    Input,
    Received,
    Recovered,
    TimerFired,
    TimerId,
    Verdict,
)
from consensus.messages import CertificateMessage, ConsensusMessage, Propose, Status, Vote
from consensus.statement import Statement, StatementKind, status_sign_bytes
from consensus.timing import Timing
from ledger.certificate import Certificate, VoteKind
from ledger.errors import UsageError
from tests.sim.crypto import is_valid, sign_with
from tests.unit.core_fixture import (
    CHAIN,
    FOLLOWER,
    KEYS,
    LEADER_1,
    LEADER_2,
    OTHERS,
    SET,
    TIMING,
    certificate,
    make_block,
    new_core,
    notarized,
    own_votes,
    propose,
    receive,
    start,
    started,
    timers,
    vote,
)


def test_an_input_before_the_first_height_is_misuse() -> None:
    with pytest.raises(UsageError):
        new_core().step(0, Awake())


def test_an_idle_height_waits_for_the_heartbeat_alone() -> None:
    for key in (FOLLOWER, LEADER_1):
        effects = new_core(key).step(0, start())
        assert effects == [SetTimer(timer=TimerId.HEARTBEAT, delay_ms=TIMING.heartbeat_ms)]


def test_a_status_does_not_wake_an_idle_height_and_a_vote_does() -> None:
    core = started()
    assert TimerId.VIEW not in timers(receive(core, Status(height=9, view=1, need=())))
    effects = receive(core, vote(VoteKind.NULLIFY, OTHERS[0]))
    assert TimerId.VIEW in timers(effects)


def test_the_view_timer_starts_after_the_minimum_block_interval() -> None:
    effects = started().step(5, Awake())
    expected = TIMING.block_interval_min_ms - 5 + TIMING.view_timeout_base_ms
    assert timers(effects)[TimerId.VIEW] == expected


@pytest.mark.parametrize(
    ("event", "wait_ms"),
    [
        (Awake(), TIMING.block_interval_min_ms),
        (Received(peer="p", message=vote(VoteKind.NULLIFY, FOLLOWER)), TIMING.empty_interval_ms),
    ],
)
def test_the_leader_proposes_soon_with_a_tx_and_later_without(event: Input, wait_ms: int) -> None:
    core = started(LEADER_1)
    assert timers(core.step(0, event))[TimerId.PROPOSE] == wait_ms
    assert core.step(wait_ms, TimerFired(timer=TimerId.PROPOSE)) == [BuildBlock(height=9, view=1)]


def test_the_leaders_proposal_and_vote_are_persisted_before_they_are_sent() -> None:
    core, block = started(LEADER_1), make_block()
    core.step(0, Awake())
    core.step(50, TimerFired(timer=TimerId.PROPOSE))
    effects = core.step(55, BlockBuilt(height=9, view=1, block=block))
    persist = effects[0]
    assert isinstance(persist, Persist)
    assert persist.blocks == (block,)
    assert [s.kind for s in persist.guard] == [StatementKind.PROPOSE, StatementKind.NOTARIZE]
    sent = [type(e.message) for e in effects if isinstance(e, Broadcast)]
    assert sent == [Propose, Vote]


def test_building_another_block_than_asked_for_is_misuse() -> None:
    core = started(LEADER_1)
    core.step(0, Awake())
    core.step(50, TimerFired(timer=TimerId.PROPOSE))
    with pytest.raises(UsageError):
        core.step(55, BlockBuilt(height=9, view=1, block=make_block(2)))


def test_a_height_is_final_three_steps_after_the_proposal() -> None:
    core, block = started(), make_block()
    assert JudgeBlock(block=block, fresh=True) in receive(core, propose(block))
    effects = core.step(11, BlockJudged(block_hash=block.hash, verdict=Verdict.VALID))
    assert isinstance(effects[0], Persist)
    assert effects[0].blocks == (block,)
    assert len(own_votes(effects, VoteKind.NOTARIZE)) == 1
    receive(core, vote(VoteKind.NOTARIZE, OTHERS[0], 1, block.hash))
    effects = receive(core, vote(VoteKind.NOTARIZE, OTHERS[1], 1, block.hash))
    assert isinstance(effects[0], Persist)
    assert [c.kind for c in effects[0].certificates] == [VoteKind.NOTARIZE]
    assert [s.kind for s in effects[0].guard] == [StatementKind.FINALIZE]
    receive(core, vote(VoteKind.FINALIZE, OTHERS[0], 1, block.hash))
    effects = receive(core, vote(VoteKind.FINALIZE, OTHERS[1], 1, block.hash))
    final = next(e for e in effects if isinstance(e, Finalise))
    assert final.block == block
    assert effects.index(final) < effects.index(
        Broadcast(message=CertificateMessage(certificate=final.certificate))
    )


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.EARLY])
def test_a_block_that_is_not_valid_gets_no_vote(verdict: Verdict) -> None:
    core, block = started(), make_block()
    receive(core, propose(block))
    effects = core.step(11, BlockJudged(block_hash=block.hash, verdict=verdict))
    assert own_votes(effects, VoteKind.NOTARIZE) == []


def test_a_block_from_the_near_future_is_judged_again() -> None:
    core, block = started(), make_block()
    receive(core, propose(block))
    effects = core.step(11, BlockJudged(block_hash=block.hash, verdict=Verdict.EARLY))
    delay_ms = timers(effects)[TimerId.JUDGE]
    effects = core.step(11 + delay_ms, TimerFired(timer=TimerId.JUDGE))
    assert effects == [JudgeBlock(block=block, fresh=True)]


def test_a_block_proposed_again_is_judged_without_its_time() -> None:
    core, block = started(), make_block()
    justify = (certificate(VoteKind.NOTARIZE, 1, block.hash),)
    effects = receive(core, propose(block, 2, justify))
    assert JudgeBlock(block=block, fresh=False) in effects
    assert core.view == 2


BLOCK, OTHER = make_block(), make_block(salt=b"other")
X1 = certificate(VoteKind.NULLIFY, 1)
N1 = certificate(VoteKind.NOTARIZE, 1, BLOCK.hash)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("gap", propose(make_block(2), 2, ())),
        ("other block", propose(OTHER, 2, (N1,))),
        ("p not below v", propose(BLOCK, 1, (N1,))),
        ("minority", propose(make_block(2), 2, (certificate(VoteKind.NULLIFY, 1, b"", 2),))),
        ("origin view", propose(make_block(1), 2, (X1,))),
        ("too many", propose(make_block(2), 2, (X1, certificate(VoteKind.NULLIFY, 2)))),
        ("both", propose(BLOCK, 2, (N1, X1))),
        ("not the leader", propose(BLOCK, 1, (), FOLLOWER)),
        ("not its proposer", propose(make_block(1, b"", FOLLOWER))),
        ("bad signature", replace(vote(VoteKind.NULLIFY, OTHERS[0]), signature=b"\x01" * 64)),
        (
            "minority certificate",
            CertificateMessage(certificate=certificate(VoteKind.NULLIFY, 1, b"", 2)),
        ),
    ],
)
def test_rejected_input_changes_nothing(name: str, bad: ConsensusMessage) -> None:
    core = started()
    before = core.status()
    effects = receive(core, bad)
    assert [type(e) for e in effects] == [BadPeer], name
    assert core.status() == before
    good = notarized(core, BLOCK)
    assert len(own_votes(good, VoteKind.FINALIZE)) == 1


def test_a_bad_justify_does_not_taint_the_block() -> None:
    core, block = started(), make_block(2)
    receive(core, propose(block, 2, ()))
    assert JudgeBlock(block=block, fresh=True) in receive(core, propose(block, 2, (X1,)))


def test_an_expired_timer_nullifies_and_then_neither_notarizes_nor_finalizes() -> None:
    core = started()
    delay_ms = timers(core.step(0, Awake()))[TimerId.VIEW]
    effects = core.step(delay_ms, TimerFired(timer=TimerId.VIEW))
    assert len(own_votes(effects, VoteKind.NULLIFY)) == 1
    assert own_votes(notarized(core, BLOCK), VoteKind.FINALIZE) == []


def test_a_timer_that_fires_early_or_was_replaced_does_nothing() -> None:
    core = started()
    delay_ms = timers(core.step(0, Awake()))[TimerId.VIEW]
    effects = core.step(delay_ms - 7, TimerFired(timer=TimerId.VIEW))
    assert effects == [SetTimer(timer=TimerId.VIEW, delay_ms=7)]
    assert core.step(delay_ms, TimerFired(timer=TimerId.JUDGE)) == []


def test_a_notarized_view_is_left_when_a_validator_is_seen_in_a_later_one() -> None:
    core = started()
    notarized(core, BLOCK)
    assert core.view == 1
    signature = sign_with(OTHERS[0])(status_sign_bytes(CHAIN, 9, 2))
    unsigned = Status(height=9, view=2, need=())
    receive(core, unsigned)
    assert core.view == 1
    receive(core, Status(height=9, view=2, need=(), signer=OTHERS[0], signature=signature))
    assert core.view == 2


def test_after_a_crash_the_same_proposal_is_sent_and_own_votes_count() -> None:
    core, block = started(LEADER_1), make_block()
    core.step(0, Awake())
    core.step(50, TimerFired(timer=TimerId.PROPOSE))
    before = core.step(55, BlockBuilt(height=9, view=1, block=block))
    assert isinstance(before[0], Persist)
    again = new_core(LEADER_1)
    effects = again.step(0, start(Recovered(guard=before[0].guard, blocks=before[0].blocks)))
    old = [e.message for e in before if isinstance(e, Broadcast)]
    assert [m for m in old if Broadcast(message=m) in effects] == old
    assert not any(isinstance(e, BuildBlock) for e in again.step(5000, Awake()))
    for key in [k for k in KEYS if k != LEADER_1][:2]:
        effects = receive(again, vote(VoteKind.NOTARIZE, key, 1, block.hash), 5001)
    assert len(own_votes(effects, VoteKind.FINALIZE)) == 1


def test_after_a_crash_a_nullified_view_stays_nullified() -> None:
    nullified = Statement(kind=StatementKind.NULLIFY, height=9, view=1, block_hash=b"")
    core = new_core()
    effects = core.step(0, start(Recovered(guard=(nullified,))))
    assert len(own_votes(effects, VoteKind.NULLIFY)) == 1
    assert not any(isinstance(e, Persist) for e in effects)
    assert own_votes(notarized(core, BLOCK), VoteKind.FINALIZE) == []


def test_a_vote_of_ours_inside_a_stored_certificate_binds_us_after_a_crash() -> None:
    """The crash came after the certificate was synced and before the guard record was."""
    block = make_block()
    signers = {
        k: vote(VoteKind.NOTARIZE, k, 1, block.hash).signature for k in KEYS if k != LEADER_2
    }
    stored = Certificate.of(VoteKind.NOTARIZE, 9, 1, block.hash, signers, SET)
    core = new_core()
    effects = core.step(0, start(Recovered(certificates=(stored,))))
    persist = next(effect for effect in effects if isinstance(effect, Persist))
    own = Statement(kind=StatementKind.NOTARIZE, height=9, view=1, block_hash=block.hash)
    assert own in persist.guard
    other = make_block(salt=b"another")
    effects = receive(core, propose(other))
    effects += core.step(20, BlockJudged(block_hash=other.hash, verdict=Verdict.VALID))
    assert not own_votes(effects, VoteKind.NOTARIZE)


def test_nothing_is_signed_at_or_below_the_floor() -> None:
    core = started(floor=(9, 1))
    status = core.status()
    assert status is not None
    assert "floor" in (status.not_voting_because or "")
    assert own_votes(notarized(core, BLOCK), VoteKind.FINALIZE) == []
    core.step(9000, TimerFired(timer=TimerId.VIEW))
    receive(core, CertificateMessage(certificate=X1))
    block = make_block(2)
    receive(core, propose(block, 2, (X1,)))
    effects = core.step(13, BlockJudged(block_hash=block.hash, verdict=Verdict.VALID))
    assert len(own_votes(effects, VoteKind.NOTARIZE)) == 1


def test_a_full_node_finalises_and_signs_nothing() -> None:
    core = started(None)
    receive(core, propose(BLOCK))
    core.step(11, BlockJudged(block_hash=BLOCK.hash, verdict=Verdict.VALID))
    final = CertificateMessage(certificate=certificate(VoteKind.FINALIZE, 1, BLOCK.hash))
    effects = receive(core, final)
    assert any(isinstance(e, Finalise) for e in effects)
    status = core.status()
    assert status is not None
    assert "full node" in (status.not_voting_because or "")


def test_a_certificate_of_known_votes_costs_no_signature_check() -> None:
    checks = []

    def counting(key: bytes, message: bytes, signature: bytes) -> bool:
        checks.append(key)
        return is_valid(key, message, signature)

    core = Core(
        chain_id=CHAIN,
        key=FOLLOWER,
        sign=sign_with(FOLLOWER),
        is_valid=counting,
        timing=TIMING,
    )
    core.step(0, start())
    for key in KEYS[:2]:
        receive(core, vote(VoteKind.NULLIFY, key))
    del checks[:]
    receive(core, CertificateMessage(certificate=X1))
    assert checks == [KEYS[2]]


@pytest.mark.parametrize(
    ("height", "expected"),
    [(5, ServeFinal), (8, ServeFinal), (4, SendTo), (10, SendTo), (12, SendTo), (14, NeedSync)],
)
def test_a_status_of_another_height_is_answered_by_its_distance(
    height: int, expected: type[Effect]
) -> None:
    core = started()
    effects = receive(core, Status(height=height, view=1, need=()))
    assert [type(e) for e in effects if not isinstance(e, SetTimer)] == [expected]
    assert receive(core, Status(height=height, view=1, need=())) == [], "rate-limited"


def test_needed_certificates_and_own_votes_are_given() -> None:
    core = started()
    receive(core, CertificateMessage(certificate=X1))
    delay_ms = TIMING.view_timeout_ms(TIMING.view_timeout_base_ms, 2)
    core.step(10 + delay_ms, TimerFired(timer=TimerId.VIEW))
    effects = receive(core, Status(height=9, view=2, need=(2, 1)), 20_000)
    sent = [e.message for e in effects if isinstance(e, SendTo)]
    assert CertificateMessage(certificate=X1) in sent
    assert vote(VoteKind.NULLIFY, FOLLOWER, 2) in sent


def test_votes_too_far_ahead_are_dropped_and_certificates_are_not() -> None:
    core = started()
    assert receive(core, vote(VoteKind.NULLIFY, OTHERS[0], 62)) == []
    receive(core, CertificateMessage(certificate=certificate(VoteKind.NULLIFY, 70)))
    assert core.view == 71


def test_the_timeout_base_follows_what_heights_take() -> None:
    timing = Timing()
    assert timing.next_base_ms(1000, 10) == 750
    assert timing.next_base_ms(700, 10) == timing.view_timeout_min_ms == 600
    assert timing.next_base_ms(500, 2000) == 3000
    assert timing.next_base_ms(500, 60_000) == timing.view_timeout_max_ms
    assert [timing.view_timeout_ms(500, v) for v in (1, 2, 3, 40)] == [500, 1000, 2000, 10_000]
    with pytest.raises(UsageError):
        Timing(retry_ms=900)


def test_whoever_hears_of_the_finalization_before_the_notarization_still_finalizes() -> None:
    """It would else be missing from every certificate, and count as absent."""
    core, block = started(), make_block()
    receive(core, propose(block))
    core.step(11, BlockJudged(block_hash=block.hash, verdict=Verdict.VALID))
    effects: list[Effect] = []
    for key in OTHERS:
        effects = receive(core, vote(VoteKind.FINALIZE, key, 1, block.hash))
    assert [v.block_hash for v in own_votes(effects, VoteKind.FINALIZE)] == [block.hash]
    kinds = [type(e) for e in effects]
    assert kinds.index(Persist) < kinds.index(Broadcast) < kinds.index(Finalise)


FINAL_9 = CertificateMessage(certificate=certificate(VoteKind.FINALIZE, 1, BLOCK.hash))


def left(core: Core, message: ConsensusMessage = FINAL_9, height: int = 10) -> list[Effect]:
    """Hear that BLOCK is final, then begin `height` on it: what the last step does."""
    effects = receive(core, propose(BLOCK)) + receive(core, message)
    assert any(isinstance(e, Finalise) for e in effects)
    assert own_votes(effects, VoteKind.FINALIZE) == []
    return core.step(20, replace(start(height=height), parent_hash=BLOCK.hash))


def test_whoever_hears_of_the_finalization_before_its_own_verdict_votes_after_the_commit() -> None:
    """Slower than the fastest 2/3, or shown the proposal last: it would be absent at each height,
    and be jailed for that. The commit has found the block valid."""
    core = started()
    effects = left(core)
    persist = effects[0]
    assert isinstance(persist, Persist)
    assert [(r.kind, r.height, r.view, r.block_hash) for r in persist.guard] == [
        (kind, 9, 1, BLOCK.hash) for kind in (StatementKind.NOTARIZE, StatementKind.FINALIZE)
    ]
    assert not persist.certificates
    for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
        assert own_votes(effects, kind) == [vote(kind, FOLLOWER, 1, BLOCK.hash)]
    assert core.finalize_votes(9, {FOLLOWER}) == (vote(VoteKind.FINALIZE, FOLLOWER, 1, BLOCK.hash),)
    assert core.step(21, BlockJudged(block_hash=BLOCK.hash, verdict=Verdict.VALID)) == []


def test_a_vote_after_the_commit_is_of_the_final_certificates_view() -> None:
    """Said elsewhere, it could stand against an own vote, or rest on no certificate at all."""
    core = started()
    core.step(0, Awake())
    core.step(10_000, TimerFired(timer=TimerId.VIEW))
    receive(core, CertificateMessage(certificate=X1), 10_001)
    final = certificate(VoteKind.FINALIZE, 2, BLOCK.hash)
    effects = left(core, CertificateMessage(certificate=final))
    assert [v.view for v in own_votes(effects, VoteKind.FINALIZE)] == [2]


@pytest.mark.parametrize("said", [StatementKind.NOTARIZE, StatementKind.NULLIFY])
def test_nothing_is_voted_after_the_commit_against_an_own_vote_of_that_view(
    said: StatementKind,
) -> None:
    """Nor after a crash, when the guard alone remembers it."""
    block_hash = b"" if said is StatementKind.NULLIFY else b"\x01" * 32
    own = Statement(kind=said, height=9, view=1, block_hash=block_hash)
    core = new_core()
    core.step(0, start(Recovered(guard=(own,))))
    assert not any(isinstance(e, Persist) for e in left(core))


@pytest.mark.parametrize(
    ("key", "floor"), [(None, (0, 0)), (b"\x09" * 32, (0, 0)), (FOLLOWER, (9, 1))]
)
def test_who_may_not_sign_there_votes_for_nothing_after_the_commit(
    key: bytes | None, floor: tuple[int, int]
) -> None:
    assert not any(isinstance(e, Persist) for e in left(started(key, floor)))


def test_heights_that_block_sync_went_through_are_not_voted_for() -> None:
    """Neither when sync passes the height in work, nor when it is what made it final."""
    assert not any(isinstance(e, Persist) for e in left(started(), height=40))
    core = started()
    core.step(10, replace(start(height=10), parent_hash=BLOCK.hash))
    assert not any(isinstance(e, Persist) for e in core.step(20, start(height=11)))


@pytest.mark.parametrize("kind", [VoteKind.NULLIFY, None])
def test_whoever_nullified_or_did_not_notarize_finalizes_nothing_after_the_quorum(
    kind: VoteKind | None,
) -> None:
    core, block = started(), make_block()
    core.step(0, Awake())
    if kind is VoteKind.NULLIFY:
        receive(core, propose(block))
        core.step(11, BlockJudged(block_hash=block.hash, verdict=Verdict.VALID))
        core.step(10_000, TimerFired(timer=TimerId.VIEW))
    effects = receive(
        core, CertificateMessage(certificate=certificate(VoteKind.FINALIZE, 1, block.hash))
    )
    assert own_votes(effects, VoteKind.FINALIZE) == []
