"""What an accepted proposal changes: parameters, or the scheduled upgrade.

A change is judged when it is proposed and again before it is made, by the state of then. The codes
are in the table of `ledger.governance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from ledger.accounts import StateReader
from ledger.errors import InvalidInputError
from ledger.execution import StateView, TxFailure
from ledger.governance_proposal import CancelChange, Change, ParamsChange, UpgradeChange
from ledger.params import PARAMS_KEY, ChainParams, read_params
from ledger.params_vote import check_voted_together, check_voted_values
from ledger.staking_record import tokens_of_shares
from ledger.staking_rows import read_candidates, read_delegation, read_validator
from ledger.upgrade import (
    NOTICE_HEIGHTS_MIN,
    Upgrade,
    UpgradeState,
    read_upgrade_state,
    write_upgrade_state,
)

PROPOSE_WEIGHT = 64
"""Of `gov/propose`. It is tallied later: up to 512 validators are looked at."""


def judge_change(state: StateReader, height: int, change: Change) -> None:
    """Raise TxFailure unless `change` could be made in a block at `height`."""
    match change:
        case ParamsChange():
            before = read_params(state)
            after = compute_params(before, change)
            if after.self_bond_min > before.self_bond_min:
                _judge_self_bond(state, after.self_bond_min)
        case UpgradeChange():
            _judge_upgrade(height, change.upgrade, read_upgrade_state(state).at(height))
        case CancelChange():
            scheduled = read_upgrade_state(state).scheduled
            if scheduled is None or scheduled.height != change.height:
                raise TxFailure(
                    "gov/not-scheduled",
                    "no upgrade is scheduled for that height",
                    expected="none" if scheduled is None else str(scheduled.height),
                    got=str(change.height),
                )
        case _:
            assert_never(change)


def _judge_upgrade(height: int, wanted: Upgrade, current: Upgrade) -> None:
    first = height + NOTICE_HEIGHTS_MIN
    if wanted.height < first:
        raise TxFailure(
            "gov/upgrade-too-near",
            "the upgrade leaves operators no time",
            expected=f"height >= {first}",
            got=str(wanted.height),
        )
    if wanted.version <= current.version:
        raise TxFailure(
            "gov/upgrade-version",
            "the version is not above the one in force",
            expected=f"more than {current.version}",
            got=str(wanted.version),
        )


def make_change(state: StateView, height: int, change: Change) -> None:
    """Make what `judge_change` has let pass at `height`."""
    match change:
        case ParamsChange():
            state.put(PARAMS_KEY, compute_params(read_params(state), change).encode())
        case UpgradeChange():
            _schedule(state, height, change.upgrade)
        case CancelChange():
            _schedule(state, height, None)
        case _:
            assert_never(change)


def _schedule(state: StateView, height: int, upgrade: Upgrade | None) -> None:
    current = read_upgrade_state(state).at(height)
    write_upgrade_state(state, UpgradeState(current=current, scheduled=upgrade))


def compute_params(params: ChainParams, change: ParamsChange) -> ChainParams:
    """The parameters with all of a change. Raises TxFailure `gov/bad-params`."""
    values = dict(change.values)
    try:
        check_voted_values(change.values)
        after = replace(params, **values)
        check_voted_together(after, values)
        return after
    except InvalidInputError as error:
        raise TxFailure(
            "gov/bad-params", error.message, expected=error.expected, got=error.got
        ) from error


def _judge_self_bond(state: StateReader, self_bond_min: int) -> None:
    """Raise TxFailure unless more than 2/3 of the candidates' power has that much of its own:
    without candidates nobody's vote would count, and no vote could undo it."""
    bonds = sorted(_own_bonds(state), reverse=True)
    total, left = sum(power for _, power in bonds), 0
    for own, power in bonds:
        left += power
        if 3 * left > 2 * total:
            if own < self_bond_min:
                raise TxFailure(
                    "gov/bad-params",
                    "chain parameter self_bond_min would leave too little of the stake active",
                    expected=f"at most {own}",
                    got=str(self_bond_min),
                )
            return


def _own_bonds(state: StateReader) -> Iterator[tuple[int, int]]:
    """(what its operator bonded, power) of each candidate."""
    for candidate in read_candidates(state):
        record = read_validator(state, candidate.operator)
        own = read_delegation(state, candidate.operator, candidate.operator)
        assert record is not None, "a candidate has its record"
        yield 0 if own is None else tokens_of_shares(record, own.shares), candidate.power
