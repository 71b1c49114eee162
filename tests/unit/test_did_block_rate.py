"""Several operations of a DID in one block, where the chain's parameters allow it: how many, and
what each question about that block is answered with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from did import resolver
from did.operation import decode_operation
from did.resolution_options import read_version_query
from did.verify import verify_resolution
from did.verify_history import verify_history
from did.version import format_time
from ledger.params import ChainParams
from tests.unit.test_did_handler import WINDOW_MS, Owner
from tests.vectors.did_world import NET, VALIDATORS, World, control, key_list

LIMIT = 3


@pytest.fixture
def world() -> World:
    return World(ChainParams(dispute_window_ms=WINDOW_MS, did_ops_per_block_max=LIMIT))


@pytest.fixture
def owner(world: World) -> Owner:
    return Owner(world, control("a"), recovery=[key_list("t")]).born()


def _updates(owner: Owner, count: int) -> list[bytes]:
    """Each after the one before it."""
    made = []
    for _ in range(count):
        made.append(owner.update("a", recovery=[key_list("t")], doc=f"doc{len(owner.heads)}"))
        owner.heads.append(decode_operation(made[-1]).hash)
    return made


def test_a_block_takes_as_many_as_the_parameter_says(world: World, owner: Owner) -> None:
    updates = _updates(owner, 2 * LIMIT + 1)
    assert world.block(updates[: LIMIT + 1]) == ["ok"] * LIMIT + ["did/rate-block"]
    assert owner.record().seq == LIMIT
    assert world.block(updates[LIMIT : LIMIT + 1]) == ["ok"], "another block, another count"
    assert world.block(updates[LIMIT + 1 :]) == ["ok"] * LIMIT


def test_the_create_counts_as_well(world: World) -> None:
    fresh = Owner(world, control("a"))
    codes = ["ok"] * LIMIT + ["did/rate-block"]
    assert world.block([fresh.create, *_updates(fresh, LIMIT)]) == codes


def test_a_lower_parameter_counts_from_the_next_block(world: World, owner: Owner) -> None:
    world.set_params(ChainParams(dispute_window_ms=WINDOW_MS))
    assert world.block(_updates(owner, 2)) == ["ok", "did/rate-block"]


def test_a_refused_operation_does_not_count(world: World, owner: Owner) -> None:
    stranger = owner.update("b")
    assert world.block([stranger, *_updates(owner, LIMIT)]) == ["did/not-authorised"] + ["ok"] * 3


def test_a_recovery_sets_aside_an_operation_of_its_own_block(world: World, owner: Owner) -> None:
    stolen = _updates(owner, 1)
    rescue = owner.recover("t", back=1)
    assert world.block([*stolen, rescue]) == ["ok", "ok"]
    record, view = owner.record(), world.view()
    assert record.head == decode_operation(rescue).hash
    lines = resolver.history(view, owner.did)["operations"]
    assert [line["nullifiedBy"] for line in lines] == [None, 2, None]
    verify_history(json.loads(json.dumps(lines)), record)


def test_questions_about_a_block_with_several_operations(world: World, owner: Owner) -> None:
    before_ms = world.time_ms
    assert world.block(_updates(owner, LIMIT)) == ["ok"] * LIMIT
    height, time_ms = world.height, world.time_ms
    world.block(_updates(owner, 1))
    world.block([])
    lines = resolver.history(world.view(), owner.did)["operations"]
    versions = [line["versionId"] for line in lines]
    assert len(versions) == LIMIT + 2

    def ask(
        version_id: str | None = None,
        version_time: str | None = None,
        as_of_height: int | None = None,
    ) -> str:
        query = read_version_query(version_id, version_time, as_of_height)
        answer: dict[str, Any] = resolver.resolve(world.view(), owner.did, query)
        shown = json.loads(json.dumps(answer))
        verify_resolution(
            shown, did=owner.did, query=query, trusted=VALIDATORS, chain_id=NET,
            max_age_ms=None, now_ms=None,
        )  # fmt: skip
        found: str = shown["didDocumentMetadata"]["versionId"]
        return found

    assert ask(version_time=format_time(before_ms)) == versions[0]
    assert ask(version_time=format_time(time_ms)) == versions[LIMIT], "the last of its block"
    assert ask(as_of_height=height - 1) == versions[0]
    assert ask(as_of_height=height) == versions[LIMIT]
    for version in versions:
        assert ask(version_id=version) == version
