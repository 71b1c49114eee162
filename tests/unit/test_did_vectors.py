"""The worked examples of the did:zynk method, whose bytes are frozen: another implementation that
agrees with them agrees with this one. The derivations are written out here with nothing but
hashlib, json and base58, apart from the code under test."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import base58
import pytest

from did.operation import decode_operation, decode_verified, sign_bytes
from did.record import ControlState, Record, control_key, document_key, record_key
from did.verify import Outcome, verify_resolution
from ledger.ed25519 import is_valid_signature
from ledger.validator_set import ValidatorSet
from tests.vectors.did_world import World

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "did_worked_examples.json").read_text()
)
STEPS: list[dict[str, Any]] = VECTORS["steps"]


def _unsigned(operation: str) -> bytes:
    form = json.loads(operation)
    del form["sigs"]
    return json.dumps(form, sort_keys=True, separators=(",", ":")).encode()


def test_did_is_the_multihash_of_the_create_without_signatures() -> None:
    digest = hashlib.sha256(b"zynk/did-op/1\0" + _unsigned(STEPS[0]["operation"])).digest()
    multibase = "z" + base58.b58encode(b"\x12\x20" + digest).decode()
    assert VECTORS["did"] == "did:zynk:" + multibase
    assert STEPS[0]["versionId"] == "0-" + multibase
    assert decode_operation(STEPS[0]["operation"].encode()).did_text == VECTORS["did"]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["versionId"][0])
def test_op_hash_and_signatures_cover_the_jcs_bytes(step: dict[str, Any]) -> None:
    unsigned = _unsigned(step["operation"])
    assert hashlib.sha256(b"zynk/did-op/1\0" + unsigned).hexdigest() == step["opHash"]
    operation = decode_verified(step["operation"].encode())
    assert operation.version_id == step["versionId"]
    assert sign_bytes(operation.unsigned) == b"zynk/sign/did-op/1\0" + unsigned
    for key, signature in operation.signatures:
        assert is_valid_signature(key, b"zynk/sign/did-op/1\0" + unsigned, signature)


def test_next_commits_to_the_key_list_that_the_update_reveals() -> None:
    create, update = (json.loads(step["operation"])["body"]["control"] for step in STEPS[:2])
    del update["next"]
    revealed = json.dumps(update, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(b"zynk/did-next/1\0" + revealed).digest()
    assert create["next"] == "z" + base58.b58encode(b"\x12\x20" + digest).decode()


def test_execution_gives_the_frozen_rows_and_roots() -> None:
    world = World()
    identifier = decode_operation(STEPS[0]["operation"].encode()).did
    keys = {"did": record_key, "did-doc": document_key, "did-control": control_key}
    for step in STEPS:
        assert world.run(step["operation"].encode()) == "ok"
        for domain, row in step["rows"].items():
            found = world.tree.get(keys[domain](identifier))
            assert (None if found is None else found.hex()) == row
        record, control = step["rows"]["did"], step["rows"]["did-control"]
        assert Record.decode(bytes.fromhex(record)).encode().hex() == record
        assert ControlState.decode(bytes.fromhex(control)).encode().hex() == control
        assert world.tree.root.hex() == step["stateRoot"]
    assert {k.hex(): v.hex() for k, v in world.side.items()} == VECTORS["sideRows"]


def test_frozen_answer_verifies_with_the_frozen_validator_set() -> None:
    verdict = verify_resolution(
        VECTORS["answer"],
        did=VECTORS["did"],
        trusted=ValidatorSet.decode(bytes.fromhex(VECTORS["validators"])),
        chain_id=VECTORS["net"],
        max_age_ms=None,
        now_ms=None,
    )
    assert verdict.outcome is Outcome.FOUND
    assert verdict.record is not None
    assert verdict.record.seq == 3
