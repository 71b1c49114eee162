"""The rows of governance, and reading them (adr/0008).

    gov | open                                      [last id, [[id, end_ms] or nil, ...]]: the slots
    gov-proposal | id u64 BE                        Proposal (`ledger.governance_proposal`)
    gov-votes | slot u8, operator                   [id, the operator's choice or nil,
                                                     [yes, no, abstain] shares of delegators]
    gov-vote | slot u8, operator, delegator         [id, choice, shares]

An open proposal has one of 16 slots, under which its votes are kept. A row that names another
proposal than the one in its slot is left from an earlier one: it counts as absent and is
overwritten. So closing a proposal deletes nothing, and the rows never outnumber 16 a delegation.

A delegator's vote holds the shares that it had then; what it adds later is its validator's to vote
until it votes again, and what leaves is taken out (`take_leaving_shares`). Hence the shares of
delegators who vote never exceed the validator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ledger import codec
from ledger.accounts import StateReader
from ledger.execution import StateView
from ledger.governance_proposal import Choice, Proposal, Status, Tally, read_choice
from ledger.pools import BONDED_KEY, read_amount
from ledger.staking_rows import read_candidates, read_validator
from ledger.state import state_key

OPEN_MAX = 16
SLOTS_BYTES_MAX = 16 + OPEN_MAX * 24
VOTE_BYTES_MAX = 32
VALIDATOR_VOTES_BYTES_MAX = 64

SLOTS_KEY = state_key("gov", b"open")
PROPOSAL_PREFIX = state_key("gov-proposal", b"")
VALIDATOR_VOTES_PREFIX = state_key("gov-votes", b"")
VOTE_PREFIX = state_key("gov-vote", b"")


def proposal_key(proposal_id: int) -> bytes:
    """State key of a proposal."""
    return PROPOSAL_PREFIX + proposal_id.to_bytes(8, "big")


def validator_votes_key(slot: int, operator: bytes) -> bytes:
    """State key of the votes of the stake with one validator."""
    return VALIDATOR_VOTES_PREFIX + bytes([slot]) + operator


def vote_key(slot: int, operator: bytes, delegator: bytes) -> bytes:
    """State key of a delegator's own vote."""
    return VOTE_PREFIX + bytes([slot]) + operator + delegator


class OpenProposal(NamedTuple):
    """A slot in use."""

    id: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Which proposals are open. Ids count from 1; a slot that was ever used stays in the list."""

    last_id: int = 0
    slots: tuple[OpenProposal | None, ...] = ()

    def find(self, proposal_id: int) -> int | None:
        """The slot of an open proposal."""
        return next(
            (i for i, p in enumerate(self.slots) if p is not None and p.id == proposal_id), None
        )

    def find_free(self) -> int | None:
        """A slot for the next proposal; None if all are taken."""
        free = next((i for i, p in enumerate(self.slots) if p is None), len(self.slots))
        return free if free < OPEN_MAX else None

    def with_slot(self, slot: int, proposal: OpenProposal | None) -> Slots:
        """With `proposal` in a slot that is in the list, or the next one."""
        slots = (*self.slots[:slot], proposal, *self.slots[slot + 1 :])
        last_id = self.last_id if proposal is None else proposal.id
        return Slots(last_id=last_id, slots=slots)

    def encode(self) -> bytes:
        slots: list[codec.Value] = [None if p is None else list(p) for p in self.slots]
        return codec.encode([self.last_id, slots])

    @classmethod
    def decode(cls, data: bytes) -> Slots:
        """Inverse of `encode`. Raises InvalidInputError."""
        last_id, items = codec.read_array(
            codec.decode(data, bytes_max=SLOTS_BYTES_MAX), 2, "open proposals"
        )
        found: list[OpenProposal | None] = []
        for item in codec.read_list(items, OPEN_MAX, "open proposals"):
            if item is None:
                found.append(None)
                continue
            number, end_ms = codec.read_array(item, 2, "open proposal")
            found.append(
                OpenProposal(
                    codec.read_int(number, "proposal id"), codec.read_int(end_ms, "end of voting")
                )
            )
        return cls(last_id=codec.read_int(last_id, "last proposal id"), slots=tuple(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A delegator's own vote with one validator."""

    proposal_id: int
    choice: Choice
    shares: int

    def encode(self) -> bytes:
        return codec.encode([self.proposal_id, int(self.choice), self.shares])

    @classmethod
    def decode(cls, data: bytes) -> Vote:
        """Inverse of `encode`. Raises InvalidInputError."""
        number, choice, shares = codec.read_array(
            codec.decode(data, bytes_max=VOTE_BYTES_MAX), 3, "vote"
        )
        return cls(
            proposal_id=codec.read_int(number, "proposal id"),
            choice=read_choice(choice),
            shares=codec.read_int(shares, "voting shares"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorVotes:
    """How the stake with one validator votes: `shares` of delegators who vote for themselves, as
    (yes, no, abstain); `choice` decides on all others (None: they do not vote)."""

    proposal_id: int
    choice: Choice | None = None
    shares: tuple[int, int, int] = (0, 0, 0)

    def plus(self, choice: Choice, shares: int) -> ValidatorVotes:
        """With `shares` (negative: less) of delegators for `choice`."""
        sums = list(self.shares)
        sums[choice - 1] += shares
        assert sums[choice - 1] >= 0, "what leaves the sum had entered it"
        return replace(self, shares=(sums[0], sums[1], sums[2]))

    def encode(self) -> bytes:
        choice = None if self.choice is None else int(self.choice)
        return codec.encode([self.proposal_id, choice, self.shares])

    @classmethod
    def decode(cls, data: bytes) -> ValidatorVotes:
        """Inverse of `encode`. Raises InvalidInputError."""
        number, choice, shares = codec.read_array(
            codec.decode(data, bytes_max=VALIDATOR_VOTES_BYTES_MAX), 3, "votes with a validator"
        )
        yes, no, abstain = (
            codec.read_int(n, "voting shares") for n in codec.read_array(shares, 3, "voting shares")
        )
        return cls(
            proposal_id=codec.read_int(number, "proposal id"),
            choice=None if choice is None else read_choice(choice),
            shares=(yes, no, abstain),
        )


def read_slots(state: StateReader) -> Slots:
    """The open proposals."""
    row = state.get(SLOTS_KEY)
    return Slots() if row is None else Slots.decode(row)


def read_proposal(state: StateReader, proposal_id: int) -> Proposal | None:
    """A proposal, open or closed."""
    row = state.get(proposal_key(proposal_id))
    return None if row is None else Proposal.decode(row)


def read_validator_votes(
    state: StateReader, slot: int, proposal_id: int, operator: bytes
) -> ValidatorVotes:
    """The votes of the stake with a validator on the proposal in `slot`."""
    row = state.get(validator_votes_key(slot, operator))
    found = None if row is None else ValidatorVotes.decode(row)
    if found is None or found.proposal_id != proposal_id:
        return ValidatorVotes(proposal_id=proposal_id)
    return found


def read_vote(
    state: StateReader, slot: int, proposal_id: int, operator: bytes, delegator: bytes
) -> Vote | None:
    """A delegator's own vote on the proposal in `slot`."""
    row = state.get(vote_key(slot, operator, delegator))
    found = None if row is None else Vote.decode(row)
    return found if found is not None and found.proposal_id == proposal_id else None


class BondedStake(NamedTuple):
    """The tokens with one validator, and the shares that hold them."""

    operator: bytes
    tokens: int
    shares: int


def read_voting_stakes(state: StateReader) -> list[BondedStake]:
    """The stakes whose votes count: those with a candidate, at most 512. Read once for all the
    tallies of a block."""
    found = []
    for candidate in read_candidates(state):
        record = read_validator(state, candidate.operator)
        assert record is not None, "a candidate has its record"
        found.append(BondedStake(candidate.operator, record.tokens, record.shares))
    return found


def compute_tally(
    state: StateReader, slot: int, proposal_id: int, stakes: Sequence[BondedStake]
) -> Tally:
    """The votes on the proposal in `slot`, by the tokens of `stakes`."""
    sums = [0, 0, 0]
    for stake in stakes:
        votes = read_validator_votes(state, slot, proposal_id, stake.operator)
        shares = list(votes.shares)
        rest = stake.shares - sum(shares)
        assert rest >= 0, "shares that leave a validator leave its votes"
        if votes.choice is not None:
            shares[votes.choice - 1] += rest
        for i, amount in enumerate(shares):
            if amount:
                sums[i] += amount * stake.tokens // stake.shares
    yes, no, abstain = sums
    return Tally(yes, no, abstain, read_amount(state, BONDED_KEY))


def take_leaving_shares(
    state: StateView, operator: bytes, delegator: bytes, shares_left: int
) -> None:
    """A delegation has become `shares_left`: its votes must not hold more. Staking calls this
    whenever it writes a delegation."""
    if operator == delegator or state.get(SLOTS_KEY) is None:
        return  # an operator votes with whatever is there
    for slot, proposal in enumerate(read_slots(state).slots):
        key = vote_key(slot, operator, delegator)
        row = state.get(key)
        if row is None:
            continue
        vote = Vote.decode(row)
        if proposal is None or vote.proposal_id != proposal.id:
            state.delete(key)
            continue
        if vote.shares <= shares_left:
            continue
        votes = read_validator_votes(state, slot, proposal.id, operator)
        votes = votes.plus(vote.choice, shares_left - vote.shares)
        state.put(validator_votes_key(slot, operator), votes.encode())
        if shares_left:
            state.put(key, replace(vote, shares=shares_left).encode())
        else:
            state.delete(key)


# --- for whoever asks: RPC and command line ---


def list_proposals(
    state: StateReader, *, before_id: int | None = None, count: int = OPEN_MAX
) -> Iterator[Proposal]:
    """At most `count` proposals with an id below `before_id`, newest first; those that are open
    with the tally so far."""
    slots = read_slots(state)
    stakes: list[BondedStake] | None = None
    last = slots.last_id if before_id is None else min(before_id - 1, slots.last_id)
    for proposal_id in range(last, max(last - count, 0), -1):
        proposal = read_proposal(state, proposal_id)
        assert proposal is not None, "ids have no gaps, and proposals stay"
        slot = slots.find(proposal_id)
        if slot is not None and proposal.status is Status.OPEN:
            stakes = read_voting_stakes(state) if stakes is None else stakes
            tally = compute_tally(state, slot, proposal_id, stakes)
            proposal = replace(proposal, tally=tally)
        yield proposal


def find_choice(
    state: StateReader, proposal_id: int, operator: bytes, account: bytes
) -> Choice | None:
    """How `account` votes with its stake with `operator`, while the proposal is open; None if its
    validator decides."""
    slot = read_slots(state).find(proposal_id)
    if slot is None:
        return None
    if account == operator:
        return read_validator_votes(state, slot, proposal_id, operator).choice
    vote = read_vote(state, slot, proposal_id, operator, account)
    return None if vote is None else vote.choice
