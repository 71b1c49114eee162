"""After a height is final: late votes are kept, late contradictions and forks are noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consensus.effects import BadPeer, Effect, FoundEvidence, Halt, LookUpFinal, RefusedFork
from consensus.evidence import Evidence, verify_evidence
from consensus.finals import FINALS_KEPT_MAX, LATE_VIEWS_MAX
from consensus.fork_proof import verify_fork_proof
from consensus.inputs import FinalFound, PeerUp, Received, StoredFinal
from consensus.messages import CertificateMessage, Final, Propose, Status, Vote
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from tests.sim.crypto import is_valid
from tests.unit.consensus_fixture import (
    CHAIN,
    FIRST_HEIGHT,
    KEYS,
    SET,
    certify,
    chain_of,
    finalize,
    make_block,
    new_core,
    propose,
    receive,
    receive_certificate,
    run_chain,
    start,
    vote,
)

LATE = KEYS[3]
NOTARIZE, NULLIFY, FINALIZE = VoteKind.NOTARIZE, VoteKind.NULLIFY, VoteKind.FINALIZE


def evidence_in(effects: Sequence[Effect]) -> list[Evidence]:
    found = [e.evidence for e in effects if isinstance(e, FoundEvidence)]
    for evidence in found:
        verify_evidence(evidence, CHAIN, is_valid)
        assert Evidence.decode(evidence.encode()) == evidence
    return found


def halts_in(effects: Sequence[Effect]) -> list[Halt]:
    return [e for e in effects if isinstance(e, Halt)]


def stored(
    block: Block, certificates: tuple[Certificate, ...] = (), *, is_trusted: bool = True
) -> FinalFound:
    return FinalFound(
        height=block.height,
        final=StoredFinal(
            header=block.header,
            certificate=finalize(block),
            validators=SET,
            certificates=certificates,
            is_trusted=is_trusted,
        ),
    )


# --- late votes ---


def test_a_late_finalize_vote_widens_the_parents_certificate() -> None:
    core, blocks = new_core(), chain_of(1)
    assert core.parent_certificate() is None
    run_chain(core, blocks)
    assert core.parent_certificate() == finalize(blocks[0])
    receive(core, vote(FINALIZE, LATE, blocks[0].hash))
    assert core.parent_certificate() == finalize(blocks[0], keys=KEYS)


def test_late_votes_arrive_before_the_next_height_starts_and_inside_certificates() -> None:
    core, block = new_core(), make_block()
    start(core)
    receive(core, Final(block=block, certificate=finalize(block)))
    receive_certificate(core, finalize(block, keys=(KEYS[0], KEYS[1], LATE)))
    start(core, FIRST_HEIGHT + 1, block, finalize(block))
    assert core.parent_certificate() == finalize(block, keys=KEYS)


def test_the_parents_certificate_is_of_the_view_with_the_most_power() -> None:
    core, block = new_core(), make_block()
    run_chain(core, [block])
    receive_certificate(core, finalize(block, keys=KEYS, view=3))
    assert core.parent_certificate() == finalize(block, keys=KEYS, view=3)


def test_a_late_vote_with_a_bad_signature_is_refused_and_its_sender_blamed() -> None:
    core, blocks = new_core(), chain_of(1)
    run_chain(core, blocks)
    forged = replace(vote(FINALIZE, LATE, blocks[0].hash), signature=bytes(64))
    assert [type(e) for e in receive(core, forged)] == [BadPeer]
    assert core.finalize_votes(FIRST_HEIGHT, KEYS) == core.finalize_votes(FIRST_HEIGHT, KEYS[:3])


def test_late_votes_for_a_body_are_those_asked_for_of_the_last_heights() -> None:
    core, blocks = new_core(), chain_of(FINALS_KEPT_MAX + 2)
    run_chain(core, blocks)
    tip = blocks[-1].height
    for block in blocks:
        receive(core, vote(FINALIZE, LATE, block.hash, height=block.height))
    kept = [b for b in blocks if core.finalize_votes(b.height, [LATE])]
    assert [b.height for b in kept] == list(range(tip - FINALS_KEPT_MAX + 1, tip + 1))
    votes = core.finalize_votes(tip - 2, [LATE, KEYS[0]])
    assert [(v.height, v.signer) for v in votes] == [(tip - 2, KEYS[0]), (tip - 2, LATE)]
    assert all(v.kind is FINALIZE for v in votes)
    assert core.finalize_votes(tip - 2, []) == core.finalize_votes(tip - 40, [LATE]) == ()


def test_votes_for_another_block_or_of_strangers_are_no_late_votes() -> None:
    core, blocks = new_core(), chain_of(1)
    run_chain(core, blocks)
    receive(core, vote(FINALIZE, LATE, make_block(salt=b"other").hash))
    receive(core, vote(FINALIZE, b"\x99" * 32, blocks[0].hash))
    receive(core, vote(FINALIZE, LATE, blocks[0].hash, view=2 + LATE_VIEWS_MAX))
    assert core.finalize_votes(FIRST_HEIGHT, [*KEYS, b"\x99" * 32]) == core.finalize_votes(
        FIRST_HEIGHT, KEYS[:3]
    )


def test_after_a_restart_a_recent_height_is_looked_up_for_a_late_vote() -> None:
    core, blocks = new_core(), chain_of(2)
    start(core, FIRST_HEIGHT + 2, blocks[1], finalize(blocks[1]))
    late = vote(FINALIZE, LATE, blocks[0].hash)
    assert receive(core, late) == [LookUpFinal(height=FIRST_HEIGHT)]
    assert receive(core, late) == []
    core.step(core.height * 1000, stored(blocks[0]))
    assert [v.signer for v in core.finalize_votes(FIRST_HEIGHT, KEYS)] == KEYS
    assert core.parent_certificate() == finalize(blocks[1])


def test_what_waits_for_a_look_up_holds_no_blocks() -> None:
    core, blocks = new_core(), chain_of(2)
    start(core, FIRST_HEIGHT + 2, blocks[1], finalize(blocks[1]))
    assert receive(core, propose(blocks[0], LATE)) == []
    widest = finalize(blocks[0], keys=KEYS)
    assert receive(core, Final(block=blocks[0], certificate=widest)) == [
        LookUpFinal(height=FIRST_HEIGHT)
    ]
    core.step(core.height * 1000, stored(blocks[0]))
    assert [v.signer for v in core.finalize_votes(FIRST_HEIGHT, KEYS)] == KEYS


def test_an_old_height_is_not_looked_up_for_votes() -> None:
    core, blocks = new_core(), chain_of(1)
    start(core, FIRST_HEIGHT + FINALS_KEPT_MAX + 1, blocks[0], None)
    assert receive(core, vote(FINALIZE, LATE, blocks[0].hash)) == []


# --- evidence ---

A, B = make_block(salt=b"a"), make_block(salt=b"b")
PAIRS: dict[str, tuple[Vote | Propose, Vote | Propose]] = {
    "N/N'": (vote(NOTARIZE, LATE, A.hash), vote(NOTARIZE, LATE, B.hash)),
    "F/F'": (vote(FINALIZE, LATE, A.hash), vote(FINALIZE, LATE, B.hash)),
    "F/X": (vote(FINALIZE, LATE, A.hash), vote(NULLIFY, LATE)),
    "F/N'": (vote(FINALIZE, LATE, A.hash), vote(NOTARIZE, LATE, B.hash)),
    "P/P'": (propose(A, LATE), propose(B, LATE)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("is_second_late", [True, False])
def test_a_contradiction_that_is_complete_after_the_height_is_final_is_evidence_once(
    pair: str, is_second_late: bool
) -> None:
    first, second = PAIRS[pair]
    core = new_core()
    start(core)
    if not isinstance(first, Propose):
        receive(core, first)
    receive(core, Final(block=A, certificate=finalize(A)))
    if not is_second_late:  # before the next height starts
        receive(core, first)
        found = evidence_in(receive(core, second))
    start(core, FIRST_HEIGHT + 1, A, finalize(A))
    if is_second_late:
        receive(core, first)
        found = evidence_in(receive(core, second))
    assert [e.signer for e in found] == [LATE]
    assert evidence_in([*receive(core, first), *receive(core, second)]) == []


@pytest.mark.parametrize("pair", [p for p in PAIRS if p != "P/P'"])
def test_a_contradiction_inside_certificates_is_evidence_live_and_late(pair: str) -> None:
    first, second = (
        certify(v.kind, v.block_hash, keys=(KEYS[0], KEYS[1], LATE))
        for v in PAIRS[pair]
        if isinstance(v, Vote)
    )
    live = new_core()
    start(live)
    effects = [*receive_certificate(live, first), *receive_certificate(live, second)]
    if FINALIZE in (first.kind, second.kind) and pair != "F/F'":
        assert {e.signer for e in evidence_in(effects)} == {KEYS[0], KEYS[1], LATE}
    late = new_core()
    run_chain(late, [A])
    effects = [*receive_certificate(late, first), *receive_certificate(late, second)]
    assert {e.signer for e in evidence_in(effects)} == {KEYS[0], KEYS[1], LATE}


def test_a_certificate_that_is_held_already_may_show_another_signer_who_lied() -> None:
    core = new_core()
    start(core)
    receive_certificate(core, certify(NULLIFY, keys=KEYS[:3]))
    receive(core, vote(FINALIZE, LATE, A.hash))
    found = evidence_in(receive_certificate(core, certify(NULLIFY, keys=KEYS[1:])))
    assert [e.signer for e in found] == [LATE]
    forged = replace(
        certify(NULLIFY, keys=KEYS), signatures=(*certify(NULLIFY).signatures, bytes(64))
    )
    assert receive_certificate(core, forged) == []  # each signer is known: nothing to look at


def test_a_certificate_inside_a_late_justify_is_evidence() -> None:
    core = new_core()
    run_chain(core, [A])
    receive(core, vote(FINALIZE, LATE, A.hash))
    justify = (certify(NULLIFY, keys=(LATE, KEYS[0], KEYS[1])),)
    block = make_block(view=2, salt=b"c")
    found = evidence_in(receive(core, propose(block, KEYS[0], view=2, justify=justify)))
    assert {e.signer for e in found} == {LATE, KEYS[0], KEYS[1]}
    stranger = propose(block, b"\x99" * 32, view=2, justify=(certify(NULLIFY, view=3),))
    assert receive(core, stranger) == []


def test_evidence_is_found_in_stored_certificates_after_a_restart() -> None:
    core, block = new_core(), make_block(FIRST_HEIGHT + 1, A)
    start(core, FIRST_HEIGHT + 2, block, finalize(block))
    nullified = certify(NULLIFY, keys=(LATE, KEYS[0], KEYS[1]))
    receive(core, vote(FINALIZE, LATE, A.hash))
    found = evidence_in(core.step(20_000, stored(A, (nullified,))))
    assert LATE in {e.signer for e in found}


# --- forks ---


def forked(core_block: Block, certificates: Sequence[Certificate]) -> tuple[list[Halt], Halt]:
    """Finalise a block, start the next height, and receive certificates of the one before."""
    core = new_core()
    run_chain(core, [core_block])
    effects: list[Effect] = []
    for certificate in certificates:
        for effect in receive_certificate(core, certificate):
            effects.append(effect)
            if isinstance(effect, LookUpFinal):
                effects += core.step(core.height * 1000, stored(core_block))
    halts = halts_in(effects)
    assert halts
    return halts, halts[-1]


def test_a_second_finalization_in_the_same_view_halts_with_a_proof_that_names_both_quorums() -> (
    None
):
    _, halt = forked(A, [finalize(B, keys=KEYS[1:])])
    assert halt.fork_proof is not None
    culprits = verify_fork_proof(halt.fork_proof, SET, CHAIN, is_valid)
    assert set(culprits) == {KEYS[1], KEYS[2]}


def test_a_fork_across_views_names_the_guilty_once_the_other_sides_certificates_are_here() -> None:
    """The first proof shows the fork; who made it is in a nullification that only the other side
    has, and that comes after the halt."""
    core = new_core()
    run_chain(core, [A])
    later = finalize(B, keys=KEYS[1:], view=2)
    effects = receive_certificate(core, later)
    assert effects == [LookUpFinal(height=FIRST_HEIGHT)]
    halts = halts_in(core.step(20_000, stored(A)))
    assert len(halts) == 1
    assert halts[0].fork_proof is not None
    assert halts[0].fork_proof.between == ()
    [wider] = halts_in(receive_certificate(core, certify(NULLIFY, keys=KEYS[1:])))
    assert wider.fork_proof is not None
    culprits = verify_fork_proof(wider.fork_proof, SET, CHAIN, is_valid)
    assert set(culprits) == {KEYS[1], KEYS[2]}
    assert receive_certificate(core, certify(NULLIFY, keys=KEYS[1:])) == []
    assert receive(core, vote(FINALIZE, LATE, A.hash)) == []


def test_a_halted_node_gives_its_certificates_to_whoever_asks() -> None:
    core = new_core()
    run_chain(core, [A])
    receive_certificate(core, finalize(B, keys=KEYS[1:]))
    halted = core.step(20_000, stored(A))
    shown = {CertificateMessage(certificate=c) for c in (finalize(A), finalize(B, keys=KEYS[1:]))}
    assert {e.message for e in halted if not isinstance(e, Halt | FoundEvidence)} == shown  # type: ignore[union-attr]  # the rest are Broadcasts
    for event in (PeerUp(peer="q"), Received(peer="r", message=Status(height=1, view=1, need=()))):
        answer = core.step(30_000, event)
        assert {e.message for e in answer} == shown  # type: ignore[union-attr]  # all are SendTo
    assert core.step(30_000, PeerUp(peer="q")) == []
    assert start(core, FIRST_HEIGHT + 1, A) == []


def test_finalize_votes_for_another_block_make_a_fork_without_any_certificate() -> None:
    core = new_core()
    run_chain(core, [A])
    effects: list[Effect] = []
    for key in KEYS[1:]:
        effects += receive(core, vote(FINALIZE, key, B.hash))
    assert LookUpFinal(height=FIRST_HEIGHT) in effects
    [halt] = halts_in(core.step(20_000, stored(A)))
    assert halt.fork_proof is not None
    verify_fork_proof(halt.fork_proof, SET, CHAIN, is_valid)


def test_after_a_restart_an_old_second_finalization_is_judged_by_the_trusting_period() -> None:
    height = FIRST_HEIGHT + 100
    for is_trusted, kind in ((True, Halt), (False, RefusedFork)):
        core = new_core()
        start(core, height, make_block(height - 1))
        second = finalize(B, keys=KEYS[1:])
        assert receive_certificate(core, second) == [LookUpFinal(height=FIRST_HEIGHT)]
        effects = core.step(10**6, stored(A, is_trusted=is_trusted))
        assert [type(e) for e in effects if isinstance(e, Halt | RefusedFork)] == [kind]
        status = core.status()
        assert status is not None
        assert status.is_halted is is_trusted


def test_a_false_second_finalization_blames_its_sender_and_halts_nothing() -> None:
    for forged in (
        finalize(B, keys=KEYS[:2]),
        replace(finalize(B), signatures=finalize(A).signatures),
    ):
        core = new_core()
        run_chain(core, [A])
        assert [type(e) for e in receive_certificate(core, forged)] == [BadPeer]
        core = new_core()
        start(core, FIRST_HEIGHT + 50, make_block(FIRST_HEIGHT + 49))
        receive_certificate(core, forged)
        assert [type(e) for e in core.step(10**6, stored(A))] == [BadPeer]


def test_a_height_that_the_store_lacks_halts_nothing() -> None:
    core = new_core()
    start(core, FIRST_HEIGHT + 50, make_block(FIRST_HEIGHT + 49))
    receive_certificate(core, finalize(B))
    assert core.step(10**6, FinalFound(height=FIRST_HEIGHT, final=None)) == []


def test_a_proposal_on_another_parent_shows_that_this_parent_is_final_too() -> None:
    core = new_core()
    run_chain(core, [A])
    child = make_block(FIRST_HEIGHT + 1, B, parent_certificate=finalize(B, keys=KEYS[1:]))
    assert LookUpFinal(height=FIRST_HEIGHT) in receive(core, propose(child, KEYS[0]))
    assert halts_in(core.step(20_000, stored(A)))


@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_final_child_of_another_parent_halts_with_the_fork_of_the_parents(
    is_remembered: bool,
) -> None:
    core = new_core()
    if is_remembered:
        run_chain(core, [A])
    else:
        start(core, FIRST_HEIGHT + 1, A, finalize(A))
    child = make_block(FIRST_HEIGHT + 1, B, parent_certificate=finalize(B, keys=KEYS[1:]))
    effects = receive(core, Final(block=child, certificate=finalize(child)))
    assert LookUpFinal(height=FIRST_HEIGHT) in effects
    [halt] = halts_in(core.step(20_000, stored(A)))
    assert halt.fork_proof is not None
    assert halt.fork_proof.height == FIRST_HEIGHT
    assert set(verify_fork_proof(halt.fork_proof, SET, CHAIN, is_valid)) == set(KEYS[1:3])


@pytest.mark.parametrize("certificate", [None, finalize(B, keys=KEYS[:2]), finalize(A)])
def test_a_final_child_of_an_unproven_parent_halts_without_a_proof(
    certificate: Certificate | None,
) -> None:
    core = new_core()
    run_chain(core, [A])
    child = make_block(FIRST_HEIGHT + 1, B, parent_certificate=certificate)
    effects = receive(core, Final(block=child, certificate=finalize(child)))
    if not halts_in(effects):
        effects = core.step(20_000, stored(A))
    [halt] = halts_in(effects)
    assert halt.fork_proof is None
    assert core.step(30_000, PeerUp(peer="q")) == []


def test_two_finalizations_of_the_height_in_work_halt_before_either_is_committed() -> None:
    core = new_core()
    start(core)
    receive_certificate(core, finalize(A))
    receive_certificate(core, finalize(B, keys=KEYS[1:]))
    [halt] = halts_in(receive(core, Final(block=A, certificate=finalize(A))))
    assert halt.fork_proof is not None
    assert halt.fork_proof.header == A.header
    assert set(verify_fork_proof(halt.fork_proof, SET, CHAIN, is_valid)) == set(KEYS[1:3])
