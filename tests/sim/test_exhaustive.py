"""Every set of votes that honest validators can reach, in small worlds: no fork, nobody framed."""

from __future__ import annotations

from itertools import combinations, permutations, product

import pytest

from consensus.fork_proof import compute_culprit_power_min
from consensus.justify import verify_justify
from consensus.messages import Propose
from consensus.rules import Rules
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from ledger.errors import InvalidInputError
from tests.sim.crypto import is_valid
from tests.sim.model import Model, State, byzantine_choices, justified_hashes
from tests.sim.mutants import (
    FinalizeAfterNullify,
    FinalizeWithoutOwnNotarize,
    HeadsForStake,
    NullifyAfterFinalize,
)
from tests.unit import consensus_fixture as unit

WORLDS: dict[tuple[int, ...], int] = {
    (1, 1, 1, 1): 6,
    (1, 1, 1, 1, 1): 5,
    (3, 1, 1, 1, 1): 5,
    (10, 5, 3, 2, 1): 4,
    (1, 1, 1, 1, 1, 1, 1): 3,
}
"""Powers, and how many views."""


@pytest.mark.slow
@pytest.mark.parametrize("powers", WORLDS, ids=str)
def test_less_than_a_third_can_not_make_a_fork_or_frame_anyone(powers: tuple[int, ...]) -> None:
    for byzantine in byzantine_choices(powers, below_a_third=True):
        result = Model(powers, byzantine, Rules()).explore(WORLDS[powers])
        print(
            f"powers {powers}, Byzantine {byzantine}, {WORLDS[powers]} views: "
            f"{result.vote_sets} vote sets, {result.states} states"
        )
        assert result.fork is None
        assert not result.framed
        assert result.vote_sets > 1000


@pytest.mark.parametrize("powers", WORLDS, ids=str)
def test_the_model_forks_from_the_power_on_that_two_quorums_share(powers: tuple[int, ...]) -> None:
    forks = 0
    for count in range(1, len(powers)):
        for byzantine in combinations(range(len(powers)), count):
            power = sum(powers[i] for i in byzantine)
            if 3 * power >= 2 * sum(powers) or (len(powers) == 7 and byzantine[0] > 0):
                continue
            model = Model(powers, byzantine, Rules())
            has_forked = model.explore(1).fork is not None
            least = compute_culprit_power_min(model.validators)
            assert power >= least or not has_forked
            if len(set(powers)) == 1:
                assert has_forked is (power >= least)
            forks += has_forked
    assert forks > 0


class UnverifiedJustifyModel(Model):
    """Whatever was ever proposed may be proposed again."""

    def hashes(self, state: State, view: int) -> frozenset[bytes]:
        return justified_hashes(State(True, state.open_hashes, frozenset()), view)


@pytest.mark.parametrize(
    ("rules", "powers", "byzantine"),
    [
        (FinalizeAfterNullify, (1, 1, 1, 1), (0,)),
        (NullifyAfterFinalize, (1, 1, 1, 1), (0,)),
        (FinalizeWithoutOwnNotarize, (1, 1, 1, 1), (0,)),
        (HeadsForStake, (10, 5, 3, 2, 1), (2, 3, 4)),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_each_broken_voting_rule_forks_or_frames_in_the_model(
    rules: type[Rules], powers: tuple[int, ...], byzantine: tuple[int, ...]
) -> None:
    result = Model(powers, byzantine, rules()).explore(3)
    assert result.fork is not None or result.framed


def test_an_unverified_justify_forks_in_the_model() -> None:
    assert UnverifiedJustifyModel((1, 1, 1, 1), (0,), Rules()).explore(3).fork is not None


# --- the model's rule 6 against the real one ---

HEIGHT = unit.FIRST_HEIGHT
A1, B1 = (unit.make_block(view=1, salt=s) for s in (b"a", b"b"))
A2 = unit.make_block(view=2, salt=b"a")
FRESH = unit.make_block(view=3, salt=b"f")
SHOWN = {
    1: (
        unit.certify(VoteKind.NULLIFY, view=1),
        unit.certify(VoteKind.NOTARIZE, A1.hash, view=1),
        unit.certify(VoteKind.NOTARIZE, B1.hash, view=1),
    ),
    2: (
        unit.certify(VoteKind.NULLIFY, view=2),
        unit.certify(VoteKind.NOTARIZE, A1.hash, view=2),
        unit.certify(VoteKind.NOTARIZE, A2.hash, view=2),
    ),
}


def modelled(held: list[Certificate]) -> set[bytes]:
    """What the model lets a leader of view 3 propose with these certificates."""
    state = State()
    for view in (1, 2):
        here = [c for c in held if c.view == view]
        nullified = any(c.kind is VoteKind.NULLIFY for c in here)
        notarized = frozenset(c.block_hash for c in here if c.kind is VoteKind.NOTARIZE)
        state = State(
            state.all_nullified and nullified,
            notarized | (state.open_hashes if nullified else frozenset()),
        )
    found = set(justified_hashes(state, 3))
    fresh = found - {b.hash for b in (A1, B1, A2)}
    return (found - fresh) | ({FRESH.hash} if fresh else set())


def accepted(held: list[Certificate]) -> set[bytes]:
    """What `verify_justify` accepts, with any selection and order of them as the justify."""
    found = set()
    for block, count in product((A1, B1, A2, FRESH), range(3)):
        for justify in permutations(held, count):
            if is_accepted(block, justify):
                found.add(block.hash)
    return found


def is_accepted(block: Block, justify: tuple[Certificate, ...]) -> bool:
    propose = Propose(
        height=HEIGHT, view=3, block=block, justify=justify, signer=bytes(32), signature=bytes(64)
    )
    try:
        verify_justify(propose, unit.SET, unit.CHAIN, is_valid)
    except InvalidInputError:
        return False
    return True


def test_the_model_justifies_what_the_core_justifies() -> None:
    certificates = [*SHOWN[1], *SHOWN[2]]
    for count in range(len(certificates) + 1):
        for held in combinations(certificates, count):
            assert modelled(list(held)) == accepted(list(held))
