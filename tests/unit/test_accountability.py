"""Evidence in blocks: who is convicted, who is not, and only once."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.accountability import (
    EPOCH_HEIGHTS,
    OLDEST_KEY,
    AccountabilityModule,
    epoch_key,
    latest_time_ms,
)
from consensus.evidence import Evidence
from consensus.statement import Statement, StatementKind, statement_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.execution import BlockFacts
from ledger.staking_rows import read_validator
from tests.unit.block_context import BlockWorld
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, NETWORK, PARAMS, key_of

NODE = NETWORK.nodes[1]
KEY, OPERATOR = NODE.validator_key, NODE.operator_key.public_key
N, X, F, P = (
    StatementKind.NOTARIZE,
    StatementKind.NULLIFY,
    StatementKind.FINALIZE,
    StatementKind.PROPOSE,
)
A, B, NONE = b"\1" * 32, b"\2" * 32, b""
PAIRS = [
    ((N, A), (N, B)),
    ((F, A), (F, B)),
    ((F, A), (X, NONE)),
    ((F, A), (N, B)),
    ((P, A), (P, B)),
]


def evidence(
    one: tuple[StatementKind, bytes] = (N, A),
    other: tuple[StatementKind, bytes] = (N, B),
    *,
    height: int = 5,
    key: KeyPair = KEY,
    chain_id: str = CHAIN_ID,
) -> Evidence:
    pair = []
    for kind, block_hash in (one, other):
        statement = Statement(kind=kind, height=height, view=2, block_hash=block_hash)
        pair.append((statement, key.sign(statement_sign_bytes(chain_id, statement))))
    return Evidence.of(key.public_key, pair[0], pair[1])


def new_world(height: int = 9) -> BlockWorld:
    world = BlockWorld(CHAIN_ID, height=height)
    world.rows.update(GENESIS.state_rows())
    return world


def carry(world: BlockWorld, *items: bytes) -> None:
    """A block of `world.height` with these items; refused ones leave the state as it was."""
    world.facts = BlockFacts(proposer=KEY.public_key, evidence=items)
    before = dict(world.rows)
    try:
        AccountabilityModule().begin(world)
    except InvalidInputError:
        world.restore(before)
        raise


@pytest.mark.parametrize("pair", PAIRS)
def test_every_contradicting_pair_is_punished(
    pair: tuple[tuple[StatementKind, bytes], tuple[StatementKind, bytes]],
) -> None:
    world = new_world()
    before = read_validator(world.state, OPERATOR)
    carry(world, evidence(*pair).encode())
    record = read_validator(world.state, OPERATOR)
    assert record is not None
    assert before is not None
    assert record.slash is not None
    assert record.is_tombstoned
    assert (record.slash.offence_height, record.slash.slashed_height) == (5, 9)
    burned = before.tokens * PARAMS.slash_double_sign_ppm // 1_000_000
    assert record.tokens == before.tokens - burned
    assert [event.type for event in world.events].count("stake.slashed") == 1


def test_an_offender_is_punished_once_whatever_else_it_signed() -> None:
    world = new_world()
    carry(world, evidence().encode())
    rows = dict(world.rows)
    for more in (evidence(), evidence((F, A), (X, NONE)), evidence(height=6)):
        with pytest.raises(InvalidInputError, match="punished before"):
            carry(world, more.encode())
        assert world.rows == rows
    carry(world, evidence(height=4).encode())  # what left between 4 and 5 has not paid yet
    record = read_validator(world.state, OPERATOR)
    assert record is not None
    assert record.slash is not None
    assert (record.slash.offence_height, record.slash.slashed_height) == (4, 9)
    assert [event.type for event in world.events].count("stake.slashed") == 1
    with pytest.raises(InvalidInputError, match="punished before"):
        carry(world, evidence((F, A), (F, B), height=4).encode())
    fresh = new_world()
    with pytest.raises(InvalidInputError, match="punished before"):
        carry(fresh, evidence().encode(), evidence((F, A), (F, B)).encode())


def test_forged_stale_and_framing_evidence_is_refused() -> None:
    good = evidence()
    bad = {
        "a stranger": evidence(key=key_of(3)),
        "another chain": evidence(chain_id="other-1"),
        "a later height": evidence(height=10),
        "height 0": evidence(height=0),
        "first signature": dataclasses.replace(good, first_signature=bytes(64)),
        "second signature": dataclasses.replace(good, second_signature=good.first_signature),
        "another signer": dataclasses.replace(
            good, signer=NETWORK.nodes[2].validator_key.public_key
        ),
    }
    for what, item in bad.items():
        world = new_world()
        rows = dict(world.rows)
        with pytest.raises(InvalidInputError):
            carry(world, item.encode())
        assert world.rows == rows, what


def test_a_legal_pair_is_no_evidence() -> None:
    """N with X in one view is what an honest validator does when its view dies."""
    with pytest.raises(InvalidInputError, match="no contradiction"):
        Evidence.decode(evidence((N, A), (X, NONE)).encode())


def test_evidence_is_good_up_to_its_window_and_not_after() -> None:
    world = new_world(height=EPOCH_HEIGHTS)
    start_ms = world.time_ms
    carry(world)  # notes the time of the epoch after height 5
    for ahead_ms, is_good in (
        (PARAMS.evidence_window_ms, True),
        (PARAMS.evidence_window_ms + 1, False),
    ):
        world.height, world.time_ms = EPOCH_HEIGHTS + 3, start_ms + ahead_ms
        rows = dict(world.rows)
        if is_good:
            carry(world, evidence().encode())
            world.restore(rows)
        else:
            with pytest.raises(InvalidInputError, match="too old"):
                carry(world, evidence().encode())


def test_times_are_kept_for_the_window_and_let_go_after_it() -> None:
    world = new_world()
    day_ms = 24 * 3600 * 1000
    for epoch in range(1, 60):
        world.height, world.time_ms = epoch * EPOCH_HEIGHTS, world.time_ms + day_ms
        carry(world)
    kept = [e for e in range(1, 60) if world.state.get(epoch_key(e)) is not None]
    assert kept == list(range(59 - 20, 60)), "twenty days' worth, and today"
    assert int.from_bytes(world.rows[OLDEST_KEY], "big") == kept[0]
    assert latest_time_ms(world.state, 5) == 0, "older than anything kept"
    assert latest_time_ms(world.state, 59 * EPOCH_HEIGHTS + 1) is None, "less than an epoch ago"
    assert latest_time_ms(world.state, 57 * EPOCH_HEIGHTS + 1) == world.time_ms - day_ms
