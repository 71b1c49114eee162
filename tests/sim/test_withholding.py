"""The simulation behind docs/adr/0009-beacon.md: its model is right where it can be computed."""

from __future__ import annotations

from fractions import Fraction

import pytest

from bench.withholding import (
    World,
    compute_share_bound,
    farsighted,
    greedy,
    honest,
    simulate,
    simulate_stake_changes,
)
from consensus.leader import leader
from ledger.genesis_state import genesis_seed

HEIGHTS = 20_000
ERRORS_MAX = 3.5
F = Fraction(3, 10)


@pytest.mark.slow
def test_an_honest_coalition_leads_its_share() -> None:
    found = simulate(World(F, 4), honest, HEIGHTS)
    assert abs(found.share - float(F)) < ERRORS_MAX * found.error
    assert found.withheld == found.timeouts == 0


@pytest.mark.slow
def test_many_keys_and_foresight_reach_the_closed_form_and_no_more() -> None:
    found = simulate(World(F, 64), farsighted, HEIGHTS)
    assert abs(found.share - compute_share_bound(float(F))) < ERRORS_MAX * found.error
    assert found.share > float(F) + ERRORS_MAX * found.error
    assert found.timeouts > found.withheld > 0


@pytest.mark.slow
def test_one_key_has_nothing_to_choose() -> None:
    """Its output is the same in every view, so that all strategies are one."""
    outcomes = {simulate(World(F, 1), strategy, 2000) for strategy in (honest, greedy, farsighted)}
    assert len(outcomes) == 1


def test_options_are_one_a_key_before_the_first_honest_leader() -> None:
    world = World(F, 4, real_vrf=True)
    seed, seen = genesis_seed(b"\x01" * 32), 0
    for height in range(1, 40):
        options = world.options(seed, height)
        views = [option.view for option in options]
        leaders = [leader(seed, view, world.validators, world.validators) for view in views]
        assert len(set(leaders)) == len(views)
        assert world.coalition.issuperset(leaders)
        assert views == sorted(views)
        assert (views[:1] == [1]) == world.leads(seed)
        seen += len(views)
        seed = world.seed_after(seed, height, leader(seed, 1, world.validators, world.validators))
    assert seen > 0


def test_the_closed_form_is_the_stake_when_there_is_nearly_none_to_choose() -> None:
    assert compute_share_bound(0.01) == pytest.approx(0.01, rel=2e-4)
    assert compute_share_bound(1 / 3) == pytest.approx(0.3776, abs=1e-4)


@pytest.mark.slow
def test_dust_captures_the_pick_if_it_counts_soon_and_not_if_it_counts_late() -> None:
    """Why the leader's weights must be older than any run that a coalition can foresee."""
    fraction = Fraction(1, 5)
    assert simulate_stake_changes(fraction, 2, 1000) > 0.9
    assert simulate_stake_changes(fraction, 64, 1000) == pytest.approx(0.2, abs=0.05)
