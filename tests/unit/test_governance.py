"""Proposals and votes: what fails and leaves nothing, what counts, what becomes of a proposal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ledger import codec
from ledger.accounts import Account, account_key, read_account
from ledger.block import PROTOCOL_VERSION
from ledger.errors import InvalidInputError
from ledger.execution import TxFailure
from ledger.genesis_state import SUPPLY_KEY
from ledger.governance import ProposeHandler, VoteHandler
from ledger.governance_proposal import (
    CancelChange,
    Choice,
    ParamsChange,
    ProposeBody,
    Status,
    UpgradeChange,
    VoteBody,
)
from ledger.governance_rows import (
    OPEN_MAX,
    VOTE_PREFIX,
    find_choice,
    list_proposals,
    read_slots,
)
from ledger.params import read_params
from ledger.pools import read_amount
from ledger.staking_record import POWER_UNIT
from ledger.upgrade import (
    NOTICE_HEIGHTS_MIN,
    Upgrade,
    UpgradeState,
    read_upgrade_state,
    write_upgrade_state,
)
from tests.unit.governance_world import BALANCE, CHEAPER, PARAMS, World

YES, NO, ABSTAIN = Choice.YES, Choice.NO, Choice.ABSTAIN
NEXT = UpgradeChange(upgrade=Upgrade(height=100, version=PROTOCOL_VERSION + 1, info="zynk 2.0"))


def params_change(**values: int) -> ParamsChange:
    return ParamsChange(values=tuple(values.items()))


def open_one(world: World) -> None:
    assert world.propose() == ""


def fill(world: World) -> None:
    for _ in range(OPEN_MAX):
        assert world.propose() == ""


def nothing(_: World) -> None: ...


def tombstone(world: World) -> None:
    open_one(world)
    world.delegate(8, 1, 5 * POWER_UNIT)
    world.slash(1, 50_000, tombstone=True)


def pass_time(world: World) -> None:
    open_one(world)
    world.context.time_ms += PARAMS.gov_voting_ms


def close_first(world: World) -> None:
    open_one(world)
    world.finish()


def make_poor(world: World) -> None:
    """All but 999 uzynk of account 9 go to account 8."""
    for number, balance in ((9, 999), (8, 2 * BALANCE - 999)):
        world.state.put(account_key(world.accounts[number]), Account(balance, 0).encode())
    world.state.keep()


def upgrade_at(height: int, version: int = PROTOCOL_VERSION + 1) -> UpgradeChange:
    return UpgradeChange(upgrade=Upgrade(height=height, version=version))


def leave(world: World) -> None:
    open_one(world)
    world.delegate(8, 1, 5 * POWER_UNIT)
    world.undelegate(8, 1, world.shares(1, 8))


FAILURES: dict[str, tuple[str, Callable[[World], None], Callable[[World], str]]] = {
    "sixteen are open": ("gov/too-many", fill, lambda w: w.propose()),
    "no deposit": ("bank/insufficient-balance", make_poor, lambda w: w.propose()),
    "cross-field": (
        "gov/bad-params",
        nothing,
        lambda w: w.propose(params_change(unbonding_ms=PARAMS.evidence_window_ms)),
    ),
    "evidence that light clients outlive": (
        "gov/bad-params",
        nothing,
        lambda w: w.propose(params_change(evidence_window_ms=PARAMS.trusting_period_ms - 1)),
    ),
    "jail for nearly nothing": (
        "gov/bad-params",
        nothing,
        lambda w: w.propose(params_change(downtime_missed_max=PARAMS.downtime_window // 20 - 1)),
    ),
    "upgrade in the past": ("gov/upgrade-too-near", nothing, lambda w: w.propose(upgrade_at(0))),
    "upgrade too near": (
        "gov/upgrade-too-near",
        nothing,
        lambda w: w.propose(upgrade_at(NOTICE_HEIGHTS_MIN)),
    ),
    "same version": (
        "gov/upgrade-version",
        nothing,
        lambda w: w.propose(upgrade_at(100, PROTOCOL_VERSION)),
    ),
    "older version": ("gov/upgrade-version", nothing, lambda w: w.propose(upgrade_at(100, 1))),
    "nothing to cancel": (
        "gov/not-scheduled",
        nothing,
        lambda w: w.propose(CancelChange(height=100)),
    ),
    "no proposal": ("gov/not-open", nothing, lambda w: w.vote(0, 0, YES)),
    "id 0": ("gov/not-open", open_one, lambda w: w.vote(0, 0, YES, 0)),
    "another proposal": ("gov/not-open", open_one, lambda w: w.vote(0, 0, YES, 2)),
    "the time is over": ("gov/not-open", pass_time, lambda w: w.vote(0, 0, YES)),
    "closed": ("gov/not-open", close_first, lambda w: w.vote(0, 0, YES)),
    "no validator": ("gov/no-validator", open_one, lambda w: w.vote(8, 9, YES)),
    "tombstoned operator": ("gov/tombstoned", tombstone, lambda w: w.vote(1, 1, YES)),
    "with a tombstoned one": ("gov/tombstoned", tombstone, lambda w: w.vote(8, 1, YES)),
    "no delegation": ("gov/no-stake", open_one, lambda w: w.vote(8, 1, YES)),
    "all undelegated": ("gov/no-stake", leave, lambda w: w.vote(8, 1, YES)),
    "another's stake": ("gov/no-stake", open_one, lambda w: w.vote(0, 1, YES)),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failing_message_has_its_code_and_changes_nothing(case: str) -> None:
    code, prepare, act = FAILURES[case]
    world = World()
    prepare(world)
    rows, events = dict(world.state.rows), list(world.context.events)
    assert act(world) == code
    assert (world.state.rows, world.context.events) == (rows, events)
    world.check()


@pytest.mark.parametrize("handler", [ProposeHandler(), VoteHandler()])
def test_a_body_that_skipped_the_check_fails_as_malformed(
    handler: ProposeHandler | VoteHandler,
) -> None:
    world = World()
    with pytest.raises(TxFailure) as caught:
        handler.apply(world.context, b"\x00")
    assert caught.value.code == "gov/malformed"
    with pytest.raises(InvalidInputError):
        handler.check(b"\x00")


MALFORMED: dict[str, codec.Value] = {
    "no title": ["", "s", [0, [["fee_base", 1]]]],
    "long title": ["t" * 141, "s", [0, [["fee_base", 1]]]],
    "control character in the title": ["a\x1b[2J", "s", [0, [["fee_base", 1]]]],
    "line feed in the title": ["a\nb", "s", [0, [["fee_base", 1]]]],
    "control character in the summary": ["t", "a\x9b", [0, [["fee_base", 1]]]],
    "long summary": ["t", "s" * 2001, [0, [["fee_base", 1]]]],
    "no change": ["t", "s", [0, []]],
    "unknown parameter": ["t", "s", [0, [["fee", 1]]]],
    "parameter twice": ["t", "s", [0, [["fee_base", 1], ["fee_base", 1]]]],
    "value of a wrong type": ["t", "s", [0, [["fee_base", "1"]]]],
    "version too high": ["t", "s", [1, [100, 2**16 + 1, ""]]],
    "control character in the info": ["t", "s", [1, [100, PROTOCOL_VERSION + 1, "\x07"]]],
    "unknown kind": ["t", "s", [3, 100]],
    "kind of a wrong type": ["t", "s", [True, [["fee_base", 1]]]],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_proposal_is_inadmissible(case: str) -> None:
    with pytest.raises(InvalidInputError):
        ProposeHandler().check(codec.encode(MALFORMED[case]))


@pytest.mark.parametrize("choice", [0, 4, True, None, "yes"])
def test_a_vote_with_another_choice_is_inadmissible(choice: object) -> None:
    good = VoteBody(proposal_id=1, operator=bytes(32), choice=YES).encode()
    VoteHandler().check(good)
    with pytest.raises(InvalidInputError):
        VoteHandler().check(codec.encode([1, bytes(32), choice]))  # type: ignore[list-item]


def test_the_largest_proposal_fits_its_bounds() -> None:
    upgrade = Upgrade(height=codec.U64_MAX, version=2**16, info="\U0001f331" * 500)
    body = ProposeBody(
        title="\U0001f331" * 140, summary="\U0001f331" * 2000, change=UpgradeChange(upgrade=upgrade)
    )
    assert ProposeBody.decode(body.encode()) == body
    world = World()
    assert world.send(world.accounts[9], "gov/propose", body.encode()) == ""
    assert world.proposal().body == body


# --- what becomes of it ---


def test_an_accepted_change_counts_from_the_next_block_and_gives_the_deposit_back() -> None:
    world = World()
    proposer = world.accounts[9]
    assert world.propose(params_change(fee_base=50, gov_deposit=2_000_000)) == ""
    assert read_account(world.state, proposer).balance == BALANCE - 1000
    for operator in (0, 1):
        assert world.vote(operator, operator, YES) == ""
    world.end_block(after_ms=PARAMS.gov_voting_ms - 1)
    world.end_block(after_ms=1)
    assert world.proposal().status is Status.OPEN, "one millisecond is left"
    assert world.context.params.fee_base == 100
    events = world.end_block()
    assert world.context.params.fee_base == 50
    assert read_account(world.state, proposer).balance == BALANCE
    assert world.told == 1
    closed = world.proposal()
    assert (closed.status, closed.code) == (Status.PASSED, "")
    assert closed.tally == (70 * POWER_UNIT, 0, 0, 91 * POWER_UNIT)
    assert [e.type for e in events] == ["gov.closed"]
    assert ("status", "passed") in events[0].attributes
    assert world.propose() == ""
    assert world.proposal(2).deposit == 2_000_000, "the new deposit"


@pytest.mark.parametrize(
    ("votes", "status"),
    [
        ((YES, None, None, None), Status.PASSED),  # 40 of 91 is 43.9 %
        ((None, YES, None, None), Status.NO_QUORUM),  # 30 of 91 is 33.0 %
        ((None, ABSTAIN, ABSTAIN, None), Status.REJECTED),  # a quorum, and nobody for it
        ((None, ABSTAIN, ABSTAIN, YES), Status.PASSED),  # 1 of 1
        ((NO, YES, YES, None), Status.PASSED),  # 50 of 90
        ((NO, YES, None, None), Status.REJECTED),
        ((None, None, None, None), Status.NO_QUORUM),
    ],
)
def test_quorum_and_threshold(votes: tuple[Choice | None, ...], status: Status) -> None:
    world = World()
    supply = read_amount(world.state, SUPPLY_KEY)
    open_one(world)
    for operator, choice in enumerate(votes):
        if choice is not None:
            assert world.vote(operator, operator, choice) == ""
    assert world.finish().status is status
    burned = 1000 if status is Status.NO_QUORUM else 0
    assert supply - read_amount(world.state, SUPPLY_KEY) == burned
    assert read_account(world.state, world.accounts[9]).balance == BALANCE - burned


def test_exactly_the_quorum_is_enough_and_exactly_the_threshold_is_not() -> None:
    params = replace(PARAMS, gov_quorum_ppm=400_000, gov_threshold_ppm=500_000)
    for extra, status in ((0, Status.REJECTED), (1, Status.PASSED)):
        world = World((2 * POWER_UNIT + extra, 2 * POWER_UNIT, 6 * POWER_UNIT), params=params)
        open_one(world)
        world.vote(0, 0, YES)
        world.vote(1, 1, NO)
        assert world.finish().status is status
    world = World((4 * POWER_UNIT - 1, 6 * POWER_UNIT + 1), params=params)
    open_one(world)
    world.vote(0, 0, YES)
    assert world.finish().status is Status.NO_QUORUM


def test_what_no_longer_fits_when_accepted_fails_with_its_code_and_keeps_the_deposit() -> None:
    world = World()
    narrow = params_change(unbonding_ms=PARAMS.evidence_window_ms + 1)
    assert world.propose(narrow) == ""
    assert world.propose(params_change(evidence_window_ms=PARAMS.evidence_window_ms + 1)) == ""
    for proposal in (1, 2):
        world.vote(0, 0, YES, proposal)
    world.finish()
    assert world.proposal(1).status is Status.PASSED
    assert (world.proposal(2).status, world.proposal(2).code) == (Status.FAILED, "gov/bad-params")
    assert read_params(world.state).evidence_window_ms == PARAMS.evidence_window_ms
    assert read_account(world.state, world.accounts[9]).balance == BALANCE


def test_an_upgrade_that_was_voted_on_too_long_fails() -> None:
    world = World()
    assert world.propose(upgrade_at(NOTICE_HEIGHTS_MIN + 1)) == ""
    world.vote(0, 0, YES)
    assert world.finish().code == "gov/upgrade-too-near"


# --- whose vote counts ---


def test_a_delegator_overrides_its_validator_for_its_own_stake_alone() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    world.delegate(7, 0, 5 * POWER_UNIT)
    open_one(world)
    assert world.vote(8, 0, NO) == ""
    tally = next(list_proposals(world.state)).tally
    assert tally[:3] == (0, 10 * POWER_UNIT, 0), "without its validator's vote too"
    assert world.vote(0, 0, YES) == ""
    tally = next(list_proposals(world.state)).tally
    assert tally[:3] == (45 * POWER_UNIT, 10 * POWER_UNIT, 0)


def test_a_later_vote_replaces_the_one_before() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    for choice in (NO, ABSTAIN, YES, NO):
        assert world.vote(8, 0, choice) == ""
        assert world.vote(0, 0, choice) == ""
        assert find_choice(world.state, 1, world.accounts[0], world.accounts[8]) is choice
        assert find_choice(world.state, 1, world.accounts[0], world.accounts[0]) is choice
        world.check()
    world.delegate(8, 0, POWER_UNIT)
    assert world.vote(8, 0, YES) == ""
    assert next(list_proposals(world.state)).tally[:3] == (11 * POWER_UNIT, 40 * POWER_UNIT, 0)


def test_stake_that_leaves_takes_its_vote_along_and_new_stake_is_its_validators() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    assert world.vote(8, 0, NO) == ""
    world.delegate(8, 0, 3 * POWER_UNIT)
    world.vote(0, 0, YES)
    assert next(list_proposals(world.state)).tally[:3] == (43 * POWER_UNIT, 10 * POWER_UNIT, 0)
    world.undelegate(8, 0, 3 * POWER_UNIT)
    assert next(list_proposals(world.state)).tally[:3] == (40 * POWER_UNIT, 10 * POWER_UNIT, 0)
    world.undelegate(8, 0, 4 * POWER_UNIT)
    assert next(list_proposals(world.state)).tally[:3] == (40 * POWER_UNIT, 6 * POWER_UNIT, 0)
    world.undelegate(8, 0, 6 * POWER_UNIT)
    assert next(list_proposals(world.state)).tally[:3] == (40 * POWER_UNIT, 0, 0)
    assert not list(world.state.iterate(VOTE_PREFIX))
    world.check()


def test_tokens_count_as_they_are_when_the_vote_ends() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    world.vote(8, 0, NO)
    world.vote(0, 0, YES)
    world.slash(0, 100_000)
    assert world.finish().tally[:3] == (36 * POWER_UNIT, 9 * POWER_UNIT, 0)


@pytest.mark.parametrize("fate", ["jailed", "tombstoned"])
def test_stake_with_a_validator_that_is_no_candidate_does_not_count(fate: str) -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    world.vote(0, 0, YES)
    world.vote(8, 0, NO)
    world.vote(1, 1, ABSTAIN)
    if fate == "jailed":
        world.jail(0, 1)
    else:
        world.slash(0, 0, tombstone=True)
    assert next(list_proposals(world.state)).tally[:3] == (0, 0, 30 * POWER_UNIT)
    if fate == "jailed":
        assert world.vote(0, 0, NO) == "", "it may be free again in time"
        world.jail(0, 0)
        assert world.finish().tally[:3] == (0, 50 * POWER_UNIT, 30 * POWER_UNIT)


def test_a_slot_is_used_again_and_its_old_votes_do_not_count() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    world.vote(0, 0, YES)
    world.vote(8, 0, NO)
    assert world.finish().status is Status.PASSED
    open_one(world)
    assert read_slots(world.state).find(2) == 0
    newest = next(list_proposals(world.state))
    assert (newest.id, newest.tally[:3]) == (2, (0, 0, 0))
    assert find_choice(world.state, 2, world.accounts[0], world.accounts[8]) is None
    assert find_choice(world.state, 1, world.accounts[0], world.accounts[8]) is None
    assert world.vote(8, 0, YES, 2) == ""
    assert next(list_proposals(world.state)).tally[:3] == (10 * POWER_UNIT, 0, 0)
    world.check()


def test_an_old_vote_goes_when_its_stake_moves() -> None:
    world = World()
    world.delegate(8, 0, 10 * POWER_UNIT)
    open_one(world)
    world.vote(8, 0, NO)
    world.finish()
    world.undelegate(8, 0, 1)
    assert not list(world.state.iterate(VOTE_PREFIX))


# --- upgrades ---


def scheduled(world: World) -> UpgradeState:
    return read_upgrade_state(world.state)


def test_an_upgrade_is_scheduled_replaced_and_cancelled() -> None:
    world = World()
    assert world.propose(NEXT) == ""
    assert world.propose(upgrade_at(200, PROTOCOL_VERSION + 2)) == ""
    for proposal in (1, 2):
        world.vote(0, 0, YES, proposal)
    world.finish(2)
    assert scheduled(world).scheduled == Upgrade(height=200, version=PROTOCOL_VERSION + 2)
    assert world.propose(CancelChange(height=100)) == "gov/not-scheduled"
    for proposal in (3, 4):
        assert world.propose(CancelChange(height=200)) == ""
        world.vote(0, 0, YES, proposal)
    world.finish()
    assert scheduled(world) == UpgradeState()
    assert world.proposal(3).status is Status.PASSED
    assert world.proposal(4).code == "gov/not-scheduled"


def test_an_upgrade_is_in_force_from_its_height_on() -> None:
    world = World()
    upgrade = Upgrade(height=3, version=PROTOCOL_VERSION + 1, info="zynk 2.0")
    write_upgrade_state(world.state, UpgradeState(scheduled=upgrade))
    world.end_block()
    assert scheduled(world).at(2).version == PROTOCOL_VERSION
    assert scheduled(world).at(3) == upgrade
    assert scheduled(world).scheduled == upgrade
    assert world.context.height == 2
    world.end_block()
    assert scheduled(world) == UpgradeState(current=upgrade)
    assert [e.type for e in world.context.events] == ["gov.upgraded"]
    assert world.propose(upgrade_at(100, PROTOCOL_VERSION + 1)) == "gov/upgrade-version"


# --- readers ---


def test_proposals_are_listed_newest_first_in_pages() -> None:
    world = World()
    assert list(list_proposals(world.state)) == []
    for number in range(5):
        assert world.propose(CHEAPER, payer=4 + number) == ""
    assert [p.id for p in list_proposals(world.state)] == [5, 4, 3, 2, 1]
    assert [p.id for p in list_proposals(world.state, count=2)] == [5, 4]
    assert [p.id for p in list_proposals(world.state, before_id=4, count=2)] == [3, 2]
    assert [p.id for p in list_proposals(world.state, before_id=2**63)] == [5, 4, 3, 2, 1]
    assert list(list_proposals(world.state, before_id=1)) == []
