"""Many DIDs under one proof: as each alone, and no lie about any of them passes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from did import resolver
from did.batch import BATCH_DIDS_MAX, resolve_batch
from did.multikey import decode_base64url, encode_base64url
from did.syntax import encode_did
from did.verify import Outcome, Verdict
from did.verify_batch import verify_batch
from ledger.errors import InvalidInputError
from tests.unit.test_did_resolver import Resolved
from tests.vectors.did_world import NET, VALIDATORS

STRANGERS = [encode_did(bytes([n]) * 32) for n in range(60)]


@pytest.fixture(scope="module")
def place() -> Resolved:
    return Resolved()


def _verify(answer: object, dids: list[str], **other: Any) -> list[Verdict | None]:
    arguments: dict[str, Any] = {
        "trusted": VALIDATORS, "chain_id": NET, "max_age_ms": None, "now_ms": None, **other,
    }  # fmt: skip
    return verify_batch(answer, dids=dids, **arguments)


def _dids(place: Resolved) -> list[str]:
    return [
        STRANGERS[0], place.active.did_text, "did:web:example.org", place.gone.did_text,
        *STRANGERS[1:], "did:zynk:zzz",
    ]  # fmt: skip


def _ask(place: Resolved, dids: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(resolve_batch(place.view, dids)))
    return found


def test_batch_says_of_each_did_what_resolving_it_alone_says(place: Resolved) -> None:
    dids = _dids(place)
    answer = _ask(place, dids)
    verdicts = _verify(answer, dids, max_age_ms=0, now_ms=place.world.time_ms)
    assert [v and v.outcome for v in verdicts[:4]] == [
        Outcome.NOT_FOUND, Outcome.FOUND, None, Outcome.DEACTIVATED,
    ]  # fmt: skip
    alone_bytes = 0
    for did, result in zip(dids, answer["results"], strict=True):
        alone = json.loads(json.dumps(resolver.resolve(place.view, did)))
        alone_bytes += len(json.dumps(alone))
        for name in ("didResolutionMetadata", "didDocumentMetadata"):
            alone[name].pop("proof", None)
        assert result == alone
    assert len(json.dumps(answer)) < alone_bytes / 3


def test_batch_of_no_dids_of_this_method_proves_nothing(place: Resolved) -> None:
    answer = _ask(place, ["did:web:a"])
    assert answer["proof"]["multiproof"] == ""
    assert _verify(answer, ["did:web:a"]) == [None]
    answer["proof"]["multiproof"] = "AA"
    with pytest.raises(InvalidInputError):
        _verify(answer, ["did:web:a"])


def test_wrong_numbers_of_dids_are_refused(place: Resolved) -> None:
    many = [encode_did(n.to_bytes(32, "big")) for n in range(BATCH_DIDS_MAX + 1)]
    assert len(_verify(_ask(place, many[:-1]), many[:-1])) == BATCH_DIDS_MAX
    for dids in ([], many, [STRANGERS[0]] * 2):
        with pytest.raises(InvalidInputError):
            resolve_batch(place.view, dids)
        with pytest.raises(InvalidInputError):
            _verify({}, dids)


def test_lies_in_a_batch_are_caught(place: Resolved) -> None:
    dids = _dids(place)
    answer = _ask(place, dids)
    _verify(answer, dids)
    lies: list[dict[str, Any]] = []

    def lie() -> dict[str, Any]:
        lies.append(copy.deepcopy(answer))
        return lies[-1]

    lie()["results"][1]["didDocument"]["service"][0]["serviceEndpoint"] = "https://evil.example/"
    lie()["results"][1]["didDocumentMetadata"]["versionId"] = "0-x"
    lie()["results"][0]["didResolutionMetadata"]["error"]["detail"] = "other"
    lie()["results"][1] = copy.deepcopy(answer["results"][3])
    hidden = lie()
    hidden["results"][1] = resolver.not_found_result(dids[1])
    hidden["proof"]["records"][1] = None
    swapped = lie()
    swapped["proof"]["records"][1] = answer["proof"]["records"][3]
    lie()["results"].pop()
    lie()["proof"]["records"].pop()
    lie()["proof"]["records"][2] = answer["proof"]["records"][1]
    lie()["results"][0] = None
    lie()["proof"]["type"] = "ZynkStateProof1"
    lie()["proof"]["more"] = 1
    lie()["more"] = 1
    for name in ("multiproof", "header", "certificate"):
        raw = decode_base64url(answer["proof"][name], bytes_max=10**6)
        for at in range(0, len(raw), max(1, len(raw) // 40)):
            flipped = bytearray(raw)
            flipped[at] ^= 4
            lie()["proof"][name] = encode_base64url(bytes(flipped))
    for changed in lies:
        with pytest.raises(InvalidInputError):
            _verify(changed, dids)
    for other in (dids[::-1], dids[:-1]):
        with pytest.raises(InvalidInputError):
            _verify(answer, other)
    for changes in (
        {"chain_id": "zynk-other"},
        {"max_age_ms": 1000, "now_ms": place.world.time_ms + 1001},
    ):
        with pytest.raises(InvalidInputError):
            _verify(answer, dids, **changes)
