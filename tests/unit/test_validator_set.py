"""Order, bounds and the quorum of a validator set."""

from __future__ import annotations

import itertools

import pytest

from ledger import codec
from ledger.errors import InvalidInputError
from ledger.validator_set import TOTAL_POWER_MAX, VALIDATORS_MAX, Validator, ValidatorSet


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def set_of(*powers: int) -> ValidatorSet:
    return ValidatorSet.of(
        Validator(public_key=key(i), power=power) for i, power in enumerate(powers)
    )


def test_order_is_power_descending_then_key() -> None:
    validators = [Validator(public_key=key(k), power=p) for k, p in ((3, 1), (1, 1), (2, 9))]
    for order in itertools.permutations(validators):
        found = ValidatorSet.of(order)
        assert [v.public_key for v in found.validators] == [key(2), key(1), key(3)]
    assert found.index_by_key == {key(2): 0, key(1): 1, key(3): 2}


def test_a_set_round_trips_and_its_hash_is_frozen() -> None:
    found = set_of(5, 7, 7, 1)
    assert ValidatorSet.decode(found.encoded) == found
    assert set_of(5, 7, 7, 1).hash == found.hash
    assert found.hash.hex() == "1c67a85e7eb3cd6e90b14ff2a60b41c7513490bf7b9408eadb7a24d4c4895548"


def test_another_order_in_the_bytes_is_refused() -> None:
    items = codec.decode(set_of(1, 2, 3).encoded, bytes_max=999)
    for order in itertools.permutations(items):
        if list(order) != items:
            with pytest.raises(InvalidInputError, match="order"):
                ValidatorSet.decode(codec.encode(list(order)))


@pytest.mark.parametrize(
    "validators",
    [
        [],
        [Validator(public_key=key(1), power=0)],
        [Validator(public_key=key(1), power=-1)],
        [Validator(public_key=bytes(31), power=1)],
        [Validator(public_key=key(1), power=1), Validator(public_key=key(1), power=2)],
        [Validator(public_key=key(1), power=TOTAL_POWER_MAX + 1)],
        [Validator(public_key=key(i), power=TOTAL_POWER_MAX // 2 + 1) for i in range(2)],
        [Validator(public_key=key(i), power=1) for i in range(VALIDATORS_MAX + 1)],
    ],
)
def test_a_set_that_breaks_a_rule_is_refused(validators: list[Validator]) -> None:
    with pytest.raises(InvalidInputError):
        ValidatorSet.of(validators)


def test_the_largest_set_round_trips() -> None:
    power = TOTAL_POWER_MAX // VALIDATORS_MAX
    found = ValidatorSet.of(
        Validator(public_key=key(2**255 + i), power=power) for i in range(VALIDATORS_MAX)
    )
    assert ValidatorSet.decode(found.encoded) == found
    assert 3 * found.total_power < 2**63


@pytest.mark.parametrize(
    ("powers", "least"),
    [
        ((1,), 1),
        ((1, 1), 2),
        ((1, 1, 1), 3),
        ((1, 1, 1, 1), 3),
        ((1,) * 7, 5),
        ((10, 5, 3, 2, 1), 15),
    ],
)
def test_a_quorum_is_more_than_two_thirds(powers: tuple[int, ...], least: int) -> None:
    found = set_of(*powers)
    assert found.total_power == sum(powers)
    assert next(p for p in range(found.total_power + 1) if found.has_quorum(p)) == least


def test_two_quorums_share_more_than_a_third_at_the_largest_power() -> None:
    found = ValidatorSet.of([Validator(public_key=key(1), power=TOTAL_POWER_MAX)])
    least = 2 * TOTAL_POWER_MAX // 3 + 1
    assert found.has_quorum(least)
    assert not found.has_quorum(least - 1)
    assert 3 * (2 * least - TOTAL_POWER_MAX) > TOTAL_POWER_MAX


def test_a_stranger_has_no_power() -> None:
    found = set_of(5, 7)
    assert (found.power_of(key(1)), found.power_of(key(9))) == (7, 0)
    assert key(1) in found
    assert key(9) not in found
    assert len(found) == 2
