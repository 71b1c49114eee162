"""The bounds of a vote on parameters: what is refused where, and that nothing allowed is final."""

from __future__ import annotations

import pytest

from ledger.errors import InvalidInputError
from ledger.execution import TxFailure
from ledger.governance import ProposeHandler
from ledger.governance_change import compute_params, judge_change
from ledger.governance_proposal import Choice, ParamsChange, ProposeBody, Status
from ledger.params import PARAM_NAMES, ChainParams, read_params
from ledger.params_vote import VOTE_BOUNDS
from ledger.staking_record import POWER_UNIT
from tests.unit.governance_world import PARAMS, World

YES = Choice.YES


def params_change(**values: int) -> ParamsChange:
    return ParamsChange(values=tuple(values.items()))


@pytest.mark.parametrize("name", PARAM_NAMES)
def test_no_mempool_takes_a_value_that_a_vote_can_not_set_and_the_refusal_says_what_it_can(
    name: str,
) -> None:
    low, high = VOTE_BOUNDS[name]
    for value in {max(low - 1, 0), high + 1} - {low}:
        body = ProposeBody(title="t", summary="", change=params_change(**{name: value}))
        with pytest.raises(InvalidInputError, match=name) as caught:
            ProposeHandler().check(body.encode())
        assert caught.value.expected == f"{low}..{high}"
        with pytest.raises(TxFailure) as failed:  # one that was stored before
            compute_params(PARAMS, params_change(**{name: value}))
        assert failed.value.code == "gov/bad-params"
    for value in (low, high):
        body = ProposeBody(title="t", summary="", change=params_change(**{name: value}))
        ProposeHandler().check(body.encode())


EXTREMES = [(name, bound) for name in PARAM_NAMES for bound in VOTE_BOUNDS[name]]


@pytest.mark.parametrize(("name", "value"), EXTREMES)
def test_whatever_a_vote_sets_another_vote_can_set_back(name: str, value: int) -> None:
    world = World()
    change = params_change(**{name: value})
    try:
        compute_params(PARAMS, change)
        judge_change(world.state, 1, change)
    except TxFailure:
        return  # in contradiction with the others: refused as a whole
    assert world.propose(change) == ""
    for operator in range(4):
        world.vote(operator, operator, YES)
    assert world.finish().status is Status.PASSED
    params = read_params(world.state)
    assert getattr(params, name) == value
    back = params_change(**{name: getattr(ChainParams(), name)})
    assert world.propose(back, payer=8) == ""
    body = ProposeBody(title="t", summary="", change=back).encode()
    assert params.compute_fee_min(len(body) + 200) <= 10 * 10**6, "uzynk"
    assert ProposeHandler().weight_of(body) <= params.block_weight_max
    for operator in range(4):
        world.vote(operator, operator, YES, 2)
    world.end_block(after_ms=params.gov_voting_ms)
    world.end_block()
    assert world.proposal(2).status is Status.PASSED


def test_the_self_bond_can_rise_only_as_far_as_leaves_two_thirds_active() -> None:
    world = World()  # 40, 30, 20 and 1 of 91: the first two hold 70, more than 2/3
    allowed = 30 * POWER_UNIT
    assert world.propose(params_change(self_bond_min=allowed + 1)) == "gov/bad-params"
    with pytest.raises(TxFailure) as caught:
        judge_change(world.state, 1, params_change(self_bond_min=allowed + 1))
    assert caught.value.expected == f"at most {allowed}"
    assert world.propose(params_change(self_bond_min=allowed)) == ""
    world.delegate(8, 0, 100 * POWER_UNIT)  # now the first alone
    assert world.propose(params_change(self_bond_min=allowed + 1)) == ""
    assert world.propose(params_change(self_bond_min=40 * POWER_UNIT + 1)) == "gov/bad-params"
