"""The method specification is true: its worked examples byte for byte, its limits, its refusals.

Hashes, DIDs and signatures are worked out here with hashlib, json and base58 from the rules as the
text states them, and executed on the real handler. No example goes unread.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import base58
import pytest

from did import control, document, handler, multikey, operation, record, resolver, strict_json
from did.verify import verify_resolution
from ledger import codec
from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.params import ChainParams
from tests.vectors.did_world import NET, VALIDATORS, World

TEXT = (Path(__file__).parents[2] / "docs" / "did-method-zynk.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example ([a-z-]+) -->\n```\n(.*?)\n```\n", TEXT, re.DOTALL))
DID = EXAMPLES["did"]
OPERATIONS = ("create", "update", "deactivate", "recover")
SEEDS = dict(line.split() for line in EXAMPLES["seeds"].splitlines())
SIGNERS = {"create": ["a"], "update": ["n1", "n2"], "deactivate": ["n3"], "recover": ["t0"]}


def key_text(name: str) -> str:
    public_key = KeyPair.from_seed(bytes.fromhex(SEEDS[name])).public_key
    return "z" + base58.b58encode(b"\xed\x01" + public_key).decode()


def tagged(tag: str, data: bytes) -> bytes:
    return hashlib.sha256(b"zynk/" + tag.encode() + b"/1\0" + data).digest()


def hash_text(digest: bytes) -> str:
    return "z" + base58.b58encode(b"\x12\x20" + digest).decode()


def jcs(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def form_of(name: str) -> dict[str, Any]:
    form: dict[str, Any] = json.loads(EXAMPLES[name])
    return form


def unsigned(name: str) -> bytes:
    form = form_of(name)
    del form["sigs"]
    return jcs(form)


def op_hash(name: str) -> bytes:
    return tagged("did-op", unsigned(name))


def played(*names: str) -> World:
    world = World()
    for name in names:
        assert world.run(EXAMPLES[name].encode()) == "ok"
    return world


def test_every_example_is_read_by_a_test() -> None:
    assert TEXT.count("<!-- example ") == len(EXAMPLES)
    source = Path(__file__).read_text()
    named = {name for name in EXAMPLES if f'"{name}"' in source}
    # Those over HTTP are read by tests/e2e/test_did_method_http.py, by this same word.
    assert {name for name in set(EXAMPLES) - named if not name.startswith("http-")} == set()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_jcs_and_signed_by_the_keys_that_the_text_names(name: str) -> None:
    assert jcs(form_of(name)) == EXAMPLES[name].encode()
    signatures = form_of(name)["sigs"]
    assert [item["key"] for item in signatures] == sorted(map(key_text, SIGNERS[name]))
    for item in signatures:
        key = base58.b58decode(item["key"][1:])[2:]
        signature = multikey.decode_base64url(item["sig"], bytes_max=64)
        assert is_valid_signature(key, b"zynk/sign/did-op/1\0" + unsigned(name), signature)
    assert operation.decode_verified(EXAMPLES[name].encode()).hash == op_hash(name)


def test_did_is_the_hash_of_the_create() -> None:
    assert op_hash("create").hex() == EXAMPLES["create-hash"]
    assert "did:zynk:" + hash_text(op_hash("create")) == DID
    assert len(DID) == 56
    assert re.fullmatch("did:zynk:zQm[1-9A-HJ-NP-Za-km-z]{44}", DID)


def test_operations_follow_each_other_as_the_text_says() -> None:
    assert [form_of(name)["seq"] for name in OPERATIONS] == [0, 1, 2, 3]
    assert {form_of(name)["did"] for name in OPERATIONS[1:]} == {DID}
    assert {form_of(name)["net"] for name in OPERATIONS} == {NET}
    assert form_of("update")["prev"] == hash_text(op_hash("create"))
    assert form_of("deactivate")["prev"] == hash_text(op_hash("update"))
    assert form_of("recover")["prev"] == hash_text(op_hash("update"))
    assert EXAMPLES["update-version"] == "1-" + hash_text(op_hash("update"))


def test_commitments_are_to_the_lists_that_are_revealed() -> None:
    committed = EXAMPLES["committed"].encode()
    created = form_of("create")["body"]
    assert EXAMPLES["next"] == hash_text(tagged("did-next", committed))
    assert created["control"]["next"] == EXAMPLES["next"]
    assert created["control"]["keys"] == [key_text("a")]
    assert [tier["keys"] for tier in created["recovery"]] == [
        [key_text("t0")],
        [key_text("t1"), key_text("t2")],
    ]
    revealed = form_of("update")["body"]["control"]
    following = revealed.pop("next")
    assert jcs(revealed) == committed == jcs(json.loads(committed))
    assert revealed == {"keys": [key_text("n1"), key_text("n2")], "threshold": 2}
    reveal = form_of("deactivate")["body"]["reveal"]
    assert following == hash_text(tagged("did-next", jcs(reveal)))
    assert reveal["keys"] == [key_text("n3")]
    assert form_of("recover")["body"]["control"]["keys"] == [key_text("new")]


def test_record_in_hex_is_what_the_text_says_a_record_is() -> None:
    world = played("create")
    identifier = op_hash("create")
    row = world.tree.get(record.record_key(identifier))
    assert row is not None
    assert row.hex() == EXAMPLES["create-record"]
    body, encoded = form_of("create")["body"], EXAMPLES["create"].encode()
    leaf = codec.encode([0, 2, world.time_ms, encoded])
    assert codec.decode(row, bytes_max=512) == [
        1,
        identifier,
        0,
        identifier,
        hashlib.sha256(encoded).digest(),
        tagged("did-document", jcs(body["document"])),
        tagged("did-control", jcs({"control": body["control"], "recovery": body["recovery"]})),
        0,
        2,
        world.time_ms,
        2,
        world.time_ms,
        hashlib.sha256(b"\0" + leaf).digest(),
        0,
    ]


@pytest.mark.parametrize(
    ("names", "example"),
    [
        (OPERATIONS[:2], "metadata"),
        (OPERATIONS[:3], "deactivated"),
        (OPERATIONS, "recovered"),
    ],
)
def test_resolver_answers_as_the_text_says(names: tuple[str, ...], example: str) -> None:
    world = played(*names)
    answer = resolver.resolve(world.view(), DID)
    verify_resolution(
        answer, did=DID, trusted=VALIDATORS, chain_id=NET, max_age_ms=None, now_ms=None
    )
    shown = {name: x for name, x in answer["didDocumentMetadata"].items() if name != "proof"}
    assert json.dumps(shown, indent=2) == EXAMPLES[example]
    if example == "metadata":
        assert json.dumps(answer["didDocument"], indent=2) == EXAMPLES["document"]


def test_history_flags_what_the_recovery_nullified() -> None:
    world = played(*OPERATIONS)
    items = resolver.history(world.view(), DID, 0, 100)["operations"]
    lines = []
    for item in items:
        by = item["nullifiedBy"]
        lines.append(f"{item['seq']} {item['type']} {'-' if by is None else by}")
    assert "\n".join(lines) == EXAMPLES["history"]
    leaves = [
        hashlib.sha256(b"\0" + multikey.decode_base64url(item["entry"], bytes_max=20_000)).digest()
        for item in items
    ]
    pairs = [hashlib.sha256(b"\1" + leaves[i] + leaves[i + 1]).digest() for i in (0, 2)]
    assert hashlib.sha256(b"\1" + pairs[0] + pairs[1]).hexdigest() == EXAMPLES["log-root"]
    row = world.tree.get(record.record_key(op_hash("create")))
    assert record.Record.decode(row or b"").log_root.hex() == EXAMPLES["log-root"]


def test_limits_in_the_text_are_those_of_the_code() -> None:
    params = ChainParams()
    assert _table("Limits") == {
        "bytes of an operation": str(operation.OPERATION_BYTES_MAX),
        "bytes of a document (JCS of the stored form)": str(document.DOCUMENT_BYTES_MAX),
        "nesting of JSON": str(strict_json.DEPTH_MAX),
        "magnitude of an integer": str(strict_json.INTEGER_MAX),
        "keys of a key list": str(control.CONTROL_KEYS_MAX),
        "recovery tiers": str(control.TIERS_MAX),
        "verification methods": str(document.VERIFICATION_METHODS_MAX),
        "services": str(document.SERVICES_MAX),
        "alsoKnownAs": str(document.ALSO_KNOWN_AS_MAX),
        "references of one relationship": str(document.VERIFICATION_METHODS_MAX),
        "endpoints or types of a service": str(document.ENDPOINTS_MAX),
        "members of an endpoint object": str(document.ENDPOINT_MEMBERS_MAX),
        "bytes of a URI": str(document.URI_BYTES_MAX),
        "characters of a service type": str(document.TYPE_CHARACTERS_MAX),
        "operations of a DID a block (chain parameter)": str(params.did_ops_per_block_max),
        "operations of a DID a day and authority (chain parameter)": str(
            params.did_ops_per_day_max
        ),
        "dispute window in hours (chain parameter)": str(params.dispute_window_ms // 3_600_000),
        "operations in dispute of a DID": str(record.DISPUTES_MAX),
    }


def test_refusals_in_the_text_are_those_of_the_code() -> None:
    source = Path(handler.__file__).read_text()
    raised = set(re.findall(r'"(did/[a-z-]+)"', source)) - {
        handler.MESSAGE_TYPE,
    }
    explained = set(re.findall(r"^\| (did/[a-z-]+) \|", handler.__doc__ or "", re.MULTILINE))
    assert raised == explained == set(_table("Refusals"))


def test_personal_schemes_in_the_text_are_those_of_the_code() -> None:
    told = re.search(r"URIs with the schemes (.*?), and URIs", TEXT, re.DOTALL)
    assert told is not None
    assert set(re.findall("`([a-z]+)`", told[1])) == document.PERSONAL_SCHEMES


def _table(heading: str) -> dict[str, str]:
    part = TEXT.split(f"### {heading}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", part, re.MULTILINE)
    return dict(rows[2:])
