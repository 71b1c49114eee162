"""Governance: proposing, voting, and what becomes of a proposal (adr/0008).

`check` refuses a body that can be right in no state. `apply` fails a tx with one of these codes,
stable and the same on every node:

| code | meaning |
| --- | --- |
| gov/malformed | the body breaks a rule of form (a body that skipped `check`) |
| gov/too-many | 16 proposals are open |
| gov/bad-params | the parameters would be out of a vote's bounds, or contradict each other |
| gov/upgrade-too-near | the upgrade would begin less than 16 heights from now |
| gov/upgrade-version | its version is not above the one in force |
| gov/not-scheduled | no upgrade is scheduled for the height to cancel |
| gov/not-open | no such proposal, or the vote is over |
| gov/no-validator | the account is no validator's operator |
| gov/tombstoned | the validator was slashed for a double sign: stake with it does not vote |
| gov/no-stake | the payer has nothing with that validator |

Also `bank/insufficient-balance`, for the deposit.

A proposal is closed at the end of the first block at or after its end time. What it changes is
judged when it is proposed and again when it is accepted: if it does not fit then, the proposal has
`failed` with the code. Changed parameters count from the next block on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ledger.accounts import credit, debit, encode_account_id
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext, Event, ExecutionContext, StateView, TxFailure, TxHandler
from ledger.governance_change import PROPOSE_WEIGHT, judge_change, make_change
from ledger.governance_proposal import (
    ParamsChange,
    Proposal,
    ProposeBody,
    Status,
    Tally,
    VoteBody,
)
from ledger.governance_rows import (
    OPEN_MAX,
    SLOTS_KEY,
    BondedStake,
    OpenProposal,
    Vote,
    compute_tally,
    proposal_key,
    read_proposal,
    read_slots,
    read_validator_votes,
    read_vote,
    read_voting_stakes,
    validator_votes_key,
    vote_key,
)
from ledger.params import read_params
from ledger.params_vote import check_voted_values
from ledger.pools import DEPOSITS_KEY, add_to_pool, burn
from ledger.staking_rows import read_delegation, read_validator

VOTE_WEIGHT = 3

OnParamsChanged = Callable[[StateView], None]


def governance_handlers() -> dict[str, TxHandler]:
    """By message type."""
    handlers: tuple[TxHandler, ...] = (ProposeHandler(), VoteHandler())
    return {handler.type: handler for handler in handlers}


class ProposeHandler:
    """`gov/propose`: the payer opens a proposal and leaves a deposit."""

    type = "gov/propose"

    def weight_of(self, body: bytes) -> int:
        """See `PROPOSE_WEIGHT`."""
        return PROPOSE_WEIGHT

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError, also for a value that no vote can set."""
        change = ProposeBody.decode(body).change
        if isinstance(change, ParamsChange):
            check_voted_values(change.values)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure with a code of the table above."""
        try:
            wanted = ProposeBody.decode(body)
        except InvalidInputError as error:
            raise TxFailure("gov/malformed", str(error)) from error
        state = context.state
        params = read_params(state)
        judge_change(state, context.height, wanted.change)
        slots = read_slots(state)
        slot = slots.find_free()
        if slot is None:
            raise TxFailure(
                "gov/too-many", "too many proposals are open", expected=f"at most {OPEN_MAX}"
            )
        debit(context, context.payer, params.gov_deposit)
        add_to_pool(state, DEPOSITS_KEY, params.gov_deposit)
        proposal = Proposal(
            id=slots.last_id + 1,
            proposer=context.payer,
            deposit=params.gov_deposit,
            body=wanted,
            opened_height=context.height,
            opened_ms=context.time_ms,
            end_ms=context.time_ms + params.gov_voting_ms,
        )
        opened = OpenProposal(proposal.id, proposal.end_ms)
        state.put(SLOTS_KEY, slots.with_slot(slot, opened).encode())
        state.put(proposal_key(proposal.id), proposal.encode())
        attributes = (
            ("account", encode_account_id(context.payer)),
            ("deposit", str(proposal.deposit)),
            ("end", str(proposal.end_ms)),
            ("proposal", str(proposal.id)),
        )
        context.emit(Event("gov.proposed", attributes))


class VoteHandler:
    """`gov/vote`: the payer votes with its stake; a later vote replaces the one before."""

    type = "gov/vote"

    def weight_of(self, body: bytes) -> int:
        """Rows: vote, votes with the validator; read: slots, validator, delegation."""
        return VOTE_WEIGHT

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        VoteBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure with a code of the table above."""
        try:
            wanted = VoteBody.decode(body)
        except InvalidInputError as error:
            raise TxFailure("gov/malformed", str(error)) from error
        slot = _find_open(context, wanted.proposal_id)
        record = read_validator(context.state, wanted.operator)
        if record is None:
            raise TxFailure(
                "gov/no-validator", "no such validator", got=encode_account_id(wanted.operator)
            )
        if record.is_tombstoned:
            raise TxFailure("gov/tombstoned", "the validator was slashed for a double sign")
        if context.payer == wanted.operator:
            shares = _vote_as_operator(context.state, slot, wanted, record.shares)
        else:
            shares = _vote_as_delegator(context, slot, wanted)
        attributes = (
            ("account", encode_account_id(context.payer)),
            ("choice", wanted.choice.name.lower()),
            ("operator", encode_account_id(wanted.operator)),
            ("proposal", str(wanted.proposal_id)),
            ("shares", str(shares)),
        )
        context.emit(Event("gov.voted", attributes))


def _find_open(context: ExecutionContext, proposal_id: int) -> int:
    slots = read_slots(context.state)
    slot = slots.find(proposal_id)
    proposal = None if slot is None else slots.slots[slot]
    if slot is None or proposal is None or context.time_ms >= proposal.end_ms:
        raise TxFailure(
            "gov/not-open", "no such proposal, or the vote is over", got=str(proposal_id)
        )
    return slot


def _vote_as_operator(state: StateView, slot: int, wanted: VoteBody, shares: int) -> int:
    """Returns the shares it votes with, as things are now."""
    votes = read_validator_votes(state, slot, wanted.proposal_id, wanted.operator)
    votes = replace(votes, choice=wanted.choice)
    state.put(validator_votes_key(slot, wanted.operator), votes.encode())
    return shares - sum(votes.shares)


def _vote_as_delegator(context: ExecutionContext, slot: int, wanted: VoteBody) -> int:
    """Returns the shares it votes with."""
    state, operator, delegator = context.state, wanted.operator, context.payer
    held = read_delegation(state, operator, delegator)
    if held is None or not held.shares:
        raise TxFailure("gov/no-stake", "the account has nothing with that validator")
    votes = read_validator_votes(state, slot, wanted.proposal_id, operator)
    before = read_vote(state, slot, wanted.proposal_id, operator, delegator)
    if before is not None:
        votes = votes.plus(before.choice, -before.shares)
    votes = votes.plus(wanted.choice, held.shares)
    vote = Vote(proposal_id=wanted.proposal_id, choice=wanted.choice, shares=held.shares)
    state.put(validator_votes_key(slot, operator), votes.encode())
    state.put(vote_key(slot, operator, delegator), vote.encode())
    return held.shares


class GovernanceModule:
    """The `BlockModule` that closes proposals. Goes after staking, so that the tokens are those of
    the block's end. `on_params_changed` is told the state in which parameters have changed."""

    def __init__(self, on_params_changed: OnParamsChanged) -> None:
        self._on_params_changed = on_params_changed

    def begin(self, context: BlockContext) -> None:
        """Nothing."""

    def end(self, context: BlockContext) -> None:
        """Close what is due, in the order of proposing."""
        state = context.state
        slots = read_slots(state)
        due = sorted(
            (proposal.id, slot)
            for slot, proposal in enumerate(slots.slots)
            if proposal is not None and context.time_ms >= proposal.end_ms
        )
        if not due:
            return
        stakes = read_voting_stakes(state)
        for proposal_id, slot in due:
            self._close(context, proposal_id, slot, stakes)
            slots = slots.with_slot(slot, None)
        state.put(SLOTS_KEY, slots.encode())

    def _close(
        self, context: BlockContext, proposal_id: int, slot: int, stakes: Sequence[BondedStake]
    ) -> None:
        state = context.state
        proposal = read_proposal(state, proposal_id)
        assert proposal is not None, "a slot names a proposal that is there"
        tally = compute_tally(state, slot, proposal_id, stakes)
        if tally.has_quorum(context.params):
            add_to_pool(state, DEPOSITS_KEY, -proposal.deposit)
            credit(context, proposal.proposer, proposal.deposit)
            status, code = self._decide(context, proposal, tally)
        else:
            burn(state, DEPOSITS_KEY, proposal.deposit)
            status, code = Status.NO_QUORUM, ""
        closed = replace(
            proposal, status=status, code=code, closed_height=context.height, tally=tally
        )
        state.put(proposal_key(proposal_id), closed.encode())
        attributes = (
            ("abstain", str(tally.abstain)),
            ("bonded", str(tally.bonded)),
            ("code", code),
            ("no", str(tally.no)),
            ("proposal", str(proposal_id)),
            ("status", status.name.lower().replace("_", "-")),
            ("yes", str(tally.yes)),
        )
        context.emit(Event("gov.closed", attributes))

    def _decide(
        self, context: BlockContext, proposal: Proposal, tally: Tally
    ) -> tuple[Status, str]:
        """Make the change if it is wanted and still fits. (Status, code)."""
        if not tally.is_accepted(context.params):
            return Status.REJECTED, ""
        change = proposal.body.change
        try:
            judge_change(context.state, context.height, change)
        except TxFailure as failure:
            return Status.FAILED, failure.code
        make_change(context.state, context.height, change)
        if isinstance(change, ParamsChange):
            self._on_params_changed(context.state)
        return Status.PASSED, ""
