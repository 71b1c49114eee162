"""Counting, leader choice and the guard's window against naive twins."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.guard import GuardWindow
from consensus.leader import leader
from consensus.statement import Statement, StatementKind, is_conflict
from consensus.tally import HASHES_MAX, Tally
from ledger.certificate import VoteKind
from ledger.errors import UsageError
from ledger.validator_set import Validator, ValidatorSet

KEYS = [bytes([i]) * 32 for i in range(1, 6)]
POWERS = (10, 5, 3, 2, 1)
SET = ValidatorSet.of(Validator(public_key=k, power=p) for k, p in zip(KEYS, POWERS, strict=True))
STRANGER = b"\x99" * 32
HASHES = [b"\xa0" * 32, b"\xb0" * 32, b"\xc0" * 32]

statements = st.builds(
    lambda kind, view, h: Statement(
        kind=kind, height=9, view=view, block_hash=b"" if kind is StatementKind.NULLIFY else h
    ),
    st.sampled_from(StatementKind),
    st.integers(1, 2),
    st.sampled_from(HASHES),
)


@settings(max_examples=80, deadline=None, database=None)
@given(st.lists(st.tuples(st.sampled_from([*KEYS, STRANGER]), statements), max_size=60))
def test_the_tally_counts_and_accuses_like_a_naive_one(
    said: list[tuple[bytes, Statement]],
) -> None:
    tally, accused = Tally(9, SET), set()
    naive: list[tuple[bytes, Statement]] = []
    for signer, s in said:
        accepts = tally.accepts(s.kind, s.view, s.block_hash, signer)
        same = [x for k, x in naive if k == signer and (x.kind, x.view) == (s.kind, s.view)]
        assert accepts == (signer in KEYS and s not in same and len(same) < HASHES_MAX)
        if accepts:
            naive.append((signer, s))
            evidence = tally.add(s.kind, s.view, s.block_hash, signer, b"s" * 64)
            if evidence is not None:
                assert is_conflict(evidence.first, evidence.second)
                accused.add((evidence.signer, s.view))
    for kind in VoteKind:
        for view in (1, 2):
            for block_hash in (b"", *HASHES):
                voters = {
                    k
                    for k, x in naive
                    if (int(x.kind), x.view, x.block_hash) == (int(kind), view, block_hash)
                }
                assert tally.power(kind, view, block_hash) == sum(map(SET.power_of, voters))
                assert set(tally.signatures(kind, view, block_hash)) == voters
    assert accused == {
        (k, x.view) for k, x in naive for j, y in naive if k == j and is_conflict(x, y)
    }


@settings(max_examples=80, deadline=None, database=None)
@given(st.lists(statements, max_size=40))
def test_the_guard_never_holds_a_contradiction(asked: list[Statement]) -> None:
    window = GuardWindow()
    for statement in asked:
        held = window.records()
        is_refused = any(
            is_conflict(h, statement)
            or (
                h.view == statement.view
                and h.kind is StatementKind.NULLIFY
                and statement.kind is StatementKind.NOTARIZE
            )
            for h in held
        )
        if is_refused and statement not in held:
            with pytest.raises(UsageError):
                window.check([statement])
            assert window.records() == held
        else:
            window.add(window.check([statement]))
    kept = window.records()
    assert not any(is_conflict(a, b) for a in kept for b in kept)


def test_leaders_come_up_as_often_as_their_stake_says() -> None:
    rounds = 21_000
    counts = Counter(leader(b"\x05" * 32, view, SET, SET) for view in range(1, rounds + 1))
    for key, power in zip(KEYS, POWERS, strict=True):
        expected = rounds * power / sum(POWERS)
        assert abs(counts[key] - expected) < 5 * expected**0.5


def test_the_leader_depends_on_seed_view_and_set_alone() -> None:
    again = ValidatorSet.of(reversed(SET.validators))
    picks = [leader(b"\x05" * 32, v, SET, SET) for v in range(1, 50)]
    assert picks == [leader(b"\x05" * 32, v, again, again) for v in range(1, 50)]
    assert picks != [leader(b"\x06" * 32, v, SET, SET) for v in range(1, 50)]
