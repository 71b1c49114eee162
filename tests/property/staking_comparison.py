"""The real modules' rows against the twin's fractions, after each block."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from ledger.accounts import read_account
from ledger.genesis_state import SUPPLY_KEY
from ledger.pools import read_amount
from ledger.staking_delegations import Stake, open_stake
from ledger.staking_messages import (
    CONSENSUS,
    COSIGN,
    VRF,
)
from ledger.staking_record import POWER_UNIT, tokens_of_shares, vrf_key_at
from ledger.staking_rewards import read_distribution, settle
from ledger.staking_rows import read_candidates, read_consensus_key, read_unbonding
from ledger.staking_unbonding import compute_released, read_queue
from ledger.validator_rows import NEXT_KEY, SET_KEY
from ledger.validator_set import ValidatorSet
from tests.property.staking_twin import ZERO, Twin
from tests.unit.staking_world import (
    World,
    account,
    key_of,
)

ACCOUNTS = 16
NUMBERS = {account(number): number for number in range(ACCOUNTS)}


class Comparison:
    """Of one chain and its twin; each amount within its rounding."""

    def __init__(self, world: World, twin: Twin) -> None:
        self.world = world
        self.twin = twin
        self._owners = {key_of(CONSENSUS, number).public_key: number for number in range(4)}

    def sets(self) -> None:
        """Candidates from tokens; the set of H+2 from them; then the twin's rewards."""
        world, twin = self.world, self.twin
        listed = {NUMBERS[c.operator]: c.power for c in read_candidates(world.state)}
        expected = {}
        for number, validator in twin.validators.items():
            own, least = validator.value(number), self.twin.params.self_bond_min
            out = bool(validator.offences) or validator.jailed_until or validator.retired
            power = world.validator(number).tokens // POWER_UNIT
            if out or power < 1 or number not in validator.lots:
                continue
            # Between these the integers decide. The operator's own hops may owe a slash.
            owes = sum((lot.ghost for lot in validator.lots[number]), ZERO)
            doubt = validator.err + 2
            if own - doubt >= least or (own + owes + doubt > least and number in listed):
                expected[number] = power
        assert listed == expected
        ranked = sorted(expected, key=lambda n: (-expected[n], account(n)))
        active = {n: expected[n] for n in ranked[: self.twin.params.validators_max]}
        following = active or twin.sets[1]
        twin.end(following)
        assert self._powers(NEXT_KEY) == following
        assert self._powers(SET_KEY) == twin.sets[0]

    def _powers(self, key: bytes) -> dict[int, int]:
        """Of a set; keys that were rotated away may still vote on the next height."""
        row = self.world.state.get(key)
        assert row is not None
        present = {}
        for number, validator in self.twin.validators.items():
            present[key_of(CONSENSUS, validator.consensus).public_key] = number
        self._owners.update(present)
        members = ValidatorSet.decode(row).validators
        assert key != NEXT_KEY or all(member.public_key in present for member in members)
        height = self.twin.height + (2 if key == NEXT_KEY else 1)
        for member in members:
            owner = read_consensus_key(self.world.state, member.public_key)
            assert owner is not None
            assert owner.may_vote_at(height)
        return {self._owners[member.public_key]: member.power for member in members}

    def stakes(self) -> None:
        world, twin = self.world, self.twin
        distribution = read_distribution(world.state)
        for number, validator in twin.validators.items():
            record = world.validator(number)
            near(record.tokens, validator.tokens, validator.err + 1, "tokens")
            owed = settle(record, distribution)[0].commission_owed
            slack = validator.commission_slack + 1
            near(owed, validator.commission_owed, slack, "commission")
            assert record.consensus_key == key_of(CONSENSUS, validator.consensus).public_key
            owner = read_consensus_key(world.state, record.consensus_key)
            assert owner is not None
            assert (owner.operator, owner.last) == (account(number), validator.key_end)
            assert record.cosign_key == key_of(COSIGN, validator.cosign).public_key
            counts = validator.next_vrf_height and twin.height >= validator.next_vrf_height
            vrf = validator.next_vrf if counts else validator.vrf
            assert vrf_key_at(record, twin.height) == key_of(VRF, vrf).public_key
            for delegator in range(ACCOUNTS):
                held = world.delegation(number, delegator).shares > 0
                if not held and delegator not in validator.lots:
                    continue
                stake, paid = self.peek(number, delegator)
                value = tokens_of_shares(stake.record, stake.delegation.shares)
                near(value, validator.value(delegator), validator.err + 3, "stake")
                owing = twin.owed.get((number, delegator), ZERO)
                near(paid, owing, twin.slack[delegator] + 3, "rewards")

    def amounts(self, messages_count: int) -> None:
        world, twin = self.world, self.twin
        waiting: Counter[int] = Counter()
        for seq in range(*read_queue(world.state)):
            entry = read_unbonding(world.state, seq)
            assert entry is not None
            waiting[NUMBERS[entry.delegator]] += compute_released(world.state, entry)
        for number in range(ACCOUNTS):
            mine = [entry for entry in twin.leaving if entry.delegator == number]
            doubt = sum((entry.err + 3 for entry in mine), ZERO)
            total = sum((entry.value for entry in mine), ZERO)
            near(waiting[number], total, doubt, "unbonding")
            balance = world.account(number).balance
            near(balance, twin.balances[number], twin.slack[number] + 1, "balance")
        supply = read_amount(world.state, SUPPLY_KEY)
        near(supply, twin.supply(), Fraction(3 * (messages_count + twin.height) + 10), "supply")

    def peek(self, operator: int, delegator: int) -> tuple[Stake, int]:
        """A stake as a message would find it, and the rewards that it would be paid."""
        state = self.world.state
        before = read_account(state, account(delegator)).balance
        stake = open_stake(self.world.context, account(operator), account(delegator))
        paid = read_account(state, account(delegator)).balance - before
        state.journal.clear()
        return stake, paid


def near(found: int, expected: Fraction, doubt: Fraction, what: str) -> None:
    assert abs(found - expected) <= doubt, (what, found, float(expected), float(doubt))
