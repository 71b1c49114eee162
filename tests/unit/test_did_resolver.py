"""Resolution and its proof: answers verify, and an answer with anything changed does not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from did import resolver
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.multikey import decode_base64url, encode_base64url
from did.operation import decode_operation
from did.syntax import encode_did
from did.verify import (
    Outcome,
    Verdict,
    decode_answer,
    verify_proof,
    verify_resolution,
)
from did.verify_history import verify_history, verify_history_operation
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FinalityProof, Handoff
from ledger.validator_set import Validator, ValidatorSet
from tests.vectors.did_world import (
    EXP,
    NET,
    VALIDATORS,
    World,
    WorldView,
    control,
    document,
    finalize,
    key,
    key_list,
)

STRANGER = encode_did(bytes(32))


def _create(name: str) -> bytes:
    return create_operation(
        net=NET,
        exp_height=EXP,
        document=document(name),
        control=control("a"),
        recovery=[key_list("t")],
        signers=[key("a")],
    )


class Resolved:
    """A world with one active and one deactivated DID."""

    def __init__(self) -> None:
        self.world = World()
        active, gone = _create("active"), _create("gone")
        others = [_create(f"other{i}") for i in range(20)]
        assert set(self.world.block([active, gone, *others])) == {"ok"}
        self.active, self.gone = decode_operation(active), decode_operation(gone)
        update = update_operation(
            net=NET,
            exp_height=EXP,
            did=self.active.did_text,
            prev=self.active.hash,
            seq=1,
            document=document("next"),
            control=control("a"),
            recovery=[key_list("t")],
            signers=[key("a")],
        )
        end = deactivate_operation(
            net=NET,
            exp_height=EXP,
            did=self.gone.did_text,
            prev=self.gone.hash,
            seq=1,
            signers=[key("a")],
        )
        assert self.world.block([update, end]) == ["ok", "ok"]
        self.view = self.world.view()

    def verify(self, answer: dict[str, Any], did: str, **other: Any) -> Verdict:
        arguments: dict[str, Any] = {
            "trusted": VALIDATORS,
            "chain_id": NET,
            "max_age_ms": None,
            "now_ms": None,
            **other,
        }
        return verify_resolution(answer, did=did, **arguments)


@pytest.fixture(scope="module")
def place() -> Resolved:
    return Resolved()


def test_active_did_resolves_to_its_newest_document(place: Resolved) -> None:
    did = place.active.did_text
    answer = json.loads(json.dumps(resolver.resolve(place.view, did)))
    assert answer["didDocument"]["id"] == did
    assert answer["didDocument"]["service"][0]["serviceEndpoint"] == "https://next.example/files"
    metadata = answer["didDocumentMetadata"]
    assert metadata["created"] == "2026-01-01T00:00:02Z"
    assert metadata["updated"] == "2026-01-01T00:00:03Z"
    assert metadata["versionId"].startswith("1-zQm")
    assert metadata["disputeUntil"] == "2026-01-04T00:00:03Z"
    verdict = place.verify(answer, did, max_age_ms=0, now_ms=place.world.time_ms)
    assert (verdict.outcome, verdict.height) == (Outcome.FOUND, place.world.height)
    assert len(verdict.steps) == 6


def test_deactivated_did_has_no_document_but_a_proof(place: Resolved) -> None:
    answer = resolver.resolve(place.view, place.gone.did_text)
    assert answer["didDocument"] is None
    assert answer["didDocumentMetadata"]["deactivated"] is True
    assert place.verify(answer, place.gone.did_text).outcome is Outcome.DEACTIVATED


def test_unknown_did_is_proven_absent(place: Resolved) -> None:
    answer = resolver.resolve(place.view, STRANGER)
    error = answer["didResolutionMetadata"]["error"]
    assert error["type"] == "https://www.w3.org/ns/did#NOT_FOUND"
    assert answer["didDocumentMetadata"] == {}
    assert place.verify(answer, STRANGER).outcome is Outcome.NOT_FOUND


def test_only_a_document_is_shown_without_its_proof(place: Resolved) -> None:
    whole = resolver.resolve(place.view, place.active.did_text)
    del whole["didDocumentMetadata"]["proof"]
    assert resolver.resolve(place.view, place.active.did_text, is_proven=False) == whole
    for did in (place.gone.did_text, STRANGER):
        shown = resolver.resolve(place.view, did, is_proven=False)
        assert shown == resolver.resolve(place.view, did)
        place.verify(shown, did)


@pytest.mark.parametrize(
    ("did", "code"),
    [
        ("did:web:example.org", "METHOD_NOT_SUPPORTED"),
        ("did:zynk:zzz", "INVALID_DID"),
        (STRANGER + "#key", "INVALID_DID"),
        ("", "INVALID_DID"),
    ],
)
def test_other_identifiers_give_an_error_object(place: Resolved, did: str, code: str) -> None:
    answer = resolver.resolve(place.view, did)
    assert answer["didResolutionMetadata"]["error"]["type"].endswith("#" + code)
    with pytest.raises(InvalidInputError):
        place.verify(answer, did)


# --- lies ---


def _each_text(value: object) -> Iterator[tuple[list[str | int], str]]:
    """(path, text) of every string in a JSON value, names of members included as paths."""
    if isinstance(value, str):
        yield [], value
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        for path, text in _each_text(item):
            yield [name, *path], text


def _replaced(answer: dict[str, Any], path: list[str | int], text: str) -> dict[str, Any]:
    changed = copy.deepcopy(answer)
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = text
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("which", ["active", "gone", "stranger"])
def test_every_character_of_an_answer_counts(place: Resolved, which: str) -> None:
    did = {
        "active": place.active.did_text,
        "gone": place.gone.did_text,
        "stranger": STRANGER,
    }[which]
    answer = resolver.resolve(place.view, did)
    place.verify(answer, did)
    flips = 0
    for path, text in _each_text(answer):
        for at, character in enumerate(text):
            other = "A" if character != "A" else "B"
            with pytest.raises(InvalidInputError):
                place.verify(_replaced(answer, path, text[:at] + other + text[at + 1 :]), did)
            flips += 1
        for changed in (text[:-1], text + "A", text + "=", ""):
            if changed != text:
                with pytest.raises(InvalidInputError):
                    place.verify(_replaced(answer, path, changed), did)
    assert flips > 1000


def test_proof_is_a_list_of_one_as_did_resolution_has_it(place: Resolved) -> None:
    for did in (place.active.did_text, place.gone.did_text, STRANGER):
        answer = resolver.resolve(place.view, did)
        holder = "didResolutionMetadata" if did == STRANGER else "didDocumentMetadata"
        (proof,) = answer[holder]["proof"]
        assert proof["type"] == "ZynkStateProof1"
        place.verify(answer, did)
        for other in (proof, [], [proof, proof], [[proof]], None):
            lie = copy.deepcopy(answer)
            lie[holder]["proof"] = other
            with pytest.raises(InvalidInputError, match=r"proof is not a list of one|malformed"):
                place.verify(lie, did)


@pytest.mark.slow
def test_every_byte_of_every_part_of_a_proof_counts(place: Resolved) -> None:
    did = place.active.did_text
    answer = resolver.resolve(place.view, did)
    for name in ("record", "stateProof", "header", "certificate"):
        path: list[str | int] = ["didDocumentMetadata", "proof", 0, name]
        raw = decode_base64url(answer["didDocumentMetadata"]["proof"][0][name], bytes_max=4096)
        for at in range(len(raw)):
            flipped = bytearray(raw)
            flipped[at] ^= 1 << at % 8
            with pytest.raises(InvalidInputError):
                place.verify(_replaced(answer, path, encode_base64url(bytes(flipped))), did)
        for changed in (raw[:-1], raw + b"\0", raw[1:]):
            with pytest.raises(InvalidInputError):
                place.verify(_replaced(answer, path, encode_base64url(changed)), did)


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from _members(item)


def test_no_member_may_be_dropped_added_or_changed_in_type(place: Resolved) -> None:
    did = place.active.did_text
    answer = resolver.resolve(place.view, did)
    count = sum(len(holder) for holder in _members(answer))
    for at in range(count):
        for change in ("drop", "null", "list", "true", "number"):
            changed = copy.deepcopy(answer)
            slots = [(h, name) for h in _members(changed) for name in h]
            holder, name = slots[at]
            if change == "drop":
                del holder[name]
            else:
                new: Any = {"null": None, "list": [], "true": True, "number": 1}[change]
                if type(holder[name]) is type(new) and holder[name] == new:
                    continue
                holder[name] = new
            with pytest.raises(InvalidInputError):
                place.verify(changed, did)
    for at in range(len(list(_members(answer)))):
        changed = copy.deepcopy(answer)
        list(_members(changed))[at]["extra"] = 1
        with pytest.raises(InvalidInputError):
            place.verify(changed, did)


def test_answer_about_another_did_is_refused(place: Resolved) -> None:
    answer = resolver.resolve(place.view, place.active.did_text)
    for other in (place.gone.did_text, STRANGER):
        with pytest.raises(InvalidInputError):
            place.verify(answer, other)


def test_hidden_did_is_not_believed_to_be_absent(place: Resolved) -> None:
    did = place.active.did_text
    lie = resolver.not_found_result(did)
    lie["didResolutionMetadata"]["proof"] = resolver.resolve(place.view, STRANGER)[
        "didResolutionMetadata"
    ]["proof"]
    with pytest.raises(InvalidInputError):
        place.verify(lie, did)


def test_stale_future_and_foreign_answers_are_refused(place: Resolved) -> None:
    did, now = place.active.did_text, place.world.time_ms
    answer = resolver.resolve(place.view, did)
    for changes in (
        {"max_age_ms": 1000, "now_ms": now + 1001},
        {"max_age_ms": 1000, "now_ms": now - 10_001},
        {"chain_id": "zynk-other"},
        {"trusted": _one_validator("stranger")},
    ):
        with pytest.raises(InvalidInputError):
            place.verify(answer, did, **changes)
    place.verify(answer, did, max_age_ms=1000, now_ms=now + 1000)
    with pytest.raises(UsageError):
        place.verify(answer, did, max_age_ms=1000)


def test_older_state_root_does_not_prove_the_newer_record(place: Resolved) -> None:
    did = place.active.did_text
    answer = resolver.resolve(place.view, did)
    world = World()
    world.block([_create("active")])
    older = resolver.resolve(world.view(), did)
    mixed = copy.deepcopy(answer)
    for name in ("header", "certificate"):
        proof = mixed["didDocumentMetadata"]["proof"][0]
        proof[name] = older["didDocumentMetadata"]["proof"][0][name]
    with pytest.raises(InvalidInputError):
        place.verify(mixed, did)


def _one_validator(name: str) -> ValidatorSet:
    return ValidatorSet.of([Validator(public_key=key(name).public_key, power=1)])


def test_handoffs_lead_from_an_older_trusted_set(place: Resolved) -> None:
    old = _one_validator("old")
    header = replace(
        place.view.finality.header,
        height=1,
        time_ms=1,
        validators_hash=old.hash,
        next_validators_hash=VALIDATORS.hash,
    )
    message = vote_sign_bytes(NET, VoteKind.FINALIZE, 1, 1, header.hash)
    signature = {key("old").public_key: key("old").sign(message)}
    certificate = Certificate.of(VoteKind.FINALIZE, 1, 1, header.hash, signature, old)
    handoff = Handoff(header=header, certificate=certificate, next_validators=VALIDATORS)
    now = finalize(place.world.header())
    view = replace(
        place.view,
        finality=FinalityProof(header=now.header, certificate=now.certificate, handoffs=(handoff,)),
    )
    did = place.active.did_text
    answer = resolver.resolve(view, did)
    assert place.verify(answer, did, trusted=old).outcome is Outcome.FOUND
    with pytest.raises(InvalidInputError):
        place.verify(answer, did)
    for path, text in _each_text(answer):
        if "handoffs" in path:
            with pytest.raises(InvalidInputError):
                place.verify(_replaced(answer, path, "A" + text[1:]), did, trusted=old)


def test_answer_with_a_repeated_name_is_refused(place: Resolved) -> None:
    text = json.dumps(resolver.resolve(place.view, STRANGER)).encode()
    assert decode_answer(text)
    with pytest.raises(InvalidInputError):
        decode_answer(text.replace(b'{"didDocument": null', b'{"didDocument": 1, "didDocument": 2'))


# --- history ---


def _history_world(count: int) -> tuple[WorldView, str]:
    world = World()
    body = _create("long")
    did = decode_operation(body).did_text
    assert world.run(body) == "ok"
    heads = [decode_operation(body).hash]
    make: Callable[..., bytes]
    for seq in range(1, count):
        recovering = seq == count - 2
        make, other = (recover_operation, {"tier": 0}) if recovering else (update_operation, {})
        body = make(
            net=NET,
            exp_height=EXP,
            did=did,
            prev=heads[-3] if recovering else heads[-1],
            seq=seq,
            document=document(str(seq)),
            control=control("a"),
            recovery=[key_list("t")],
            signers=[key("t" if recovering else "a")],
            **other,
        )
        assert world.run(body) == "ok"
        heads.append(decode_operation(body).hash)
    return world.view(), did


def test_history_proves_each_operation_and_flags_the_nullified() -> None:
    view, did = _history_world(13)
    header, record, _ = verify_proof(
        resolver.proof(view, did)["proof"],
        did=did,
        trusted=VALIDATORS,
        chain_id=NET,
        max_age_ms=None,
        now_ms=None,
    )
    assert record is not None
    found: list[dict[str, Any]] = []
    cursor: int | None = 0
    while cursor is not None:
        page = resolver.history(view, did, cursor, 5)
        found += page["operations"]
        cursor = page["nextCursor"]
    assert [item["seq"] for item in found] == list(range(13))
    assert [item["nullifiedBy"] for item in found] == [None] * 9 + [11, 11, None, None]
    for item in found:
        entry = verify_history_operation(item, record)
        assert decode_operation(entry.operation).seq == item["seq"]
        changed = {**item, "time": "2026-01-01T00:00:00Z"}
        with pytest.raises(InvalidInputError):
            verify_history_operation(changed, record)
    with pytest.raises(InvalidInputError):
        verify_history_operation({**found[0], "path": found[1]["path"]}, record)
    assert header.height == view.height
    assert [entry.seq for entry in verify_history(found, record)] == list(range(13))
    swapped = [found[1], found[0], *found[2:]]
    for lie in (
        found[:-1],
        [*found, found[-1]],
        swapped,
        [*found[:9], {**found[9], "nullifiedBy": None}, *found[10:]],
        [{**found[0], "nullifiedBy": 11}, *found[1:]],
        [*found[:9], {**found[9], "nullifiedBy": "11"}, *found[10:]],
        [{**found[0], "more": 1}, *found[1:]],
    ):
        with pytest.raises(InvalidInputError):
            verify_history(lie, record)


def test_history_limits_are_checked_and_unknown_dids_have_none(place: Resolved) -> None:
    page = resolver.history(place.view, STRANGER)
    assert (page["operations"], page["nextCursor"]) == ([], None)
    for cursor, limit in ((-1, 5), (0, 0), (0, 101)):
        with pytest.raises(InvalidInputError):
            resolver.history(place.view, STRANGER, cursor, limit)
    with pytest.raises(InvalidInputError):
        resolver.history(place.view, "did:zynk:x")
    assert resolver.history(place.view, place.active.did_text, 99)["operations"] == []


def test_proof_shows_the_record(place: Resolved) -> None:
    answer = resolver.proof(place.view, place.active.did_text)
    assert answer["record"]["status"] == "active"
    assert resolver.proof(place.view, STRANGER)["record"] is None
