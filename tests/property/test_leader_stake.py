"""Leaders are drawn in proportion to stake: chi-square over 100,000 picks along a chain of seeds.

The seeds come from the beacon's own hashing; SHA-512 of the height stands in for the VRF output,
which is a SHA-512 digest as well. Everything is deterministic: the p-values are the same in every
run, and the bound is one that a fair pick misses once in 1,000 on other seeds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest

from consensus import vrf
from consensus.beacon import next_seed, vrf_alpha
from consensus.leader import leader
from ledger.genesis_state import genesis_seed
from ledger.validator_set import Validator, ValidatorSet
from tests.property.chi_square import p_value, survival

DRAWS = 100_000
P_MIN = 0.001
P_UNFAIR_MAX = 1e-9

STAKES = {
    "four equal": (1, 1, 1, 1),
    "seven equal": (10**6,) * 7,
    "one holds three sevenths": (3, 1, 1, 1, 1),
    "the network of seven": (10, 5, 3, 2, 1, 1, 1),
    "a whale among dust": (2**58, *(2**46 * i for i in range(1, 20))),
    "a hundred, linear": tuple(range(1, 101)),
    "256, falling by 3 %": tuple(10**9 * 97**i // 100**i + 1 for i in range(256)),
}


def set_of(powers: tuple[int, ...]) -> ValidatorSet:
    keys = (hashlib.sha256(b"validator %d" % i).digest() for i in range(len(powers)))
    pairs = zip(keys, powers, strict=True)
    return ValidatorSet.of(Validator(public_key=key, power=power) for key, power in pairs)


def seed_chain(count: int, name: str) -> Iterator[bytes]:
    seed = genesis_seed(hashlib.sha256(name.encode()).digest())
    for height in range(count):
        yield seed
        seed = next_seed(seed, hashlib.sha512(vrf_alpha(seed, height)).digest())


def draw(validators: ValidatorSet, name: str, view: int = 1) -> list[int]:
    """The index of the leader of `view` at each of DRAWS heights."""
    index = validators.index_by_key
    return [index[leader(seed, view, validators, validators)] for seed in seed_chain(DRAWS, name)]


def fit(picks: list[int], weights: list[int]) -> float:
    counts = Counter(picks)
    return p_value([counts[i] for i in range(len(weights))], weights)


def powers_of(validators: ValidatorSet) -> list[int]:
    return [v.power for v in validators.validators]


@pytest.mark.slow
@pytest.mark.parametrize("name", STAKES)
def test_picks_follow_stake(name: str) -> None:
    validators = set_of(STAKES[name])
    picks = draw(validators, name)
    p = fit(picks, powers_of(validators))
    assert p > P_MIN, f"{name}: p = {p:.2g}, {Counter(picks).most_common(8)}"


@pytest.mark.slow
def test_picks_of_a_later_view_follow_stake_too() -> None:
    validators = set_of(STAKES["the network of seven"])
    assert fit(draw(validators, "view 3", view=3), powers_of(validators)) > P_MIN


@pytest.mark.slow
def test_the_next_leader_does_not_depend_on_this_one() -> None:
    """Pairs of (height, next height), and of (view, next view), in 49 cells."""
    validators = set_of(STAKES["the network of seven"])
    powers = powers_of(validators)
    weights = [a * b for a in powers for b in powers]
    picks = draw(validators, "pairs")
    heights = [7 * a + b for a, b in zip(picks[::2], picks[1::2], strict=True)]
    views = [7 * a + b for a, b in zip(picks, draw(validators, "pairs", view=2), strict=True)]
    assert fit(heights, weights) > P_MIN
    assert fit(views, weights) > P_MIN


@pytest.mark.slow
def test_the_test_itself_sees_an_unfair_pick() -> None:
    """The same draws against stakes that are off by 5 % in one validator, and against heads."""
    powers = STAKES["the network of seven"]
    validators = set_of(tuple(100 * power for power in powers))
    picks = draw(validators, "unfair")
    shifted = powers_of(validators)
    shifted[0] = shifted[0] * 105 // 100
    assert fit(picks, shifted) < P_UNFAIR_MAX
    assert fit(picks, [1] * 7) < P_UNFAIR_MAX
    stuck = [pick if i % 20 else 0 for i, pick in enumerate(picks)]
    assert fit(stuck, powers_of(validators)) < P_UNFAIR_MAX


@pytest.mark.slow
def test_a_chain_of_real_proofs_follows_stake() -> None:
    """2,000 heights, each with the proof of the validator that leads it."""
    validators = set_of(STAKES["the network of seven"])
    index = validators.index_by_key
    seed, picks = genesis_seed(b"\x07" * 32), []
    for height in range(1, 2001):
        picks.append(index[leader(seed, 1, validators, validators)])
        proof = vrf.prove(bytes([picks[-1]]) * 32, vrf_alpha(seed, height))
        seed = next_seed(seed, vrf.proof_to_output(proof))
    assert fit(picks, powers_of(validators)) > P_MIN


@pytest.mark.parametrize(
    ("statistic", "degrees", "expected"),
    [
        (3.841, 1, 0.05),
        (5.991, 2, 0.05),
        (16.266, 3, 0.001),
        (18.307, 10, 0.05),
        (30.578, 15, 0.01),
        (124.342, 100, 0.05),
        (149.449, 100, 0.001),
    ],
)
def test_p_values_are_those_of_the_published_table(
    statistic: float, degrees: int, expected: float
) -> None:
    assert survival(statistic, degrees) == pytest.approx(expected, rel=2e-3)
