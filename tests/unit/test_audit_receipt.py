"""Receipts and the offline verifier."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from audit.anchor import AnchorRecord
from audit.intake import Request
from audit.issue import build_receipt, issue_receipts
from audit.leaf import Leaf, compute_commitment
from audit.pipeline import BATCH_AGE_MAX_MS, Pipeline
from audit.receipt import Receipt, decode_receipt_json, encode_receipt_json
from audit.second_opinion import verify_inclusion_by_pymerkle
from audit.verify import CLOCK_AHEAD_MAX_MS, Verdict, verify_receipt
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.finality import Handoff
from ledger.merkle import compute_inclusion_proof, compute_leaf_hash, compute_root
from ledger.store import MemoryStore
from ledger.tx import Tx
from ledger.validator_set import Validator, ValidatorSet
from tests.vectors.audit_chain import (
    ANCHOR_KEY,
    CHAIN_ID,
    Chain,
    create_stream,
    leaves_of,
    multihash_of,
)

SALT = b"s" * 32
IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"


def anchored(chain: Chain, leaves_count: int = 5) -> tuple[bytes, list[bytes]]:
    """(stream, receipts): leaves 0..n-2 are plain, the last is salted content 999."""
    stream = create_stream(chain)
    salted = Leaf(stream=stream, commitment=compute_commitment(SALT, multihash_of(999))).encode()
    leaves = [*leaves_of(stream, 0, leaves_count - 1), salted]
    store = MemoryStore()
    pipeline = Pipeline(store)
    pipeline.catch_up(chain.height, chain.lookup)
    pipeline.accept(Request(stream=stream, request_id=b"r", leaves=leaves), 0)
    pipeline.tick(BATCH_AGE_MAX_MS)
    draft = pipeline.next_anchor(lambda stream: 0)
    assert draft is not None
    tx = Tx.sign(
        ANCHOR_KEY,
        chain_id=CHAIN_ID,
        nonce=1,
        fee=1,
        valid_until=2**40,
        messages=draft.messages,
    )
    pipeline.record_signed(draft, tx)
    pipeline.on_final(chain.height + 1, chain.add_block([tx]))
    view = chain.view
    assert issue_receipts(pipeline, view, store, chain.tree, ANCHOR_KEY.public_key) == 1
    return stream, [build_receipt(view, store, compute_leaf_hash(leaf)) for leaf in leaves]


CHAIN = Chain(handoffs=1)
STREAM, RECEIPTS = anchored(CHAIN)
RECEIPT = RECEIPTS[1]


def verify(receipt: bytes | str, **changes: object) -> Verdict:
    expected: dict[str, object] = {
        "multihash": multihash_of(1),
        "trusted": CHAIN.validators,
        "chain_id": CHAIN_ID,
        "stream": STREAM,
    }
    return verify_receipt(receipt, **(expected | changes))  # type: ignore[arg-type]  # a table


def failed_step(verdict: Verdict) -> str:
    assert not verdict.is_ok
    assert verdict.reason
    assert [step.is_ok for step in verdict.steps][:-1] == [True] * (len(verdict.steps) - 1)
    return verdict.steps[-1].name


def test_good_receipt_holds_step_by_step_in_words() -> None:
    verdict = verify(RECEIPT, max_age_ms=60_000, now_ms=CHAIN.time_ms + 1_000)
    assert verdict.is_ok, verdict.reason
    assert [step.name for step in verdict.steps] == [
        "form",
        "content",
        "stream",
        "batch",
        "log",
        "finality",
        "time",
    ]
    assert all(len(step.text) > 20 for step in verdict.steps)
    assert verdict.to_json()["ok"] is True
    assert json.dumps(verdict.to_json())


@pytest.mark.parametrize("index", range(4))
def test_every_leaf_of_the_batch_has_its_own_good_receipt(index: int) -> None:
    assert verify(RECEIPTS[index], multihash=multihash_of(index)).is_ok
    assert failed_step(verify(RECEIPTS[index], multihash=multihash_of(index + 1))) == "content"


def test_salted_leaf_needs_its_salt() -> None:
    content = multihash_of(999)
    assert verify(RECEIPTS[4], multihash=content, salt=SALT).is_ok
    assert failed_step(verify(RECEIPTS[4], multihash=content)) == "content"
    assert failed_step(verify(RECEIPTS[4], multihash=content, salt=b"t" * 32)) == "content"
    assert failed_step(verify(RECEIPTS[4], multihash=content, salt=b"t")) == "content"
    assert failed_step(verify(RECEIPTS[4], salt=SALT)) == "content"


def other_set() -> ValidatorSet:
    return ValidatorSet.of([Validator(public_key=KeyPair.from_seed(b"e" * 32).public_key, power=1)])


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"multihash": b"\x11\x14" + bytes(20)}, "content"),
        ({"stream": b"?" * 32}, "stream"),
        ({"chain_id": "another"}, "finality"),
        ({"trusted": other_set()}, "finality"),
        ({"max_age_ms": 1_000}, "time"),
        ({"max_age_ms": 1_000, "now_ms": CHAIN.time_ms + 1_001}, "time"),
        ({"max_age_ms": 1, "now_ms": CHAIN.time_ms - CLOCK_AHEAD_MAX_MS - 1}, "time"),
    ],
)
def test_other_expectations_are_not_met(changes: dict[str, object], step: str) -> None:
    assert failed_step(verify(RECEIPT, **changes)) == step


@pytest.mark.slow
def test_any_single_byte_changed_is_refused() -> None:
    assert verify(RECEIPT).is_ok
    for position in range(len(RECEIPT)):
        for flip in (0x01, 0x20, 0x80, 0xFF) if IS_SOAK else (0x01 << position % 8,):
            changed = bytearray(RECEIPT)
            changed[position] ^= flip
            assert not verify(bytes(changed)).is_ok, (position, flip)


@pytest.mark.slow
def test_any_single_byte_of_the_json_twin_changed_is_refused() -> None:
    text = encode_receipt_json(Receipt.decode(RECEIPT)).encode()
    assert verify(text).is_ok
    for position in range(len(text)):
        for flip in (0x01, 0x20, 0x80) if IS_SOAK else (0x01 << position % 8,):
            changed = bytearray(text)
            changed[position] ^= flip
            assert not verify(bytes(changed)).is_ok, (position, flip)


def test_truncations_and_trailing_bytes_are_refused() -> None:
    for end in range(len(RECEIPT)):
        assert failed_step(verify(RECEIPT[:end])) == "form"
    assert failed_step(verify(RECEIPT + b"\0")) == "form"


def test_wire_and_json_are_twins() -> None:
    receipt = Receipt.decode(RECEIPT)
    assert receipt.encode() == RECEIPT
    text = encode_receipt_json(receipt)
    assert decode_receipt_json(text) == receipt
    assert decode_receipt_json(json.dumps(json.loads(text), indent=2)) == receipt
    salted = Receipt.decode(RECEIPTS[4])
    assert decode_receipt_json(encode_receipt_json(salted)) == salted


def test_json_in_another_form_is_refused() -> None:
    text = encode_receipt_json(Receipt.decode(RECEIPT))
    value = json.loads(text)
    bad = [
        json.dumps(value | {"more": 1}),
        json.dumps(value | {"batch": value["batch"] | {"index": True}}),
        json.dumps(value | {"batch": value["batch"] | {"index": 1.0}}),
        json.dumps(value | {"anchor": value["anchor"] | {"seq": 2**60}}),
        json.dumps(value | {"anchor": value["anchor"] | {"seq": -1}}),
        json.dumps(value | {"leaf": value["leaf"] | {"stream": "z\ud800"}}),
        text.replace('"type"', '"leaf":{},"type"', 1),
        text.replace(value["header"]["audit_root"], value["header"]["audit_root"].upper()),
        json.dumps({k: v for k, v in value.items() if k != "log"}),
        "[" * 100_000,
        "{" + '"a":' * 3,
        "1" * 10_000,
        "[]",
        "null",
        "",
    ]
    for item in bad:
        with pytest.raises(InvalidInputError):
            decode_receipt_json(item)


def test_each_forged_part_fails_at_its_own_step() -> None:
    good = Receipt.decode(RECEIPT)
    header = good.finality.header
    younger = AnchorRecord.decode(good.anchor_bytes)
    # A batch root alone does not pin the count; the log, over the whole record, does.
    forged_count = replace(younger, count=younger.count + 1).encode()
    forged_root = replace(younger, batch_root=bytes(32)).encode()
    minority = CHAIN.certify(header, signers=2)
    cases = [
        (replace(good, batch_index=2), "batch"),
        (replace(good, batch_path=good.batch_path[:-1]), "batch"),
        (replace(good, batch_path=(*good.batch_path, bytes(32))), "batch"),
        (replace(good, leaf_bytes=leaves_of(b"x" * 32, 1, 1)[0]), "stream"),
        (replace(good, log_index=1), "log"),
        (replace(good, log_path=(bytes(32),)), "log"),
        (replace(good, anchor_bytes=forged_root), "batch"),
        (replace(good, anchor_bytes=forged_count), "log"),
        (replace(good, finality=replace(good.finality, certificate=minority)), "finality"),
        (
            replace(good, finality=replace(good.finality, header=replace(header, time_ms=1))),
            "finality",
        ),
    ]
    for forged, step in cases:
        changes = {"stream": None} if step == "stream" else {}
        assert failed_step(verify(forged.encode(), **changes)) == step


def test_both_verifiers_give_the_same_verdict_on_good_and_bad_paths() -> None:
    hashes = [compute_leaf_hash(b"%d" % i) for i in range(13)]
    root = compute_root(hashes)
    for index in range(13):
        path = compute_inclusion_proof(hashes, index)
        verify_inclusion_by_pymerkle(root, 13, index, hashes[index], path)
        bad = [
            (root, 13, index, hashes[index], path[:-1]),
            (root, 13, index, hashes[index], [*path, root]),
            (root, 13, index, hashes[index], [bytes(32), *path[1:]]),
            (root, 13, (index + 1) % 13, hashes[index], path),
            (root, 14 + 16, index, hashes[index], path),
            (root, 13, index, bytes(32), path),
            (bytes(32), 13, index, hashes[index], path),
            (root, 13, 13, hashes[index], path),
            (root, 13, index, hashes[index], [path[0][:31], *path[1:]]),
        ]
        for case in bad:
            with pytest.raises(InvalidInputError):
                verify_inclusion_by_pymerkle(*case)


def test_receipt_is_at_most_4_kib_for_four_validators_a_billion_leaves_and_one_handoff() -> None:
    good = Receipt.decode(RECEIPT)
    full = [CHAIN.certify(header, signers=4) for header in (good.finality.header,)]
    large = replace(
        good,
        batch_path=(bytes(32),) * 10,
        log_path=(bytes(32),) * 30,
        finality=replace(good.finality, certificate=full[0]),
    )
    assert len(good.finality.handoffs) == 1
    assert len(large.encode()) <= 4096


def test_a_receipt_and_its_json_twin_lead_through_a_skip() -> None:
    """Trusted: one of the signers and a stranger of the same power; more than 1/3 has signed."""
    good = Receipt.decode(RECEIPT)
    finality = good.finality
    skip = Handoff(
        header=finality.header,
        certificate=finality.certificate,
        next_validators=CHAIN.validators,
    )
    receipt = replace(good, finality=replace(finality, handoffs=(skip,)))
    stranger = Validator(public_key=bytes(32), power=10)
    half = ValidatorSet.of((CHAIN.validators.validators[0], stranger))
    for form in (receipt.encode(), encode_receipt_json(receipt)):
        assert verify(form, trusted=half).is_ok
        third = ValidatorSet.of((*half.validators, Validator(public_key=b"\1" * 32, power=10)))
        assert failed_step(verify(form, trusted=third)) == "finality"
