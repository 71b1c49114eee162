"""What the changing commands work out before they sign."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from did import resolver
from did.build import create_operation, recover_operation, update_operation
from did.control import Control, KeyList
from did.document import encode_document
from did.operation import decode_operation
from ledger.errors import InvalidInputError, UsageError
from node import identity
from node.cli_did import did
from node.keys import save_key
from tests.unit.trust_fixture import trust_of
from tests.vectors.did_world import (
    EXP,
    NET,
    World,
    control,
    document,
    key,
    key_list,
)


@pytest.fixture
def world() -> World:
    return World()


class NodeOfWorld:
    """An RPC client whose node is the world, `page` operations a page."""

    def __init__(self, world: World, page: int = 2) -> None:
        self.world = world
        self.page = page

    async def call(self, method: str, **params: object) -> Any:
        assert method == "did_history"
        cursor = params["cursor"]
        assert isinstance(cursor, int)
        return resolver.history(self.world.view(), str(params["did"]), cursor, self.page)


def create(world: World, ctl: Control, tiers: tuple[KeyList, ...] = ()) -> str:
    operation = create_operation(
        net=NET,
        exp_height=EXP,
        document=document(),
        control=ctl,
        recovery=tiers,
        signers=[key("a")],
    )
    assert world.run(operation) == "ok"
    return decode_operation(operation).did_text


def change(log: identity.DidLog, ctl: Control, signer: str) -> bytes:
    state = log.current()
    return update_operation(
        net=NET,
        exp_height=EXP,
        did=log.did,
        prev=state.head,
        seq=log.record.seq + 1,
        document=state.document,
        control=ctl,
        recovery=state.tiers,
        signers=[key(signer)],
    )


def fetch(world: World, name: str, *, is_checked: bool = True) -> identity.DidLog:
    trust = trust_of(world) if is_checked else None
    return asyncio.run(identity.fetch_log(NodeOfWorld(world), name, trust))


def test_the_log_gives_what_is_in_force_over_several_pages(world: World) -> None:
    name = create(world, control("a"), (key_list("r"),))
    for signer, successor in (("a", "b"), ("b", "c"), ("c", "d")):
        assert world.run(change(fetch(world, name), control(successor), signer)) == "ok"
    log = fetch(world, name)
    assert [item.operation.seq for item in log.operations] == [0, 1, 2, 3]
    assert log.current().control == control("d")
    assert log.current().tiers == (key_list("r"),)
    assert log.state_at(log.hash_of_version("1")).control == control("b")
    assert "all 4 operation(s)" in log.steps[-1]
    assert fetch(world, name, is_checked=False).steps == ()


def test_the_log_shows_what_a_recovery_set_aside(world: World) -> None:
    name = create(world, control("a"), (key_list("r"),))
    assert world.run(change(fetch(world, name), control("thief"), "a")) == "ok"
    log = fetch(world, name)
    state = log.state_at(log.hash_of_version("0"))
    operation = recover_operation(
        net=NET,
        exp_height=EXP,
        did=name,
        prev=state.head,
        seq=2,
        tier=0,
        document=state.document,
        control=control("b"),
        recovery=state.tiers,
        signers=[key("r")],
    )
    assert world.run(operation) == "ok"
    log = fetch(world, name)
    assert [item.is_nullified for item in log.operations] == [False, True, False]
    assert log.current().control == control("b")


def test_an_altered_or_shortened_history_is_refused(world: World) -> None:
    name = create(world, control("a"))
    assert world.run(change(fetch(world, name), control("b"), "a")) == "ok"

    class Liar(NodeOfWorld):
        async def call(self, method: str, **params: object) -> Any:
            page = await super().call(method, **params)
            return {**page, "operations": page["operations"][:-1]}

    with pytest.raises(InvalidInputError):
        asyncio.run(identity.fetch_log(Liar(world), name, trust_of(world)))
    with pytest.raises(InvalidInputError, match="does not exist"):
        fetch(world, "did:zynk:zQmYtUc4iTCbbfVSDNKvtQqrfyezPPnFvE33wFmutw9PBBk")
    with pytest.raises(UsageError):
        fetch(world, "did:web:example.org")


def test_a_commitment_is_found_whatever_the_order_and_threshold() -> None:
    keys = [key(name).public_key for name in "xyz"]
    made = identity.make_key_list(keys, 2, "--next-threshold")
    commitment = made.compute_commitment()
    for given in (keys, keys[::-1], [keys[1], keys[0], keys[2]]):
        assert identity.find_committed(commitment, given, None, "--new") == made
    foreign = KeyList(keys=(keys[2], keys[0], keys[1]), threshold=3)
    found = identity.find_committed(foreign.compute_commitment(), list(foreign.keys), None, "--new")
    assert found == foreign
    with pytest.raises(UsageError, match="not the keys it is committed to"):
        identity.find_committed(commitment, keys[:2], None, "--new")


def test_signers_must_be_enough_and_of_the_list() -> None:
    required = key_list("a", "b", "c", threshold=2)
    assert len(identity.require_signers(required, [key("a"), key("c")], "--control")) == 2
    for names in ("a", "ax", ""):
        with pytest.raises(UsageError, match="may not sign"):
            identity.require_signers(required, [key(name) for name in names], "--control")


def test_several_keys_need_a_threshold_that_fits() -> None:
    keys = [key("a").public_key, key("b").public_key]
    assert identity.make_key_list(keys[:1], None, "--threshold").threshold == 1
    for given, threshold in ((keys, None), (keys, 3), ([keys[0], keys[0]], 1)):
        with pytest.raises(UsageError):
            identity.make_key_list(given, threshold, "--threshold")


def test_swapped_keys_replace_those_that_go_away_and_no_others() -> None:
    a, b, c = (key(name).public_key for name in "abc")
    made = identity.make_document([a, b])
    swapped, count = identity.swap_keys(made, [a, b], [b, c])
    assert count == 1
    assert swapped == {**identity.make_document([c, b])}
    assert identity.swap_keys(made, [c], [a]) == (made, 0)


# --- signing in several places ---


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A create for two of three, signed by one of them."""
    path = tmp_path / "operation.json"
    path.write_bytes(
        create_operation(
            net=NET,
            exp_height=EXP,
            document=document(),
            control=control("a", "b", "c", threshold=2, next_keys=key_list("n")),
            recovery=[key_list("t")],
            signers=[key("a")],
        )
    )
    return path


def sign(path: Path, *more: str) -> Result:
    return CliRunner().invoke(did, ["sign", str(path), *more])


def test_a_saved_operation_is_shown_and_signed_by_another(
    world: World, saved: Path, tmp_path: Path
) -> None:
    operation = decode_operation(saved.read_bytes())
    shown = sign(saved).output
    for text in (NET, operation.did_text, "2 of 3: ", "committed to", "recovery 1", "doc.example"):
        assert text in shown
    assert decode_operation(saved.read_bytes()) == operation
    assert world.run(saved.read_bytes()) == "did/malformed", "one of two"
    save_key(tmp_path / "b.json", key("b"), None)
    by = ("--by", str(tmp_path / "b.json"), "--json")
    assert sign(saved, *by).exit_code == 1, "it asks, and nobody answers"
    assert decode_operation(saved.read_bytes()) == operation
    result = sign(saved, *by, "--yes")
    assert len(json.loads(result.output)["signed_by"]) == 2
    assert decode_operation(saved.read_bytes()).hash == operation.hash
    assert world.run(saved.read_bytes()) == "ok"


def test_an_operation_that_was_altered_on_its_way_is_not_signed(
    saved: Path, tmp_path: Path
) -> None:
    save_key(tmp_path / "b.json", key("b"), None)
    altered = saved.read_bytes().replace(b"doc.example", b"bad.example")
    saved.write_bytes(altered)
    result = sign(saved, "--by", str(tmp_path / "b.json"), "--yes")
    assert isinstance(result.exception, InvalidInputError)
    assert "bad signature" in str(result.exception)
    assert saved.read_bytes() == altered


def test_an_operation_has_room_for_eight_signatures(saved: Path, tmp_path: Path) -> None:
    by = []
    for name in "bcdefghi":
        save_key(tmp_path / f"{name}.json", key(name), None)
        by += ["--by", str(tmp_path / f"{name}.json")]
    assert isinstance(sign(saved, *by, "--yes").exception, UsageError)
    assert sign(saved, *by[2:], "--yes").exit_code == 0


def test_signers_may_be_too_few_only_if_others_follow() -> None:
    required = key_list("a", "b", "c", threshold=2)
    assert identity.require_signers(required, [key("a")], "--control", others_follow=True)
    for names in ("", "x", "ax"):
        with pytest.raises(UsageError, match="may not sign"):
            identity.require_signers(
                required, [key(name) for name in names], "--control", others_follow=True
            )


# --- documents ---


def test_services_are_added_replaced_and_removed() -> None:
    made = identity.make_document([key("a").public_key])
    changed = identity.change_services(made, [("files", "Files", "https://example.org/")])
    encode_document(changed)
    assert changed["service"][0]["id"] == "#files"
    again = identity.change_services(changed, [("#files", "Files", "https://example.net/")])
    assert [s["serviceEndpoint"] for s in again["service"]] == ["https://example.net/"]
    assert identity.change_services(again, [], ["files"]) == made
    with pytest.raises(UsageError):
        identity.change_services(made, [], ["files"])


def test_a_document_file_may_be_stored_resolved_or_a_whole_answer(world: World) -> None:
    name = create(world, control("a"))
    answer = resolver.resolve(world.view(), name)
    for value in (document(), answer["didDocument"], answer):
        assert identity.read_document(json.dumps(value).encode(), name) == document()
    with pytest.raises(InvalidInputError, match="follows from what it holds"):
        identity.read_document(json.dumps(answer).encode(), None)
