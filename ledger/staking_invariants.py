"""What must hold after every block, checked over the whole state: tests and `zynk inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgpack

from ledger.accounts import ACCOUNT_ID_BYTES, ACCOUNT_PREFIX, POOL_PREFIX, parse_account_row
from ledger.errors import InvalidInputError
from ledger.genesis_state import SUPPLY_KEY
from ledger.params import read_params
from ledger.pools import BONDED_KEY, POOL_KEYS, REWARDS_KEY, UNBONDING_KEY, read_amount
from ledger.staking_candidates import TOUCHED_KEY, judge_candidacy, order_candidates
from ledger.staking_record import SCALE_BITS, ValidatorRecord
from ledger.staking_rewards import read_distribution
from ledger.staking_rows import (
    CANDIDATES_KEY,
    CANDIDATES_MAX,
    DELEGATION_PREFIX,
    OPEN_ENTRIES_PREFIX,
    SHORT_KEY,
    UNBONDING_PREFIX,
    VALIDATOR_KEY_PREFIX,
    VALIDATOR_PREFIX,
    Candidate,
    Delegation,
    KeyOwner,
    UnbondingEntry,
    decode_key_owner,
    decode_open_entries,
    read_candidates,
)
from ledger.staking_unbonding import read_queue
from ledger.validator_rows import LAST_KEY, NEXT_KEY, SET_KEY
from ledger.validator_set import ValidatorSet


class StateRows(Protocol):
    """A state that can be walked, such as the tree's tip."""

    def get(self, key: bytes) -> bytes | None: ...
    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StakingReport:
    """What was found sound; amounts in uzynk."""

    supply: int
    bonded: int
    unbonding: int
    rewards: int
    validators: int
    delegations: int


def check_staking(state: StateRows) -> StakingReport:
    """Walks all accounts, validators, delegations and the queue. Raises InvalidInputError, which
    names the first invariant that does not hold."""
    validators = {key: ValidatorRecord.decode(row) for key, row in _rows(state, VALIDATOR_PREFIX)}
    delegations = {
        (key[:ACCOUNT_ID_BYTES], key[ACCOUNT_ID_BYTES:]): Delegation.decode(row)
        for key, row in _rows(state, DELEGATION_PREFIX)
    }
    _check_supply(state)
    _check_shares(validators, delegations)
    bonded = sum(v.tokens for v in validators.values())
    _equal("pool/bonded and the validators' tokens", read_amount(state, BONDED_KEY), bonded)
    _check_queue(state, validators)
    _check_rewards(state, validators, delegations)
    sets = [ValidatorSet.decode(state.get(key) or b"") for key in (LAST_KEY, SET_KEY, NEXT_KEY)]
    owners = _check_keys(state, validators, sets)
    _check_power(state, validators, sets[1], owners)
    if state.get(TOUCHED_KEY) is None:
        _check_candidates(state, validators, sets[2])
    return StakingReport(
        supply=read_amount(state, SUPPLY_KEY),
        bonded=bonded,
        unbonding=read_amount(state, UNBONDING_KEY),
        rewards=read_amount(state, REWARDS_KEY),
        validators=len(validators),
        delegations=len(delegations),
    )


def _rows(state: StateRows, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((key[len(prefix) :], row) for key, row in state.iterate(prefix))


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise InvalidInputError(
            f"staking invariant broken: {what}", expected=str(expected), got=str(found)
        )


def _check_supply(state: StateRows) -> None:
    balances = sum(parse_account_row(row)[0] for _, row in _rows(state, ACCOUNT_PREFIX))
    pools = {POOL_PREFIX + key: row for key, row in _rows(state, POOL_PREFIX)}
    _equal("the pools", sorted(pools), sorted(POOL_KEYS))
    pooled = sum(msgpack.unpackb(row) for row in pools.values())
    _equal("supply = balances + pools", read_amount(state, SUPPLY_KEY), balances + pooled)


def _check_shares(
    validators: dict[bytes, ValidatorRecord],
    delegations: dict[tuple[bytes, bytes], Delegation],
) -> None:
    held = dict.fromkeys(validators, 0)
    for (operator, _), delegation in delegations.items():
        _equal("a delegation's validator is there", operator in validators, True)
        _equal("a delegation has shares", delegation.shares > 0, True)
        _equal("hops come from validators", _sources_known(validators, delegation), True)
        held[operator] += delegation.shares
    for operator, record in validators.items():
        _equal("a validator's shares and its delegations'", record.shares, held[operator])
        _equal("tokens <= shares", record.tokens <= record.shares, True)


def _sources_known(validators: dict[bytes, ValidatorRecord], delegation: Delegation) -> bool:
    return all(hop.source in validators for hop in delegation.hops)


def _check_queue(state: StateRows, validators: dict[bytes, ValidatorRecord]) -> None:
    entries = {
        int.from_bytes(key, "big"): UnbondingEntry.decode(row)
        for key, row in _rows(state, UNBONDING_PREFIX)
    }
    head, tail = read_queue(state)
    _equal("the queue has no gap", sorted(entries), list(range(head, tail)))
    counted: dict[bytes, int] = {}
    for entry in entries.values():
        pair = entry.operator + entry.delegator
        counted[pair] = counted.get(pair, 0) + 1
    noted = {key: decode_open_entries(row) for key, row in _rows(state, OPEN_ENTRIES_PREFIX)}
    _equal("open entries by stake", noted, counted)
    amount = sum(entry.amount for entry in entries.values())
    _equal("pool/unbonding and the queue", read_amount(state, UNBONDING_KEY), amount)
    for entry in entries.values():
        known = entry.operator in validators and (not entry.via or entry.via in validators)
        _equal("an entry's validators are there", known, True)


def _check_rewards(
    state: StateRows,
    validators: dict[bytes, ValidatorRecord],
    delegations: dict[tuple[bytes, bytes], Delegation],
) -> None:
    """Exact: no fraction is lost, whatever the divisions were."""
    distribution = read_distribution(state)
    owed = distribution.dust
    for record in validators.values():
        _equal("a validator's index", record.settled_index <= distribution.index, True)
        owed += record.commission_owed << SCALE_BITS
        owed += record.dust + record.power * (distribution.index - record.settled_index)
    for (operator, _), delegation in delegations.items():
        unpaid = validators[operator].index - delegation.index
        _equal("a delegation's index", unpaid >= 0, True)
        owed += delegation.shares * unpaid
    rewards = read_amount(state, REWARDS_KEY)
    _equal("pool/rewards and all that is owed (scaled)", rewards << SCALE_BITS, owed)


def _check_keys(
    state: StateRows, validators: dict[bytes, ValidatorRecord], sets: list[ValidatorSet]
) -> dict[bytes, KeyOwner]:
    """Each validator holds one key without an end, unless it has retired and the next set does
    without it; and each key in a set is somebody's."""
    owners = {key: decode_key_owner(row) for key, row in _rows(state, VALIDATOR_KEY_PREFIX)}
    present = {owner.operator: key for key, owner in owners.items() if owner.last is None}
    expected = {
        operator: record.consensus_key
        for operator, record in validators.items()
        if not record.retired or record.consensus_key in sets[2]
    }
    _equal("consensus keys in use", present, expected)
    open_ended = sum(owner.last is None for owner in owners.values())
    _equal("one key in use a validator", open_ended, len(expected))
    for operator, record in validators.items():
        owner = owners.get(record.consensus_key)
        _equal("whose a consensus key is", owner and owner.operator, operator)
    for validator_set in sets:
        strangers = [v.public_key for v in validator_set.validators if v.public_key not in owners]
        _equal("keys in a set that are nobody's", strangers, [])
    return owners


def _check_power(
    state: StateRows,
    validators: dict[bytes, ValidatorRecord],
    in_force: ValidatorSet,
    owners: dict[bytes, KeyOwner],
) -> None:
    powers = dict.fromkeys(validators, 0)
    for validator in in_force.validators:
        powers[owners[validator.public_key].operator] += validator.power
    recorded = {operator: record.power for operator, record in validators.items()}
    _equal("validators' power in force", recorded, powers)
    _equal("the sum of powers", read_distribution(state).power, in_force.total_power)


def _check_candidates(
    state: StateRows, validators: dict[bytes, ValidatorRecord], following: ValidatorSet
) -> None:
    params = read_params(state)
    right: dict[bytes, list[Candidate]] = {CANDIDATES_KEY: [], SHORT_KEY: []}
    for operator in validators:
        judged = judge_candidacy(state, operator, params)
        if judged is not None:
            candidate, has_bond = judged
            right[CANDIDATES_KEY if has_bond else SHORT_KEY].append(candidate)
    for key, what in ((CANDIDATES_KEY, "candidates"), (SHORT_KEY, "who lacks self-bond")):
        listed = read_candidates(state, key)
        if len(validators) <= CANDIDATES_MAX:
            _equal(f"the list of {what}", listed, order_candidates(right[key]))
        else:  # one that was dropped comes back when it is touched
            _equal(f"the order of {what}", listed, order_candidates(listed))
            wrong = [c for c in listed if c not in right[key]]
            _equal(f"listed wrongly as {what}", wrong, [])
    listed = read_candidates(state)
    chosen = {c.consensus_key: c.power for c in listed[: params.validators_max]}
    if chosen:
        found = {v.public_key: v.power for v in following.validators}
        _equal("the next set", found, chosen)
