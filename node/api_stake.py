"""Answers about stake: validators, delegations, what is unbonding. Each follows from the state rows
that come with it (node/answer_view.py), so that a light client makes the same answer from them.

What the lists prove: that no candidate is left out, nor an entry of the queue. Validators that are
no candidates (jailed, retired, too small a stake) and the delegators of a validator are listed by
no row; a whole list of delegators must add up to the validator's shares.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.liveness import read_misses
from ledger.accounts import encode_account_id
from ledger.errors import InvalidInputError
from ledger.params import PARAMS_KEY, ChainParams
from ledger.staking_record import SCALE_BITS, ValidatorRecord, tokens_of_shares
from ledger.staking_rewards import read_distribution, settle
from ledger.staking_rows import (
    Delegation,
    UnbondingEntry,
    delegation_key,
    read_candidates,
    read_delegation,
    read_unbonding,
    read_validator,
    unbonding_key,
    validator_key,
)
from ledger.staking_unbonding import compute_released, read_queue
from ledger.validator_rows import SET_KEY
from ledger.validator_set import ValidatorSet
from node.answer_view import AnswerView, ChainLister, Lister
from rpc.errors import not_found

ENTRIES_SCANNED_MAX = 1000
"""Entries of the queue that one page covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Voting:
    """The set that votes on the next height, and the window in which misses count."""

    validators: ValidatorSet
    window: int

    @classmethod
    def read(cls, view: AnswerView) -> _Voting:
        return cls(
            validators=ValidatorSet.decode(_need(view, SET_KEY)),
            window=ChainParams.decode(_need(view, PARAMS_KEY)).downtime_window,
        )


def _need(view: AnswerView, key: bytes) -> bytes:
    row = view.get(key)
    if row is None:
        raise InvalidInputError("the state lacks a row that every chain has", got=key.hex())
    return row


def validators_json(view: AnswerView, lister: Lister, cursor: int, limit: int) -> dict[str, object]:
    """A page of all validators there ever were: the candidates by power, then the others."""
    page = _page_of_validators(view, lister, cursor, limit)
    voting = _Voting.read(view)
    return view.answer(
        validators=[_validator(view, operator, voting) for operator in page.operators],
        candidates=page.candidates_count,
        listed=[operator.hex() for operator in page.listed],
        next_cursor=page.next_cursor,
    )


def validator_json(view: AnswerView, operator: bytes) -> dict[str, object]:
    """One validator. Raises RpcError if there is none."""
    return view.answer(**_validator(view, operator, _Voting.read(view)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _ValidatorPage:
    """`operators` are those of the page; the last of them are `listed` by no row."""

    operators: list[bytes]
    listed: list[bytes]
    candidates_count: int
    next_cursor: int | None


def _page_of_validators(
    view: AnswerView, lister: Lister, cursor: int, limit: int
) -> _ValidatorPage:
    candidates = [candidate.operator for candidate in read_candidates(view)]
    page, listed = candidates[cursor : cursor + limit], list[bytes]()
    has_more = cursor + limit < len(candidates)
    if not has_more:
        skip = max(cursor - len(candidates), 0)
        listed, has_more = lister.validators_beside(frozenset(candidates), skip, limit - len(page))
    return _ValidatorPage(
        operators=page + listed,
        listed=listed,
        candidates_count=len(candidates),
        next_cursor=cursor + limit if has_more else None,
    )


def _validator(view: AnswerView, operator: bytes, voting: _Voting) -> dict[str, object]:
    record = read_validator(view, operator)
    if record is None:
        raise not_found("validator", got=encode_account_id(operator))
    misses = read_misses(view, operator)
    slash = record.slash
    return {
        "operator": operator.hex(),
        "public_key": record.consensus_key.hex(),
        "vrf_key": record.vrf_key.hex(),
        "cosign_key": record.cosign_key.hex(),
        "name": record.name,
        "url": record.url,
        "details": record.details,
        "status": _status(record, voting.validators, view.time_ms),
        "power": str(voting.validators.power_of(record.consensus_key)),
        "tokens": str(record.tokens),
        "shares": str(record.shares),
        "self_bond": str(_self_bond(view, operator, record)),
        "commission_ppm": record.commission_ppm,
        "commission_owed": str(_settled(view, record).commission_owed),
        "jailed_until_ms": record.jailed_until_ms,
        "missed": misses.count_at(view.height, voting.window),
        "missed_window": voting.window,
        "slash": None
        if slash is None
        else {
            "offence_height": slash.offence_height,
            "slashed_height": slash.slashed_height,
            "ppm": slash.ppm,
        },
        **view.item_row(validator_key(operator)),
    }


def delegations_json(
    view: AnswerView,
    lister: Lister,
    account: bytes | None,
    validator: bytes | None,
    cursor: int,
    limit: int,
) -> dict[str, object]:
    """Delegations of an account, to a validator, or of one to the other. Of an account a page
    covers `limit` validators, in the order of `validators_json`."""
    if account is None:
        assert validator is not None, "everybody's delegations are another answer"
        return _delegations_to(view, lister, validator, cursor, limit)
    if validator is not None:
        found = _delegations_of(view, account, [validator] if cursor == 0 else [])
        return view.answer(delegations=found, listed=[], next_cursor=None)
    page = _page_of_validators(view, lister, cursor, limit)
    return view.answer(
        delegations=_delegations_of(view, account, page.operators),
        listed=[operator.hex() for operator in page.listed],
        next_cursor=page.next_cursor,
    )


def _delegations_of(
    view: AnswerView, account: bytes, operators: list[bytes]
) -> list[dict[str, object]]:
    pairs = ((operator, read_delegation(view, operator, account)) for operator in operators)
    return [
        _delegation(view, operator, account, delegation)
        for operator, delegation in pairs
        if delegation is not None
    ]


def _delegations_to(
    view: AnswerView, lister: Lister, operator: bytes, cursor: int, limit: int
) -> dict[str, object]:
    record = read_validator(view, operator)
    page = lister.delegators_of(operator, cursor, limit)
    found, shares = [], 0
    for delegator in page.keys:
        delegation = read_delegation(view, operator, delegator)
        if delegation is None:
            raise InvalidInputError("an account is listed that delegates nothing")
        found.append(_delegation(view, operator, delegator, delegation))
        shares += delegation.shares
    is_whole = cursor == 0 and not page.has_more
    if is_whole and shares != (0 if record is None else record.shares):
        raise InvalidInputError("the delegations do not add up to the validator's shares")
    return view.answer(
        delegations=found,
        listed=[delegator.hex() for delegator in page.keys],
        next_cursor=cursor + limit if page.has_more else None,
    )


def all_delegations_json(
    view: AnswerView, lister: ChainLister, cursor: int, limit: int
) -> dict[str, object]:
    """A page of everybody's. Each is proven; that none is left out is not."""
    page = lister.delegations(cursor, limit)
    found = []
    for pair in page.keys:
        delegation = read_delegation(view, pair[:32], pair[32:])
        assert delegation is not None, "the pair was just found"
        found.append(_delegation(view, pair[:32], pair[32:], delegation))
    return view.answer(delegations=found, next_cursor=cursor + limit if page.has_more else None)


def _delegation(
    view: AnswerView, operator: bytes, delegator: bytes, delegation: Delegation
) -> dict[str, object]:
    record = read_validator(view, operator)
    assert record is not None, "a validator is never deleted"
    settled = _settled(view, record)
    rewards = delegation.shares * (settled.index - delegation.index) >> SCALE_BITS
    return {
        "delegator": delegator.hex(),
        "validator": operator.hex(),
        "amount": str(tokens_of_shares(record, delegation.shares)),
        "shares": str(delegation.shares),
        "free_shares": str(delegation.free_shares),
        "rewards": str(rewards),
        "hops": [
            {"source": h.source.hex(), "until_ms": h.until_ms, "shares": str(h.shares)}
            for h in delegation.hops
        ],
        **view.item_row(delegation_key(operator, delegator)),
    }


def unbonding_json(
    view: AnswerView, account: bytes | None, cursor: int, limit: int
) -> dict[str, object]:
    """A page of the unbonding queue, of an account or all; the cursor is a queue position."""
    head, tail = read_queue(view)
    found: list[dict[str, object]] = []
    position = max(cursor, head)
    end = min(tail, position + ENTRIES_SCANNED_MAX)
    while position < end and len(found) < limit:
        entry = read_unbonding(view, position)
        if entry is not None and account in (None, entry.delegator):
            found.append(_entry(view, position, entry))
        position += 1
    return view.answer(entries=found, next_cursor=position if position < tail else None)


def _entry(view: AnswerView, seq: int, entry: UnbondingEntry) -> dict[str, object]:
    return {
        "seq": seq,
        "delegator": entry.delegator.hex(),
        "validator": entry.operator.hex(),
        "amount": str(compute_released(view, entry)),
        "due_ms": entry.due_ms,
        **view.item_row(unbonding_key(seq)),
    }


def _status(record: ValidatorRecord, active: ValidatorSet, time_ms: int) -> str:
    """active | standby | jailed | may-unjail | tombstoned | retired."""
    if record.is_tombstoned:
        return "tombstoned"
    if record.retired:
        return "retired"
    if record.is_jailed:
        return "jailed" if time_ms < record.jailed_until_ms else "may-unjail"
    return "active" if record.consensus_key in active else "standby"


def _settled(view: AnswerView, record: ValidatorRecord) -> ValidatorRecord:
    return settle(record, read_distribution(view))[0]


def _self_bond(view: AnswerView, operator: bytes, record: ValidatorRecord) -> int:
    own = read_delegation(view, operator, operator)
    return 0 if own is None else tokens_of_shares(record, own.shares)
