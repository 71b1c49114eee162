"""`audit_checkpoint`: what a node answers, its reader verifies from the genesis set alone; each lie
is found."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.checkpoint import Checkpoint, log_note_key
from audit.note import Note
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.validator_set import Validator, ValidatorSet
from node.api_log import checkpoint_json, read_published
from rpc.methods_audit import AUDIT_METHODS
from rpc.params import bytes_of_text, text_of_bytes
from rpc.results import mismatches
from tests.unit.chain_fixture import CHAIN_ID, GENESIS
from tests.unit.cosigning_world import ORIGIN, CosigningNode, CosigningWorld
from tests.unit.virtual_time import run_virtual

METHOD = next(method for method in AUDIT_METHODS if method.name == "audit_checkpoint")
TRUSTED = GENESIS.validators
Answer = dict[str, Any]


def answers_of(
    folder: Path, names: str, check: Callable[[CosigningWorld, CosigningNode], None]
) -> None:
    async def body() -> None:
        world = CosigningWorld(folder)
        try:
            node = world.start(names)[0]
            world.commit(3)
            await asyncio.sleep(2)
            check(world, node)
        finally:
            await world.stop()

    run_virtual(body())


def ask(node: CosigningNode, trusted_height: int = 0) -> Answer:
    proof = node.chain.finality(node.chain.height, trusted_height)
    answer: Answer = checkpoint_json(node.chain, node.cosigning, proof, trusted_height)
    assert mismatches(answer, METHOD.result) == []
    return answer


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    found: list[Answer] = []
    answers_of(
        tmp_path_factory.mktemp("log"), "abcd", lambda _, node: found.append(ask(node)["published"])
    )
    return found[0]


def test_answer_is_verified_from_the_trusted_set(published: Answer) -> None:
    found = read_published(published, TRUSTED, CHAIN_ID)
    assert found.cosigned.has_quorum
    assert found.cosigned.power == found.cosigned.total_power == int(published["power"])
    assert found.header.audit_size == published["tree_size"] == 3
    assert len(found.cosigned.time_s_by_operator) == 4
    assert {c["time_s"] for c in published["cosigners"]} == set(
        found.cosigned.time_s_by_operator.values()
    )


def test_older_checkpoint_is_shown_under_its_own_height(tmp_path: Path) -> None:
    def check(world: CosigningWorld, node: CosigningNode) -> None:
        world.commit(0)
        same = ask(node)
        assert same["published"]["height"] == same["height"] == 2  # the same log, a newer block
        world.commit(1)
        answer = ask(node)
        assert (answer["height"], answer["tree_size"]) == (3, 4)
        assert (answer["published"]["height"], answer["published"]["tree_size"]) == (1, 3)
        assert read_published(answer["published"], TRUSTED, CHAIN_ID).header.height == 1
        assert ask(node, trusted_height=1)["published"]["height"] == 1
        assert ask(node, trusted_height=2)["published"] is None

    answers_of(tmp_path, "abcd", check)


def test_missing_quorum_is_told(tmp_path: Path) -> None:
    def check(_: CosigningWorld, node: CosigningNode) -> None:
        answer = ask(node)["published"]
        assert not answer["quorum"]
        found = read_published(answer, TRUSTED, CHAIN_ID)
        assert not found.cosigned.has_quorum
        assert [c["time_s"] is not None for c in answer["cosigners"]].count(True) == 2

    answers_of(tmp_path, "ab", check)


def _other_note(answer: Answer, **fields: object) -> str:
    note = Note.decode(answer["note"])
    checkpoint = Checkpoint(
        **{"origin": ORIGIN, "tree_size": 3, "root_hash": b"x" * 32, **fields}  # type: ignore[arg-type]
    )
    return Note(text=checkpoint.body(), signatures=note.signatures[:1]).encode()


def _flip(text: str, at: int) -> str:
    data = bytearray(bytes_of_text(text))
    data[at] ^= 1
    return text_of_bytes(bytes(data))


LIES: dict[str, Callable[[Answer], object]] = {
    "another log's root": lambda a: a.update(note=_other_note(a)),
    "another size": lambda a: a.update(note=_other_note(a, tree_size=2)),
    "another chain's log": lambda a: a.update(note=_other_note(a, origin="zynk.log/x")),
    "a cosignature changed": lambda a: a.update(note=_changed_line(a["note"], -1)),
    "no note": lambda a: a.pop("note"),
    "a note that is none": lambda a: a.update(note="hello"),
    "another finality": lambda a: a.update(finality=_flip(a["finality"], -1)),
    "another validator set": lambda a: a.update(
        validators=text_of_bytes(
            ValidatorSet.of([Validator(public_key=b"v" * 32, power=1)]).encoded
        )
    ),
    "a row left out": lambda a: a["rows"].pop(),
    "a row changed": lambda a: a["rows"][-1].update(value=_flip(a["rows"][-1]["value"], -1)),
    "a log key of another name": lambda a: a.update(
        log_key=log_note_key("other", KeyPair.from_seed(b"k" * 32).public_key).vkey
    ),
    "no rows": lambda a: a.update(rows=7),
}


def _changed_line(note: str, index: int) -> str:
    lines = note.splitlines()
    dash, name, data = lines[index].split(" ")
    changed = bytearray(base64.b64decode(data))
    changed[20] ^= 1
    lines[index] = f"{dash} {name} {base64.b64encode(changed).decode()}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("lie", LIES)
def test_lie_in_the_answer_is_found(published: Answer, lie: str) -> None:
    answer = {**published, "rows": [dict(row) for row in published["rows"]]}
    LIES[lie](answer)
    with pytest.raises(InvalidInputError):
        read_published(answer, TRUSTED, CHAIN_ID)


def test_another_trusted_set_accepts_nothing(published: Answer) -> None:
    others = ValidatorSet.of([Validator(public_key=b"v" * 32, power=1)])
    with pytest.raises(InvalidInputError):
        read_published(published, others, CHAIN_ID)
