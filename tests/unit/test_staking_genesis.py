"""The first validators: rows, set, and each defect of a stake refused."""

from __future__ import annotations

import dataclasses

import pytest

from ledger import codec
from ledger.errors import InvalidInputError
from ledger.params import ChainParams
from ledger.pools import BONDED_KEY, POOL_KEYS
from ledger.staking_genesis import GenesisStake, genesis_staking
from ledger.staking_rewards import read_distribution
from ledger.staking_rows import (
    Delegation,
    KeyOwner,
    read_candidates,
    read_consensus_key,
    read_delegation,
    read_validator,
)
from ledger.validator_set import Validator

PARAMS = ChainParams(validators_max=2)


def stake(number: int, bond: int) -> GenesisStake:
    return GenesisStake(
        operator=bytes([number]) * 32,
        consensus_key=bytes([100 + number]) * 32,
        vrf_key=bytes([150 + number]) * 32,
        cosign_key=bytes([200 + number]) * 32,
        name=f"validator {number}",
        commission_ppm=50_000,
        bond=bond,
    )


STAKES = (stake(1, 3_000_000), stake(2, 5_999_999), stake(3, 4_000_000))


def test_the_largest_stakes_are_the_first_set_and_all_are_candidates() -> None:
    staking = genesis_staking(STAKES, PARAMS)
    assert staking.validators.validators == (
        Validator(public_key=bytes([102]) * 32, power=5),
        Validator(public_key=bytes([103]) * 32, power=4),
    )
    listed = read_candidates(staking.rows)
    assert [(c.operator[0], c.power) for c in listed] == [(2, 5), (3, 4), (1, 3)]
    assert staking.pooled == 12_999_999
    assert read_distribution(staking.rows).power == 9


def test_each_stake_is_the_operators_own_delegation() -> None:
    staking = genesis_staking(STAKES, PARAMS)
    for item, power in zip(STAKES, (0, 5, 4), strict=True):
        record = read_validator(staking.rows, item.operator)
        assert record is not None
        assert (record.tokens, record.shares, record.power) == (item.bond, item.bond, power)
        own = read_delegation(staking.rows, item.operator, item.operator)
        assert own == Delegation(shares=item.bond, index=0)
        owner = read_consensus_key(staking.rows, item.consensus_key)
        assert owner == KeyOwner(item.operator, 1, None)


def test_every_pool_has_its_row() -> None:
    staking = genesis_staking(STAKES, PARAMS)
    pools = {key: codec.decode(staking.rows[key], bytes_max=9) for key in POOL_KEYS}
    assert pools == dict.fromkeys(POOL_KEYS, 0) | {BONDED_KEY: staking.pooled}


@pytest.mark.parametrize(
    "change",
    [
        {"bond": 999_999},
        {"bond": 2**64 - 1},
        {"operator": bytes([2]) * 32},
        {"operator": b"short"},
        {"consensus_key": bytes([102]) * 32},
        {"consensus_key": bytes([151]) * 32},
        {"vrf_key": b""},
        {"cosign_key": bytes(33)},
        {"name": "n" * 71},
        {"commission_ppm": 1_000_001},
        {"commission_ppm": -1},
    ],
)
def test_a_defect_is_refused(change: dict[str, object]) -> None:
    broken = dataclasses.replace(STAKES[0], **change)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidInputError):
        genesis_staking((broken, *STAKES[1:]), PARAMS)


def test_the_bond_is_at_least_the_least_self_bond() -> None:
    with pytest.raises(InvalidInputError, match="bond is too small"):
        genesis_staking(STAKES, ChainParams(self_bond_min=3_000_001))


@pytest.mark.parametrize("count", [0, 513])
def test_a_wrong_number_of_stakes_is_refused(count: int) -> None:
    with pytest.raises(InvalidInputError, match="number of stakes"):
        genesis_staking([stake(1, 10**6)] * count, PARAMS)
