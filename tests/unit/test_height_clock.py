"""The judge of "the chain goes on while one validator is down" fails a chain that does not."""

from __future__ import annotations

import pytest

from consensus.leader import leader
from tests.e2e.height_clock import (
    absent_leaders,
    compute_gaps,
    compute_longest_s,
    is_going_on,
)
from tests.unit.chain_fixture import GENESIS


def heights(*at_s: float) -> dict[int, float]:
    return dict(enumerate(at_s, start=1))


def test_the_gap_over_the_kill_and_the_open_one_at_the_end_count() -> None:
    gaps, waiting_s = compute_gaps(heights(1, 4, 10, 11, 13), start_s=5, end_s=12)
    assert gaps == {3: 6, 4: 1}
    assert waiting_s == 1


@pytest.mark.parametrize(
    ("at_s", "says"),
    [
        ([9.9, *(10 + i / 2 for i in range(20))], True),
        ([9.9], False),  # stops at the kill
        ([], False),  # never went
        ([9.9, 10.1, 10.2, 10.3], False),  # stops soon after the kill
        ([9.9, *(19 + i / 50 for i in range(10))], False),  # stops for 9 s at the kill, then runs
        ([9.9, 10.5, 17.5, 18, 19.9], False),  # stops for 7 s in between
    ],
)
def test_a_chain_that_stops_does_not_go_on(at_s: list[float], says: bool) -> None:
    assert is_going_on(*compute_gaps(heights(*at_s), start_s=10, end_s=20)) is says


def test_one_slow_height_of_twenty_is_borne_and_two_are_not() -> None:
    def gaps(slow: int) -> dict[int, float]:
        return heights(*[2.0] * slow, *[0.1] * (20 - slow))

    assert is_going_on(gaps(1), 0.0)
    assert not is_going_on(gaps(2), 0.0)
    assert not is_going_on(gaps(1), 2.5), "nor one and the one in work"


def test_the_time_that_a_height_may_take_follows_from_its_absent_leaders() -> None:
    validators = GENESIS.validators
    seed, absent = bytes(32), leader(bytes(32), 2, validators, validators)
    found = absent_leaders(seed, validators, absent, 40)
    led = [leader(seed, view, validators, validators) for view in range(1, 41)]
    assert found == [key == absent for key in led]
    assert found[1]
    for views, limit_s in (
        ([False], 2),
        ([True, False], 3),
        ([True, True, False], 5),
        ([False, True, True, False], 8),
        ([True, True, True, True, True, False], 27),
        ([True, True, True, True, True, True, False], 37),
    ):
        assert compute_longest_s(views) == limit_s
