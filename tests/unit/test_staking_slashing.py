"""Slashes: who pays, in each state of a stake, and when a punishment is over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from ledger.errors import InvalidInputError
from ledger.staking_slashing import jail, slash_double_sign, slash_downtime
from ledger.staking_unbonding import read_queue
from tests.unit.staking_txs import (
    delegate,
    downtime,
    redelegate,
    settle,
    undelegate,
    unjail,
)
from tests.unit.staking_world import BALANCE, PARAMS, Context, World, account


@pytest.mark.parametrize(
    ("left", "offence", "slashed", "pays"),
    [
        (5, 6, 8, True),  # it still voted on 6
        (5, 7, 8, False),  # offence after it had left
        (5, 1, 8, True),
        (5, 4, 5, False),  # slashed before it left: it paid with the rest
        (5, 4, 6, True),
    ],
)
def test_unbonding_and_hopped_stake_pays_for_what_it_backed(
    left: int, offence: int, slashed: int, pays: bool
) -> None:
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(6, 0, 10**6))

    def punish(context: Context) -> None:
        if context.height == slashed:
            slash_double_sign(context, account(0), offence)

    while world.height < 8:
        leaves = world.height + 1 == left
        txs = (undelegate(5, 0, 10**6), redelegate(6, 0, 1, 10**6)) if leaves else ()
        world.block(*txs, punish=punish)
    world.block(settle(7, 1, 6))
    early = 0 if slashed > left else 50_000  # the price of the shares had fallen
    kept = 950_000 if pays else 10**6 - early
    assert world.delegation(1, 6).shares == kept
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(5).balance == BALANCE - 10**6 + kept


def test_a_slash_after_the_time_is_over_takes_nothing() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(6, 0, 10**6))
    world.block(undelegate(5, 0, 10**6), redelegate(6, 0, 1, 10**6))
    world.block(step_ms=PARAMS.unbonding_ms, punish=double_sign_at(0, 1))
    world.block(settle(7, 1, 6))
    assert world.delegation(1, 6).shares == 10**6
    assert world.account(5).balance == BALANCE


def double_sign_at(operator: int, offence: int) -> Callable[[Context], None]:
    def punish(context: Context) -> None:
        slash_double_sign(context, account(operator), offence)

    return punish


def test_hopped_then_unbonding_stake_answers_for_both_validators() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6))
    world.block(redelegate(5, 0, 1, 10**6))
    world.block(undelegate(5, 1, 10**6))

    def both(context: Context) -> None:
        slash_double_sign(context, account(0), 1)
        slash_double_sign(context, account(1), 2)

    world.block(punish=both)
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(5).balance == BALANCE - 10**6 + 902_500


def test_stake_under_no_hop_is_undelegated_first_and_then_the_oldest_hop() -> None:
    world = World()
    world.block(delegate(5, 0, 30), delegate(5, 1, 10), delegate(5, 2, 7))
    world.block(redelegate(5, 1, 0, 10))
    world.block(redelegate(5, 2, 0, 7))
    world.block(undelegate(5, 0, 42))
    held = world.delegation(0, 5)
    assert (held.shares, [hop.shares for hop in held.hops]) == (5, [5])
    assert held.hops[0].source == account(2)
    assert read_queue(world.state) == (0, 3)


def test_a_hop_ends_with_its_time_or_once_it_has_paid() -> None:
    world = World()
    world.block(delegate(5, 0, 10), delegate(5, 1, 100))
    world.block(redelegate(5, 0, 2, 10), redelegate(5, 1, 2, 100))
    assert world.block(redelegate(5, 2, 3, 1)) == ["stake/hop-open"]
    world.block(punish=double_sign_at(0, 4))  # the stake had left, but an earlier offence may come
    assert world.block(redelegate(5, 2, 3, 1)) == ["stake/hop-open"]
    world.block(punish=double_sign_at(1, 3))
    assert world.block(redelegate(5, 2, 3, 95)) == [""]
    assert world.block(redelegate(5, 2, 3, 1)) == ["stake/hop-open"]
    assert world.block(redelegate(5, 2, 3, 10), step_ms=PARAMS.unbonding_ms) == [""]


@pytest.mark.parametrize("offences", [(4,), (5, 4), (9, 5, 4, 1), (4, 1)])
def test_no_order_of_evidence_shields_stake_that_left(offences: tuple[int, ...]) -> None:
    """The offence at 4 was made with the power of what left in 3: whatever else its signer
    confesses, and when, all of it pays, and pays once."""
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(6, 0, 10**6))
    world.block()
    world.block(undelegate(0, 0, 999_000_000), undelegate(5, 0, 10**6), redelegate(6, 0, 1, 10**6))
    world.block()
    world.block(undelegate(0, 0, 500_000))  # bonded at the offence at 5, if that is the first
    while world.height < 9:
        world.block()
    for offence in offences:
        world.block(punish=double_sign_at(0, offence))
    world.block(settle(7, 1, 6))
    assert world.delegation(1, 6).shares == 950_000
    assert world.validator(0).tokens == 475_000
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(5).balance == BALANCE - 50_000
    assert world.account(0).balance == BALANCE + 950 * 999_000 + 475_000


def test_later_evidence_takes_nothing_of_stake_that_left_before_its_offence() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(6, 0, 10**6))
    world.block(undelegate(5, 0, 10**6), redelegate(6, 0, 1, 10**6))  # votes on 3
    world.block(punish=double_sign_at(0, 8))
    world.block(punish=double_sign_at(0, 4))
    world.block(settle(7, 1, 6))
    assert [hop.shares for hop in world.delegation(1, 6).hops] == [10**6]
    world.block(punish=double_sign_at(0, 3))
    world.block(settle(7, 1, 6))
    assert (world.delegation(1, 6).shares, world.delegation(1, 6).hops) == (950_000, ())
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(5).balance == BALANCE - 50_000


def test_stake_that_left_after_the_first_slash_paid_with_the_rest() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6))
    world.block(punish=double_sign_at(0, 2))
    world.block(undelegate(5, 0, 10**6))
    world.block(punish=double_sign_at(0, 1))
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(5).balance == BALANCE - 50_000


def test_what_was_not_liable_any_more_at_the_first_slash_never_pays() -> None:
    world = World()
    world.block(delegate(6, 0, 10**6))
    world.block(redelegate(6, 0, 1, 10**6))
    world.block(step_ms=PARAMS.unbonding_ms, punish=double_sign_at(0, 9))
    world.block(punish=double_sign_at(0, 1))
    world.block(settle(7, 1, 6))
    assert world.delegation(1, 6).shares == 10**6


def test_a_double_sign_is_punished_once_and_for_ever() -> None:
    world = World()
    world.block(punish=double_sign_at(0, 7))
    record = world.validator(0)
    assert record.tokens == 950_000_000
    assert record.is_tombstoned
    before = dict(world.state.rows)
    for offence in (7, 8):
        with pytest.raises(InvalidInputError, match="before"):
            world.block(punish=double_sign_at(0, offence))
        world.state.journal.clear()
        assert before == world.state.rows
    world.block(punish=double_sign_at(0, 6))
    widened = world.validator(0)
    assert record.slash is not None
    assert widened.slash == dataclasses.replace(record.slash, offence_height=6)
    assert widened.tokens == record.tokens


def test_downtime_is_punished_once_while_in_jail_and_only_what_is_bonded_pays() -> None:
    world = World()
    world.block(undelegate(0, 0, 10**8))
    world.block(punish=downtime(0))
    world.block(punish=downtime(0))
    assert world.validator(0).tokens == 900_000_000 - 90_000
    assert world.block(unjail(0)) == ["stake/jailed"]
    assert world.block(unjail(0), step_ms=PARAMS.downtime_jail_ms) == [""]
    world.block(step_ms=PARAMS.unbonding_ms)
    assert world.account(0).balance == BALANCE + 10**8


def test_jail_takes_nothing_and_never_becomes_shorter() -> None:
    world = World()

    def twice(context: Context) -> None:
        jail(context, account(0), context.time_ms + 5000)
        jail(context, account(0), context.time_ms + 100)

    world.block(punish=twice)
    assert world.validator(0).jailed_until_ms == world.time_ms + 5000
    assert world.validator(0).tokens == 10**9


def test_punishing_who_is_no_validator_is_refused() -> None:
    world = World()
    for act in (
        lambda c: slash_double_sign(c, account(9), 1),
        lambda c: slash_downtime(c, account(9)),
        lambda c: jail(c, account(9), 1),
    ):
        with pytest.raises(InvalidInputError, match="no such validator"):
            act(world.context)


def test_after_all_tokens_are_gone_the_shares_can_be_given_up_and_new_ones_bought() -> None:
    world = World(params=dataclasses.replace(PARAMS, slash_downtime_ppm=1_000_000))
    world.block(punish=downtime(0))
    assert world.block(undelegate(0, 0, 10**9)) == [""]
    assert read_queue(world.state) == (0, 0)
    assert world.block(delegate(5, 0, 77)) == [""]
    assert world.delegation(0, 5).shares == 77
