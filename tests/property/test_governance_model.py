"""The tally against a naive twin: a list of all votes, added up by fractions at the end.

Steps are drawn: votes and repeated votes of operators and delegators on several proposals, stake
that comes and leaves, slashes, jail and release, tombstones, blocks that end. After each block the
invariants of `tests.unit.governance_world` hold, the running tallies are the twin's, and so is what
became of each proposal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from random import Random

import pytest

from ledger.governance_proposal import Choice, Status, Tally
from ledger.governance_rows import list_proposals
from ledger.params import ChainParams
from ledger.staking_record import POWER_UNIT
from ledger.staking_rows import read_candidates
from tests.property.campaign import examples
from tests.unit.governance_world import World

OPERATORS, ACCOUNTS = 4, 9
STEPS = 80
PARAMS = ChainParams(
    gov_deposit=1000, gov_voting_ms=20_000, gov_quorum_ppm=250_000, gov_threshold_ppm=500_000
)


@dataclass
class Twin:
    """Who voted for what with how many shares; operators with all that is left."""

    votes: dict[tuple[int, int, int], tuple[Choice, int]] = field(default_factory=dict)
    choices: dict[tuple[int, int], Choice] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)

    def on_leaving(self, operator: int, delegator: int, left: int) -> None:
        for key, (choice, shares) in list(self.votes.items()):
            if key[1:] == (operator, delegator):
                self.votes[key] = (choice, min(shares, left))

    def tally(self, world: World, proposal: int) -> tuple[int, int, int]:
        listed = {c.operator for c in read_candidates(world.state)}
        sums = dict.fromkeys(Choice, 0)
        for operator in range(OPERATORS):
            record = world.record(operator)
            if world.accounts[operator] not in listed:
                continue
            price = Fraction(record.tokens, record.shares)
            behind = dict.fromkeys(Choice, 0)
            for (number, with_operator, _), (choice, shares) in self.votes.items():
                if (number, with_operator) == (proposal, operator):
                    behind[choice] += shares
            own = self.choices.get((proposal, operator))
            if own is not None:
                behind[own] += record.shares - sum(behind.values())
            for choice in Choice:
                sums[choice] += floor(behind[choice] * price)
        return sums[Choice.YES], sums[Choice.NO], sums[Choice.ABSTAIN]


def judge(tally: Tally, params: ChainParams) -> Status:
    """By fractions."""
    voted = tally.yes + tally.no + tally.abstain
    if tally.bonded and Fraction(voted, tally.bonded) < Fraction(params.gov_quorum_ppm, 10**6):
        return Status.NO_QUORUM
    decided = tally.yes + tally.no
    if decided and Fraction(tally.yes, decided) > Fraction(params.gov_threshold_ppm, 10**6):
        return Status.PASSED
    return Status.REJECTED


class Run:
    """One drawn history."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # a test's own draws
        bonds = tuple(self.random.randint(1, 50) * POWER_UNIT for _ in range(OPERATORS))
        self.world = World(bonds, accounts=ACCOUNTS, params=PARAMS)
        self.twin = Twin()
        self.opened = 0
        self.closed: dict[Status, int] = {}

    def step(self) -> None:
        act = self.random.choices(
            [self.propose, self.vote, self.delegate, self.undelegate, self.punish, self.end],
            weights=[2, 20, 4, 4, 2, 4],
        )[0]
        act()

    def propose(self) -> None:
        if self.world.propose(payer=self.random.randrange(ACCOUNTS)) == "":
            self.opened += 1
            self.twin.ends[self.opened] = self.world.context.time_ms + PARAMS.gov_voting_ms

    def vote(self) -> None:
        if not self.opened:
            return
        proposal = self.random.randint(max(1, self.opened - 3), self.opened)
        operator = self.random.randrange(OPERATORS)
        payer = operator if self.random.random() < 0.3 else self.random.randrange(ACCOUNTS)
        choice = self.random.choice(list(Choice))
        code = self.world.vote(payer, operator, choice, proposal)
        is_open = self.world.context.time_ms < self.twin.ends[proposal]
        if not is_open:
            assert code == "gov/not-open"
        elif self.world.record(operator).is_tombstoned:
            assert code == "gov/tombstoned"
        elif payer == operator:
            assert code == ""
            self.twin.choices[proposal, operator] = choice
        elif shares := self.world.shares(operator, payer):
            assert code == ""
            self.twin.votes[proposal, operator, payer] = (choice, shares)
        else:
            assert code == "gov/no-stake"

    def delegate(self) -> None:
        delegator, operator = self.random.randrange(ACCOUNTS), self.random.randrange(OPERATORS)
        self.world.delegate(delegator, operator, self.random.randint(1, 20 * POWER_UNIT))

    def undelegate(self) -> None:
        delegator, operator = self.random.randrange(ACCOUNTS), self.random.randrange(OPERATORS)
        held = self.world.shares(operator, delegator)
        if not held:
            return
        shares = held if self.random.random() < 0.3 else self.random.randint(1, held)
        self.world.undelegate(delegator, operator, shares)
        self.twin.on_leaving(operator, delegator, held - shares)

    def punish(self) -> None:
        operator = self.random.randrange(OPERATORS)
        kind = self.random.randrange(10)
        if kind == 0:
            self.world.slash(operator, 50_000, tombstone=True)
        elif kind < 4:
            self.world.slash(operator, self.random.randint(1, 300_000))
        else:
            self.world.jail(operator, self.random.choice([0, 0, 1]))

    def end(self) -> None:
        world, before = self.world, self.world.context.time_ms
        expected = {i: self.twin.tally(world, i) for i in range(1, self.opened + 1)}
        running = {p.id: p for p in list_proposals(world.state, count=self.opened)}
        for number, proposal in running.items():
            if proposal.status is Status.OPEN:
                assert proposal.tally[:3] == expected[number]
        world.end_block(after_ms=self.random.choice([1000, 1000, 8000]))
        for number, proposal in running.items():
            if proposal.status is not Status.OPEN:
                assert world.proposal(number) == proposal, "a closed proposal stays as it is"
                continue
            after = world.proposal(number)
            if before < self.twin.ends[number]:
                assert after.status is Status.OPEN
                continue
            assert after.tally[:3] == expected[number]
            assert after.status is judge(after.tally, PARAMS)
            self.closed[after.status] = self.closed.get(after.status, 0) + 1


@pytest.mark.slow
def test_tallies_are_those_of_a_naive_twin() -> None:
    closed: dict[Status, int] = {}
    for seed in range(examples(150)):
        run = Run(seed)
        try:
            for _ in range(STEPS):
                run.step()
        except BaseException:
            print("seed", seed)
            raise
        for status, count in run.closed.items():
            closed[status] = closed.get(status, 0) + count
    for status in (Status.PASSED, Status.REJECTED, Status.NO_QUORUM):
        assert closed.get(status, 0) > 10, f"the histories must reach {status.name}: {closed}"
