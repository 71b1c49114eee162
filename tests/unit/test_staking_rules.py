"""Staking block by block: when things count, who pays, and what no block loops over."""

from __future__ import annotations

import dataclasses

from ledger import codec
from ledger.block import EVIDENCE_MAX
from ledger.genesis_state import SUPPLY_KEY
from ledger.governance_rows import OPEN_MAX
from ledger.pools import REWARDS_KEY, UNBONDING_KEY, read_amount
from ledger.staking_candidates import order_candidates, touch
from ledger.staking_messages import CONSENSUS, VRF
from ledger.staking_record import vrf_key_at
from ledger.staking_rewards import YEAR_MS, compute_inflation_ppm
from ledger.staking_rows import (
    CANDIDATES_MAX,
    HOPS_MAX,
    Candidate,
    KeyOwner,
    read_candidates,
    read_consensus_key,
)
from ledger.staking_unbonding import ADDED_MAX, ENTRIES_MAX, RELEASED_MAX, read_queue
from ledger.tx_result import EVENTS_MAX
from ledger.validator_rows import LAST_KEY, NEXT_KEY, SET_KEY
from ledger.validator_set import VALIDATORS_MAX, ValidatorSet
from tests.unit.staking_txs import (
    create,
    delegate,
    downtime,
    keys,
    new_key,
    redelegate,
    retire,
    settle,
    undelegate,
    unjail,
    withdraw,
)
from tests.unit.staking_world import BALANCE, PARAMS, World, account, key_of

INFLATING = dataclasses.replace(PARAMS, inflation_ppm=100_000, inflation_decay_ppm=500_000)


def powers(world: World, key: bytes) -> dict[bytes, int]:
    members = ValidatorSet.decode(world.state.get(key) or b"").validators
    return {member.public_key: member.power for member in members}


def consensus(number: int) -> bytes:
    return key_of(CONSENSUS, number).public_key


# --- sets ---


def test_a_delegation_of_h_counts_from_h_plus_2() -> None:
    world = World()
    world.block(delegate(5, 0, 5 * 10**9))
    assert powers(world, NEXT_KEY)[consensus(0)] == 6000
    assert powers(world, SET_KEY)[consensus(0)] == 1000
    assert world.validator(0).power == 1000
    world.block()
    assert powers(world, SET_KEY)[consensus(0)] == 6000
    assert powers(world, LAST_KEY)[consensus(0)] == 1000
    assert world.validator(0).power == 6000


def test_the_largest_are_active_and_a_tie_goes_to_the_lower_operator() -> None:
    world = World((10**9,) * 4)
    world.block(create(5, 5), create(6, 6, bond=2 * 10**9), create(7, 7))
    by_operator = sorted([0, 1, 2, 3, 5, 7], key=account)
    active = [6, *by_operator[:3]]
    assert powers(world, NEXT_KEY) == {consensus(n): 2000 if n == 6 else 1000 for n in active}
    listed = [c.operator for c in read_candidates(world.state)]
    assert listed == [account(n) for n in [6, *by_operator]]


def test_leaving_for_good_jail_and_too_small_a_self_bond_end_candidacy() -> None:
    world = World()
    world.block(delegate(5, 1, 10**9), delegate(5, 2, 10**9))
    world.block(undelegate(1, 1, 10**9 - 999_999), retire(0), punish=downtime(2))
    assert set(powers(world, NEXT_KEY)) == {consensus(3)}
    world.block(delegate(1, 1, 1), step_ms=PARAMS.downtime_jail_ms)
    assert set(powers(world, NEXT_KEY)) == {consensus(1), consensus(3)}
    world.block(unjail(2))
    assert set(powers(world, NEXT_KEY)) == {consensus(1), consensus(2), consensus(3)}


def test_shares_given_up_for_nothing_count_for_the_self_bond() -> None:
    harsh = dataclasses.replace(PARAMS, slash_downtime_ppm=500_000)
    world = World((2 * 10**6, 10**9), params=harsh)
    world.block(delegate(5, 0, 4 * 10**6))
    world.block(punish=downtime(0))
    world.block(unjail(0), step_ms=PARAMS.downtime_jail_ms)
    assert consensus(0) in powers(world, NEXT_KEY), "its own bond is the least that it may be"
    tokens = world.validator(0).tokens
    world.block(undelegate(0, 0, 1))
    assert world.validator(0).tokens == tokens
    assert consensus(0) not in powers(world, NEXT_KEY)


def test_a_chain_never_votes_itself_out_of_existence() -> None:
    world = World((10**9,))
    world.block(keys(0, consensus=new_key(0, CONSENSUS, 9)), retire(0))
    assert read_candidates(world.state) == []
    assert powers(world, NEXT_KEY) == {consensus(9): 1000}, "under the key that it has now"
    world.block()
    world.block(create(5, 5))
    assert powers(world, NEXT_KEY) == {consensus(5): 1000}


def test_the_list_of_candidates_is_bounded() -> None:
    many = [Candidate(bytes([n // 256, n % 256]) * 16, bytes(32), n) for n in range(1, 600)]
    kept = order_candidates(many)
    assert len(kept) == CANDIDATES_MAX
    assert (kept[0].power, kept[-1].power) == (599, 599 - CANDIDATES_MAX + 1)


def test_a_lower_self_bond_min_lets_in_who_was_below_the_old_one() -> None:
    world = World(params=dataclasses.replace(PARAMS, self_bond_min=10**9))
    world.block(delegate(5, 1, 10**9), undelegate(1, 1, 1))
    assert consensus(1) not in powers(world, NEXT_KEY)
    world.change_params(self_bond_min=10**9 - 1)
    world.block()
    assert powers(world, NEXT_KEY)[consensus(1)] == 1999
    world.change_params(self_bond_min=10**9 + 1)
    world.block()
    assert read_candidates(world.state) == []
    world.block(delegate(2, 2, 1))
    assert set(powers(world, NEXT_KEY)) == {consensus(2)}
    world.change_params(self_bond_min=1)
    world.block()
    assert len(powers(world, NEXT_KEY)) == 4


def test_who_is_below_the_minimum_and_retires_is_never_let_in() -> None:
    world = World(params=dataclasses.replace(PARAMS, self_bond_min=10**9))
    world.block(*(undelegate(n, n, 1) for n in (1, 2, 3)))
    world.block(retire(1), undelegate(2, 2, 10**9 - 1), punish=downtime(3))
    world.change_params(self_bond_min=1)
    world.block()
    assert set(powers(world, NEXT_KEY)) == {consensus(0)}


def test_touching_twice_marks_once_also_across_two_marks() -> None:
    world = World()
    low, high = bytes(16) + b"\1" * 16, b"\2" * 16 + bytes(16)
    across = b"\1" * 16 + b"\2" * 16
    for operator in (low, high, across, low, across):
        touch(world.state, operator)
    assert world.state.get(b"validators\0touched") == low + high + across


# --- keys ---


def test_rotating_a_key_keeps_stake_and_liability() -> None:
    world = World()
    world.block()
    world.block(keys(0, consensus=new_key(0, CONSENSUS, 9)))  # height 2
    owners = [read_consensus_key(world.state, consensus(n)) for n in (0, 9)]
    assert owners == [KeyOwner(account(0), 1, 3), KeyOwner(account(0), 4, None)]
    assert powers(world, SET_KEY).keys() >= {consensus(0)}
    assert consensus(9) in powers(world, NEXT_KEY)
    assert consensus(0) not in powers(world, NEXT_KEY)
    assert world.validator(0).power == world.validator(0).tokens // 10**6


def test_the_key_of_a_retired_validator_ends_with_its_last_height() -> None:
    """Else whoever buys it later could burn the stake that has not left."""
    world = World()
    world.block()
    world.block(retire(0))  # height 2: it votes on 3, and not on 4
    owner = read_consensus_key(world.state, consensus(0))
    assert owner == KeyOwner(account(0), 1, 3)
    assert consensus(0) in powers(world, SET_KEY)
    world.block()
    world.block(delegate(5, 1, 10**9), withdraw(0, 0))
    assert read_consensus_key(world.state, consensus(0)) == owner, "it ends once"


def test_a_retired_validator_that_the_set_can_not_do_without_keeps_its_key() -> None:
    world = World((10**9,))
    world.block(keys(0, consensus=new_key(0, CONSENSUS, 9)), retire(0))
    world.block()
    world.block(delegate(5, 0, 10**6), settle(5, 0, 0))
    assert read_consensus_key(world.state, consensus(9)) == KeyOwner(account(0), 3, None)
    world.block(create(5, 5))  # height 4
    assert read_consensus_key(world.state, consensus(9)) == KeyOwner(account(0), 3, 5)
    assert read_consensus_key(world.state, consensus(0)) == KeyOwner(account(0), 1, 2)


def test_a_new_vrf_key_counts_after_the_delay() -> None:
    world = World()
    world.block(keys(0, vrf=new_key(0, VRF, 9)))
    record = world.validator(0)
    counts = [vrf_key_at(record, h) == key_of(VRF, 9).public_key for h in (1, 5, 6, 7)]
    assert counts == [False, False, True, True]
    for _ in range(5):
        world.block()
    world.block(keys(0, vrf=new_key(0, VRF, 10)))
    assert vrf_key_at(world.validator(0), 8) == key_of(VRF, 9).public_key


# --- rewards ---


def test_fees_go_to_the_power_that_voted_and_commission_comes_first() -> None:
    world = World((10**9, 3 * 10**9), commission=100_000)
    world.block(delegate(5, 0, 10**9))
    world.block()
    world.begin()
    world.run(6, "stake/settle", settle(6, 0, 0)[2], fee=5_000_000)
    world.end()
    world.block(withdraw(5, 0), withdraw(0, 0), withdraw(1, 1))
    # 2/5 of the power is validator 0's: 2,000,000, less 10 %, in equal parts, all rounded down.
    assert world.account(5).balance == BALANCE - 10**9 + 899_999
    assert (
        world.account(0).balance == BALANCE + 900_000 + 200_000
    )  # the fraction of account 5 came on top
    assert world.account(1).balance == BALANCE + 2_999_999
    assert read_amount(world.state, REWARDS_KEY) == 2


def test_fractions_of_rewards_stay_in_the_pool_and_are_given_out_later() -> None:
    world = World((10**9,) * 3, commission=0)
    for _ in range(7):
        world.begin()
        world.run(6, "stake/withdraw", withdraw(6, 0)[2], fee=1)
        world.end()
        world.block(withdraw(0, 0), withdraw(1, 1), withdraw(2, 2))
    paid = sum(world.account(n).balance - BALANCE for n in range(3))
    assert paid == 6, "two for each; the seventh is in thirds"
    assert read_amount(world.state, REWARDS_KEY) == 1


def test_what_a_validator_without_shares_earns_goes_to_all() -> None:
    world = World((10**9, 10**9), commission=0)
    world.block(undelegate(0, 0, 10**9))
    world.begin()
    world.run(6, "stake/withdraw", withdraw(6, 1)[2], fee=1000)
    world.end()  # voted on by both; validator 0 has nobody
    world.block()
    world.block(withdraw(1, 1))
    assert world.account(1).balance == BALANCE + 999
    assert read_amount(world.state, REWARDS_KEY) == 1


def test_inflation_is_of_the_supply_by_block_time_and_falls() -> None:
    world = World(params=INFLATING)
    supply = read_amount(world.state, SUPPLY_KEY)
    world.block()
    for _ in range(10):
        world.block(step_ms=YEAR_MS // 10)
    grown = read_amount(world.state, SUPPLY_KEY)
    assert supply * 1.1 < grown < supply * 1.106, "ten per cent, compounded in ten steps"
    rates = [compute_inflation_ppm(INFLATING, year) for year in (0, 1, 2, 3, 10**9)]
    assert rates == [100_000, 50_000, 25_000, 12_500, 0]
    floor = dataclasses.replace(INFLATING, inflation_ppm_min=20_000)
    assert [compute_inflation_ppm(floor, y) for y in (2, 3, 10**9)] == [25_000, 20_000, 20_000]


def test_the_rest_of_minting_is_kept() -> None:
    one, many = World(params=INFLATING), World(params=INFLATING)
    for world in (one, many):
        world.block()
    one.block(step_ms=1_000_000)
    for _ in range(1000):
        many.block(step_ms=1000)
    made = [read_amount(w.state, REWARDS_KEY) for w in (one, many)]
    assert made[0] <= made[1] <= made[0] + made[0] // 10_000


def test_the_time_before_block_1_mints_nothing() -> None:
    """Else a genesis time of long ago, or of 0, would be a present to the first validators."""
    world = World(params=INFLATING)
    supply = read_amount(world.state, SUPPLY_KEY)
    world.block(step_ms=30 * YEAR_MS)
    assert read_amount(world.state, SUPPLY_KEY) == supply
    world.block(step_ms=YEAR_MS)
    minted = read_amount(world.state, SUPPLY_KEY) - supply
    assert minted == supply // 10, "the first year begins with block 1"


def test_the_supply_does_not_pass_u64() -> None:
    world = World(params=dataclasses.replace(PARAMS, inflation_ppm_min=1_000_000))
    for _ in range(16):
        world.block(step_ms=10 * YEAR_MS)
    assert read_amount(world.state, SUPPLY_KEY) == codec.U64_MAX


# --- unbonding ---


def crowd(count: int) -> list[tuple[int, int]]:
    """(delegator, validator) of stakes, all different."""
    return [(4 + at // 4, at % 4) for at in range(count)]


def undelegating(count: int) -> World:
    """A block takes in `count` entries of as many stakes, and all there is room for if more."""
    world = World(accounts=5 + count // 4)
    stakes = crowd(count)
    world.block(*(delegate(who, whose, 10**6) for who, whose in stakes))
    codes = world.block(*(undelegate(who, whose, 1000) for who, whose in stakes))
    assert codes == [""] * min(count, ADDED_MAX) + ["stake/queue-full"] * (count - ADDED_MAX)
    return world


def test_unbonding_is_paid_when_due_one_event_an_account() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(5, 1, 10**6), delegate(6, 0, 10**6))
    world.block(undelegate(5, 0, 3), undelegate(6, 0, 4), undelegate(5, 1, 5))
    world.block(step_ms=PARAMS.unbonding_ms - 1)
    assert read_queue(world.state) == (0, 3)
    world.block(step_ms=1)
    assert read_queue(world.state) == (3, 3)
    assert read_amount(world.state, UNBONDING_KEY) == 0
    assert world.account(5).balance == BALANCE - 2 * 10**6 + 8
    assert world.account(6).balance == BALANCE - 10**6 + 4
    told = [dict(e.attributes) for e in world.context.events if e.type == "stake.released"]
    assert [(t["amount"], t["burned"]) for t in told] == [("8", "0"), ("4", "0")]


def test_a_stake_has_eight_open_entries_at_most() -> None:
    world = World()
    world.block(delegate(5, 0, 10**6), delegate(5, 1, 10**6), delegate(6, 0, 10**6))
    world.block(*(undelegate(5, 0, 1) for _ in range(5)))
    codes = world.block(*(undelegate(5, 0, 1) for _ in range(4)))
    assert codes == ["", "", "", "stake/too-many-entries"]
    assert world.delegation(0, 5).shares == 10**6 - 8, "what failed took nothing"
    assert world.block(undelegate(5, 1, 1), undelegate(6, 0, 1)) == ["", ""], "of others, yes"
    world.block(step_ms=PARAMS.unbonding_ms - 1500)
    assert world.block(undelegate(5, 0, 1)) == [""], "some are out"


def test_a_stake_with_all_its_hops_leaves_at_once() -> None:
    world = World((10**9,) * 9)
    world.block(*(delegate(5, source, 1000) for source in range(9)))
    world.block(*(redelegate(5, source, 0, 1000) for source in range(1, 8)))
    assert len(world.delegation(0, 5).hops) == HOPS_MAX
    assert world.block(undelegate(5, 0, 8000)) == [""]
    assert read_queue(world.state) == (0, ENTRIES_MAX)


def test_a_block_takes_in_so_many_entries_and_lets_out_twice_as_many() -> None:
    world = undelegating(ADDED_MAX + 3)
    late = [undelegate(who, whose, 1000) for who, whose in crowd(ADDED_MAX + 3)[ADDED_MAX:]]
    assert world.block(*late) == [""] * 3, "the next block has room"


def test_nobody_fills_the_queue_so_that_others_wait() -> None:
    """Entries that fill block after block are out as soon as they are due, and so is the next."""
    world = undelegating(ADDED_MAX)
    stakes = crowd(ADDED_MAX)
    full = 4
    for _ in range(full - 1):
        world.block(*(undelegate(who, whose, 1000) for who, whose in stakes))
    world.block(undelegate(0, 0, 77))
    count = full * ADDED_MAX + 1
    world.block(step_ms=PARAMS.unbonding_ms)  # chain stood still: all of them are due at once
    assert read_queue(world.state) == (RELEASED_MAX, count)
    assert RELEASED_MAX == 2 * ADDED_MAX
    world.block(*(undelegate(who, whose, 1000) for who, whose in stakes))
    assert read_queue(world.state) == (2 * RELEASED_MAX, count + ADDED_MAX)
    world.block()
    assert world.account(0).balance == BALANCE + 77


def test_the_events_of_a_block_fit_its_result_whatever_falls_due() -> None:
    """With every validator of the largest set jailed and all evidence that a block may carry."""
    others = 2 * VALIDATORS_MAX + 2 * EVIDENCE_MAX + 2 * OPEN_MAX
    assert RELEASED_MAX + others <= EVENTS_MAX


def test_a_shorter_time_does_not_overtake() -> None:
    world = World()
    world.block(undelegate(0, 0, 10))
    shorter = dataclasses.replace(PARAMS, unbonding_ms=10, evidence_window_ms=9)
    world.state.rows[b"params\0"] = shorter.encode()
    world.block(undelegate(1, 1, 10))
    world.block(step_ms=1000)
    assert read_queue(world.state) == (0, 2)
    world.block(step_ms=PARAMS.unbonding_ms)
    assert read_queue(world.state) == (2, 2)
