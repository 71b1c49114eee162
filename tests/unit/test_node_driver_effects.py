"""How the driver performs a step's effects: in order, none after a failure, and it stops for good.

The core is a script here, so that each effect can stand where no test of the real core puts it; the
chain, its store and the guard are real.
"""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from consensus import effects as fx
from consensus import inputs
from consensus.fork_proof import ForkProof
from consensus.messages import Propose, Vote
from consensus.statement import Statement, StatementKind
from ledger.certificate import VoteKind
from ledger.errors import InvalidInputError
from node import wire
from tests.unit.chain_fixture import FAUCET, advance, build, certify, key_of, transfer
from tests.unit.driver_world import MESSAGE, SEND, World, assert_stopped, run
from tests.unit.test_accountability import evidence


def test_what_is_to_persist_is_synced_before_anything_is_sent(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        order: list[str] = []
        world.link.on_send = lambda *_: order.append(f"sent; guarded {world.guard.highest()}")
        send = fx.SendTo(peer="a", message=MESSAGE)
        world.perform(fx.Persist(guard=(world.vote(),)), send)
        assert order == ["sent; guarded (1, 1)"]

    run(tmp_path, test)


def test_after_a_failed_store_write_nothing_of_the_step_happens(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        block = build(world.chain)
        world.store.fail_after(0)
        world.perform(fx.Persist(blocks=(block,), guard=(world.vote(),)), SEND)
        assert_stopped(world, "write failed")
        assert world.guard.highest() == (0, 0), "the guard comes after the store"
        assert world.chain.height == 0

    run(tmp_path, test)


def test_after_a_failed_guard_sync_nothing_of_the_step_happens(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        advance(world.chain, [transfer(FAUCET, 0, bytes(32), 1)])
        world.sync_error = OSError(errno.EIO, "input/output error")
        world.perform(fx.Persist(guard=(world.vote(),)), SEND)
        assert_stopped(world, "write failed")
        assert world.chain.view().height == 1, "reads go on"
        assert world.chain.account(bytes(32)).balance == 1

    run(tmp_path, test)


def test_after_a_failed_commit_no_height_starts_and_nobody_is_told(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        block = build(world.chain)
        world.store.fail_after(0)
        world.perform(fx.Finalise(block=block, certificate=certify(block)), SEND)
        assert_stopped(world, "write failed")
        assert not world.commits
        assert world.link.height == 0

    run(tmp_path, test)


def test_a_contradiction_that_the_guard_refuses_stops_the_driver(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        finalize = Statement(kind=StatementKind.FINALIZE, height=1, view=1, block_hash=bytes(32))
        world.perform(fx.Persist(guard=(world.vote(),)))
        world.perform(fx.Persist(guard=(finalize,)), SEND)
        assert not world.link.broadcasts
        assert "guard refused" in (world.driver.stop_reason or "")
        world.perform(SEND)
        assert not world.link.broadcasts

    run(tmp_path, test)


def test_a_bug_in_a_step_costs_that_step(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.core.fails = True
        world.driver.wake()
        world.core.fails = False
        assert world.driver.failures_total == 1
        world.perform(SEND)
        assert len(world.link.broadcasts) == 1

    run(tmp_path, test)


def halt(proof: object | None) -> fx.Halt:
    return fx.Halt(reason="the chain has forked", fork_proof=cast(ForkProof | None, proof))


def test_a_fork_stops_the_driver_also_if_its_proof_can_not_be_saved(tmp_path: Path) -> None:
    """The error was taken for a bug of the step, and the driver said that all was well."""

    async def test(world: World) -> None:
        world.fork_error = OSError(errno.ENOSPC, "no space")
        proof = object()
        world.perform(halt(proof), SEND)
        assert world.forks == [proof]
        assert_stopped(world, "forked")

    run(tmp_path, test)


def test_a_fork_without_a_proof_stops_the_driver(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.perform(halt(None), SEND)
        assert world.forks == []
        assert_stopped(world, "forked")

    run(tmp_path, test)


def test_after_a_fork_certificates_still_go_out_but_nothing_is_signed_or_committed(
    tmp_path: Path,
) -> None:
    """Peers need each other's certificates for proofs that name the guilty."""

    async def test(world: World) -> None:
        first, wider = object(), object()
        world.perform(halt(first), SEND)
        assert len(world.link.broadcasts) == 1
        world.perform(halt(wider))
        assert world.forks == [first, wider]
        world.perform(fx.Persist(guard=(world.vote(),)), SEND)
        assert list(world.guard.records_at(1)) == []
        good = build(world.chain, [transfer(FAUCET, 0, bytes(32), 1)])
        world.perform(fx.Finalise(block=good, certificate=certify(good)), SEND)
        assert world.chain.height == 0
        assert len(world.link.broadcasts) == 1
        assert world.driver.stop_reason == "the chain has forked"
        world.driver.stop("node is stopping")
        world.perform(SEND)
        assert len(world.link.broadcasts) == 1

    run(tmp_path, test)


@pytest.mark.parametrize(("now_ms", "is_trusted"), [(2 * 10**12, False), (0, True)])
def test_a_final_height_is_looked_up_with_the_word_on_the_trusting_period(
    tmp_path: Path, now_ms: int, is_trusted: bool
) -> None:
    async def test(world: World) -> None:
        world.now_ms = now_ms
        good = build(world.chain, [transfer(FAUCET, 0, bytes(32), 1)])
        final = certify(good)
        nullified = replace(final, kind=VoteKind.NULLIFY, block_hash=b"")
        world.chain.store_consensus((), [nullified])
        world.chain.commit(good, final, None)
        world.perform(fx.LookUpFinal(height=1), fx.LookUpFinal(height=2))
        found = [e for e in world.core.steps if isinstance(e, inputs.FinalFound)]
        assert found[1] == inputs.FinalFound(height=2, final=None)
        assert found[0].final is not None
        assert found[0].final.header == good.header
        assert found[0].final.certificate == final
        assert found[0].final.certificates == (nullified,)
        assert found[0].final.is_trusted is is_trusted

    run(tmp_path, test)


def test_a_final_block_that_breaks_our_rules_stops_the_driver(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        good = build(world.chain, [transfer(FAUCET, 0, bytes(32), 1)])
        bad = type(good)(good.header, (), None, (), ())
        world.perform(fx.Finalise(block=bad, certificate=certify(bad)), SEND)
        assert_stopped(world, "breaks our rules")
        assert world.chain.height == 0

    run(tmp_path, test)


def test_evidence_goes_to_the_pool_and_false_evidence_is_the_senders_fault(
    tmp_path: Path,
) -> None:
    async def test(world: World) -> None:
        tag = bytes([wire.TAG_EVIDENCE])
        world.driver.on_message("a", tag + evidence(height=1).encode())
        assert len(world.evidence) == 1
        world.driver.on_message("a", tag + evidence(height=2**60, key=key_of(3)).encode())
        for data in (b"", evidence(height=1, key=key_of(3)).encode()):
            with pytest.raises(InvalidInputError):
                world.driver.on_message("a", tag + data)
        assert len(world.evidence) == 1

    run(tmp_path, test)


def test_a_height_in_work_is_not_begun_anew(tmp_path: Path) -> None:
    """Each sync that a liar started and that brought nothing began the height anew."""

    async def test(world: World) -> None:
        world.core.height = 0
        world.driver.start_height()
        world.driver.start_height()
        starts = [e for e in world.core.steps if isinstance(e, inputs.StartHeight)]
        assert [e.height for e in starts] == [1]
        advance(world.chain)  # as block sync does
        world.driver.start_height()
        starts = [e for e in world.core.steps if isinstance(e, inputs.StartHeight)]
        assert [e.height for e in starts] == [1, 2]
        assert starts[0].recovered is not None, "at boot"

    run(tmp_path, test)


def test_peers_that_come_up_before_the_start_are_no_error_and_wake_a_new_chain(
    tmp_path: Path,
) -> None:
    """They can, while the p2p process starts: a step failed, and the first block waited 10 s."""

    async def test(world: World) -> None:
        world.core.height = 0
        world.driver.on_peer_up("a")
        world.driver.wake()
        assert not world.core.steps
        assert world.driver.failures_total == 0
        world.driver.start_height()
        kinds = [type(event) for event in world.core.steps]
        assert kinds == [inputs.StartHeight, inputs.Awake]

    run(tmp_path, test)


def test_a_block_that_sync_committed_already_is_not_committed_twice(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        block = build(world.chain)
        certificate = certify(block)
        world.chain.commit(block, certificate)
        world.perform(fx.Finalise(block=block, certificate=certificate))
        assert world.chain.height == 1
        assert not world.commits
        assert world.driver.stop_reason is None

    run(tmp_path, test)


def test_all_hear_of_a_final_height_before_the_guard_is_pruned(tmp_path: Path) -> None:
    """A guard that could not be rewritten hid a height that was final."""

    async def test(world: World) -> None:
        for view in range(1, 4200):  # large enough to be compacted
            world.guard.append([world.vote(view)])
        (tmp_path / "guard.new").mkdir()  # compaction can not write here
        block = build(world.chain)
        world.perform(fx.Finalise(block=block, certificate=certify(block)), SEND)
        assert [commit.height for commit in world.commits] == [1]
        assert world.link.height == 1
        assert_stopped(world, "write failed")

    run(tmp_path, test)


def test_timers_are_replaced_cancelled_and_silent_after_a_stop(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        timer = inputs.TimerId.VIEW
        fired = inputs.TimerFired(timer=timer)
        world.perform(fx.SetTimer(timer=timer, delay_ms=100))
        world.perform(fx.SetTimer(timer=timer, delay_ms=300))
        await asyncio.sleep(0.2)
        assert fired not in world.core.steps
        await asyncio.sleep(0.2)
        assert world.core.steps.count(fired) == 1
        world.perform(fx.SetTimer(timer=timer, delay_ms=100), fx.CancelTimer(timer=timer))
        world.perform(fx.SetTimer(timer=inputs.TimerId.RETRY, delay_ms=200))
        world.driver.stop("enough")
        await asyncio.sleep(1)
        assert world.core.steps.count(fired) == 1
        assert inputs.TimerFired(timer=inputs.TimerId.RETRY) not in world.core.steps

    run(tmp_path, test)


def test_blocks_are_judged_and_the_core_told(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        tx = transfer(FAUCET, 0, bytes(32), 1)
        block = build(world.chain, [tx])
        forged = type(block)(block.header, (tx.encoded[:-1] + b"?",), None, (), ())
        verdicts = []
        for one, fresh in [(block, False), (block, True), (forged, False)]:
            world.perform(fx.JudgeBlock(block=one, fresh=fresh))
            await asyncio.sleep(0.01)
            told = world.core.steps[-1]
            assert isinstance(told, inputs.BlockJudged)
            assert told.block_hash == one.hash
            verdicts.append(told.verdict)
        # wall_ms is 0 here, so a fresh block is early.
        valid, early, invalid = inputs.Verdict.VALID, inputs.Verdict.EARLY, inputs.Verdict.INVALID
        assert verdicts == [valid, early, invalid]

    run(tmp_path, test)


def test_offences_and_the_need_to_sync_are_passed_on(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.perform(fx.BadPeer(peer="x", reason="r"), fx.NeedSync(peer="y", height=9))
        assert world.offences == [("x", "r")]
        assert world.syncs == [("y", 9)]

    run(tmp_path, test)


def test_a_bug_in_a_commit_stops_the_driver_with_a_reason(tmp_path: Path) -> None:
    """The core took the height for finished, and "voting: yes" stood there for ever."""

    async def test(world: World) -> None:
        world.chain_bug = RuntimeError("a bug")
        block = build(world.chain)
        world.perform(fx.Finalise(block=block, certificate=certify(block)), SEND)
        assert_stopped(world, "Finalise failed")
        assert world.driver.failures_total == 1
        assert not world.commits

    run(tmp_path, test)


def test_a_bug_while_persisting_stops_the_driver_before_anything_leaves(tmp_path: Path) -> None:
    """A retry would have sent the vote that no guard holds."""

    async def test(world: World) -> None:
        world.chain_bug = RuntimeError("a bug")
        block = build(world.chain)
        world.perform(fx.Persist(blocks=(block,), guard=(world.vote(),)), SEND)
        assert_stopped(world, "Persist failed")
        assert world.guard.highest() == (0, 0)

    run(tmp_path, test)


def test_a_bug_of_who_is_told_of_a_final_height_does_not_end_the_chain(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.commit_bug = RuntimeError("a bug")
        block = build(world.chain)
        world.perform(fx.Finalise(block=block, certificate=certify(block)), SEND)
        assert world.driver.failures_total == 1
        starts = [e for e in world.core.steps if isinstance(e, inputs.StartHeight)]
        assert [e.height for e in starts] == [2]
        assert len(world.link.broadcasts) == 1

    run(tmp_path, test)


def test_an_effect_that_fails_costs_no_timer_after_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError("a bug")

        world.link.on_send = fails
        timer = inputs.TimerId.RETRY
        world.perform(
            fx.SendTo(peer="a", message=MESSAGE), fx.SetTimer(timer=timer, delay_ms=100), SEND
        )
        assert len(world.link.broadcasts) == 1
        await asyncio.sleep(0.2)
        assert inputs.TimerFired(timer=timer) in world.core.steps

    run(tmp_path, test)


def test_a_timer_step_that_fails_builds_the_height_anew_from_its_records(tmp_path: Path) -> None:
    """The timer was gone: no retry, no view change, for ever."""

    async def test(world: World) -> None:
        world.perform(fx.Persist(guard=(world.vote(),)))
        world.perform(fx.SetTimer(timer=inputs.TimerId.RETRY, delay_ms=100))
        world.core.answers[inputs.StartHeight] = [[SEND]]
        world.core.fails_on = inputs.TimerFired
        await asyncio.sleep(0.2)
        [start] = [e for e in world.core.steps if isinstance(e, inputs.StartHeight)]
        assert start.height == 1
        assert start.recovered is not None
        assert start.recovered.guard == (world.vote(),)
        assert len(world.link.broadcasts) == 1
        assert world.driver.stop_reason is None

    run(tmp_path, test)


def test_a_height_that_can_not_be_built_anew_stops_the_driver(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.perform(fx.SetTimer(timer=inputs.TimerId.VIEW, delay_ms=100))
        world.core.fails_on = inputs.Input
        await asyncio.sleep(0.2)
        world.core.fails_on = None
        assert_stopped(world, "can not be started")

    run(tmp_path, test)


@pytest.mark.parametrize("height", [1, 2])
def test_votes_of_those_who_have_none_are_offences(tmp_path: Path, height: int) -> None:
    async def test(world: World) -> None:
        vote = Vote(
            kind=VoteKind.NULLIFY,
            height=height,
            view=1,
            block_hash=b"",
            signer=FAUCET.public_key,
            signature=bytes(64),
        )
        before = len(world.core.steps)
        with pytest.raises(InvalidInputError, match="no validator"):
            world.driver.on_message("a", bytes([wire.TAG_CONSENSUS]) + vote.encode())
        block = build(world.chain)
        propose = Propose(
            height=height,
            view=1,
            block=replace(block, header=replace(block.header, height=height)),
            justify=(),
            signer=FAUCET.public_key,
            signature=bytes(64),
        )
        for payload in (
            bytes([wire.TAG_CONSENSUS]) + propose.encode(),
            wire.CompactProposal.of(propose, lambda _: True).encode(),
        ):
            with pytest.raises(InvalidInputError, match="no validator"):
                world.driver.on_message("a", payload)
        assert len(world.core.steps) == before
        late = replace(vote, height=7)
        world.driver.on_message("a", bytes([wire.TAG_CONSENSUS]) + late.encode())
        assert len(world.core.steps) == before + 1, "that set is not known here"

    run(tmp_path, test)
