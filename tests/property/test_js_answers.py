"""DID answers and receipts of a real chain, true and tampered with, judged by both verifiers."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from audit.receipt import Receipt, encode_receipt_json
from audit.verify import verify_receipt
from did.verify import decode_answer, verify_resolution
from ledger.errors import InvalidInputError
from ledger.light import TrustPoint
from rpc.params import bytes_of_text
from tests.property.answer_changes import OF_ANY_JSON
from tests.property.campaign import examples
from tests.property.light_bundles import Bundle
from tests.property.test_light_bundles import run_js
from tests.unit.chain_fixture import CHAIN_ID, GENESIS
from tests.unit.light_lies import flip_blob
from tests.unit.test_audit_receipt import CHAIN, RECEIPTS, SALT
from tests.unit.test_light_api import OTHER, ROOT, LightWorld, run_light
from tests.vectors.audit_chain import CHAIN_ID as AUDIT_CHAIN_ID
from tests.vectors.audit_chain import multihash_of

MULTIHASH = b"\x12\x20" + bytes(32)  # what LightWorld anchors
COUNT = examples(40, 500)
SEED = 20_260_102


def item(**more: Any) -> dict[str, Any]:
    assert ROOT.point is not None
    now_ms = time.time_ns() // 1_000_000
    bundle = Bundle(
        name="", trust=ROOT.point, proof=b"", now_ms=now_ms, max_age_ms=None, expected=None
    )
    return {**bundle.to_json(), **more}


def is_true_answer(did: str, answer: Any) -> bool:
    try:
        verify_resolution(
            decode_answer(json.dumps(answer).encode()),
            did=did,
            trusted=GENESIS.validators,
            chain_id=CHAIN_ID,
            max_age_ms=None,
            now_ms=None,
        )
    except InvalidInputError:
        return False
    return True


def variants(answer: Any) -> list[Any]:
    """The answer, itself changed in one character of a blob, and with members moved about."""
    found = [answer, *(flip_blob(copy.deepcopy(answer), seed) for seed in range(COUNT))]
    for path, value in (
        (("didDocumentMetadata", "created"), "2020-01-01T00:00:00Z"),
        (("didDocumentMetadata", "more"), 1),
        (("didDocumentMetadata", "deactivated"), True),
        (("didResolutionMetadata", "contentType"), "text/plain"),
        (("didDocument",), None),
        (("didDocument", "id"), OTHER),
        (("didDocument", "service"), []),
        (("more",), 1),
    ):
        changed = copy.deepcopy(answer)
        node = changed
        for name in path[:-1]:
            node = node[name]
        if node is not None:
            node[path[-1]] = value
            found.append(changed)
    return found


@pytest.mark.slow
def test_both_verifiers_agree_on_did_answers_and_receipts(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = []
    expected: list[bool] = []

    async def test(light: LightWorld) -> None:
        node = light.world.api
        for did in (light.did, OTHER):
            true = json.loads(json.dumps(await node.did_resolve(did, None, None)))
            for answer in variants(true):
                items.append(item(kind="resolution", asked=did, texts=[json.dumps(answer)]))
                expected.append(is_true_answer(did, answer))
        shown = await node.audit_receipt(light.leaf, 0)
        receipt = bytes_of_text(str(shown["receipt"]))
        changed = [
            receipt[:at] + bytes([receipt[at] ^ 1]) + receipt[at + 1 :]
            for at in range(0, len(receipt), max(1, len(receipt) // COUNT))
        ]
        for data in (receipt, receipt[:-1], receipt + b"\0", *changed):
            for multihash in (MULTIHASH, MULTIHASH[:-1] + b"\1"):
                items.append(item(kind="receipt", receipt=data.hex(), multihash=multihash.hex()))
                verdict = verify_receipt(
                    data, multihash=multihash, trusted=GENESIS.validators, chain_id=CHAIN_ID
                )
                expected.append(verdict.is_ok)

    run_light(tmp_path, test)
    verdicts = run_js(items)
    assert len(verdicts) == len(items)
    assert expected.count(True) >= 3
    for number, (ours, theirs) in enumerate(zip(expected, verdicts, strict=True)):
        assert ours == (theirs == "valid"), (number, theirs, items[number])


def receipt_items(count: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """Receipts of plain and salted leaves, as bytes and as JSON twins, true and changed; whether
    Python takes them."""
    random = Random(SEED)
    for number in range(count):
        place = number % len(RECEIPTS)
        is_salted = place == len(RECEIPTS) - 1
        multihash = multihash_of(999 if is_salted else place)
        salt = random.choice((SALT, SALT, SALT, bytes(32), b"", SALT + SALT)) if is_salted else b""
        wire = RECEIPTS[place]
        twin = encode_receipt_json(Receipt.decode(wire))
        given: bytes | str = wire
        match number // len(RECEIPTS) % 4:
            case 1:
                at = random.randrange(len(wire))
                given = wire[:at] + bytes([wire[at] ^ 1 << random.randrange(8)]) + wire[at + 1 :]
            case 2:
                given = json.dumps(json.loads(twin), indent=random.choice((None, 1)))
            case 3:
                given = random.choice(OF_ANY_JSON)(json.loads(twin), random)
        verdict = verify_receipt(
            given,
            multihash=multihash,
            trusted=CHAIN.validators,
            chain_id=AUDIT_CHAIN_ID,
            salt=salt or None,
        )
        shown = {"receipt": given.hex()} if isinstance(given, bytes) else {"twin": given}
        more = {"multihash": multihash.hex(), "salt": salt.hex(), **shown}
        yield receipt_item(**more), verdict.is_ok


def receipt_item(**more: Any) -> dict[str, Any]:
    trust = TrustPoint(
        chain_id=AUDIT_CHAIN_ID,
        height=0,
        time_ms=1,
        validators=CHAIN.validators,
        trusting_period_ms=10**15,
    )
    bundle = Bundle(name="", trust=trust, proof=b"", now_ms=10**13, max_age_ms=None, expected=None)
    return {**bundle.to_json(), "kind": "receipt", **more}


@pytest.mark.slow
def test_both_verifiers_agree_on_json_twins_and_salted_receipts() -> None:
    items, expected = zip(*receipt_items(8 * COUNT), strict=True)
    found = [verdict == "valid" for verdict in run_js(list(items))]
    for number, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        assert ours == theirs, (number, items[number])
    taken = [item for item, is_ok in zip(items, expected, strict=True) if is_ok]
    for is_twin in (True, False):
        for is_salted in (True, False):
            kinds = [("twin" in item, bool(item["salt"])) for item in taken]
            assert kinds.count((is_twin, is_salted)) >= 5
    assert expected.count(False) >= len(expected) // 4
