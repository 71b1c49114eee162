"""Credentials judged by the issuer's history: which key counted when, and what a history that is
old, foreign, altered or recovered can not be made to say."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from did import resolver
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.contexts import UNDEFINED_TERMS_V2
from did.credential import Verdict, complete_credential, list_credential, verify_credential
from did.data_integrity import JCS, SUITES, add_proof
from did.document_at import ProvenHistory, decode_history_answer, verify_history_answer
from did.operation import decode_operation
from did.status_list import LIST_BITS_MIN, REVOCATION, StatusEntry
from ledger.errors import InvalidInputError, UsageError
from ledger.light import Verdict as Worth
from node.identity import make_document
from node.vc_check import StatusEvidence, check_credential
from node.vc_issue import find_issuer
from tests.unit.trust_fixture import trust_of
from tests.vectors.did_world import (
    EXP,
    NET,
    VALIDATORS,
    WORLD_PARAMS,
    World,
    control,
    key,
    key_list,
)

SUBJECT = {"id": "did:example:ann", "degree": {"type": "Degree", "name": "BSc"}}
HOUR_MS = 3_600_000


class Issuing:
    """A DID on a small chain. `assertion keys` are those in its document."""

    def __init__(self) -> None:
        self.world = World()
        self._run(
            create_operation(
                net=NET, exp_height=EXP, document=document_of("a"), control=control("a"),
                recovery=(key_list("r"),), signers=[key("a")],
            )
        )  # fmt: skip
        self.created_ms = self.world.time_ms

    def _run(self, operation: bytes, step_ms: int = 1000) -> None:
        assert self.world.run(operation, step_ms=step_ms) == "ok"
        self.last = decode_operation(operation)
        if self.last.seq == 0:
            self.did = self.last.did_text
            self.first = self.last

    def rotate(self, *names: str, step_ms: int = 1000) -> None:
        """Other assertion keys; `a` stays in control."""
        self._run(
            update_operation(
                net=NET, exp_height=EXP, did=self.did, prev=self.last.hash, seq=self.last.seq + 1,
                document=document_of(*names), control=control("a"), recovery=(key_list("r"),),
                signers=[key("a")],
            ),
            step_ms,
        )  # fmt: skip

    def recover_to_first(self, name: str) -> None:
        """Nullify everything after the create."""
        self._run(
            recover_operation(
                net=NET, exp_height=EXP, did=self.did, prev=self.first.hash,
                seq=self.last.seq + 1, tier=0, document=document_of(name), control=control("a"),
                recovery=(key_list("r"),), signers=[key("r")],
            )
        )  # fmt: skip

    def deactivate(self) -> None:
        self._run(
            deactivate_operation(
                net=NET, exp_height=EXP, did=self.did, prev=self.last.hash,
                seq=self.last.seq + 1, signers=[key("a")],
            )
        )  # fmt: skip

    def settle(self) -> None:
        """Wait until nothing can be set aside any more."""
        self.world.block([], step_ms=WORLD_PARAMS.dispute_window_ms)

    def answer(self) -> dict[str, Any]:
        return resolver.history(self.world.view(), self.did, None, 100)

    def history(self) -> ProvenHistory:
        return verify_history_answer(self.answer(), trusted=VALIDATORS, chain_id=NET)

    def sign(self, name: str, created_ms: int, suite: str = JCS, **members: Any) -> dict[str, Any]:
        template = {"credentialSubject": SUBJECT, **members}
        if suite != JCS:
            template["@context"] = ["https://www.w3.org/ns/credentials/v2", UNDEFINED_TERMS_V2]
        return add_proof(
            complete_credential(template, issuer=self.did, valid_from_ms=self.created_ms),
            suite=suite,
            verification_method=f"{self.did}#key-1",
            created_ms=created_ms,
            key=key(name),
        )

    def judge(self, credential: dict[str, Any]) -> Verdict:
        return verify_credential(
            credential, documents=self.history(), now_ms=self.world.time_ms + 1000
        )


def document_of(*names: str) -> dict[str, Any]:
    return make_document([key(name).public_key for name in names])


@pytest.fixture
def issuing() -> Issuing:
    return Issuing()


@pytest.mark.parametrize("suite", SUITES)
def test_a_credential_holds_step_by_step(issuing: Issuing, suite: str) -> None:
    verdict = issuing.judge(issuing.sign("a", issuing.world.time_ms, suite))
    assert verdict.is_ok, verdict.reason
    assert [step.name for step in verdict.steps] == [
        "form", "issuer", "key", "signature", "period", "settled",
    ]  # fmt: skip


def test_each_key_counts_from_its_block_until_the_next_change(issuing: Issuing) -> None:
    issuing.rotate("b", step_ms=HOUR_MS)
    changed_ms = issuing.world.time_ms
    issuing.rotate("b", step_ms=HOUR_MS)
    issuing.settle()
    good = {("a", issuing.created_ms), ("a", changed_ms - 1), ("b", changed_ms)}
    for name, at in (*good, ("a", changed_ms), ("b", changed_ms - 1)):
        verdict = issuing.judge(issuing.sign(name, at))
        assert verdict.is_ok == ((name, at) in good), (name, at - changed_ms)
        if not verdict.is_ok:
            assert verdict.steps[-1].name == "signature"
    before = issuing.judge(issuing.sign("a", issuing.created_ms - 1))
    assert "did not exist yet" in before.reason


def test_a_nullified_operation_gave_no_key_anything(issuing: Issuing) -> None:
    issuing.rotate("thief")
    stolen = issuing.sign("thief", issuing.world.time_ms)
    verdict = issuing.judge(stolen)
    assert (verdict.steps[-1].name, verdict.worth) == ("settled", Worth.CANNOT_TELL)
    issuing.recover_to_first("c")
    assert "signature does not match" in issuing.judge(stolen).reason
    # the key before the theft is the one of the settled history until the recovery
    assert issuing.judge(issuing.sign("a", issuing.world.time_ms - 1)).is_ok
    assert issuing.judge(issuing.sign("c", issuing.world.time_ms)).is_ok


def test_a_deactivated_did_has_no_keys_from_then_on(issuing: Issuing) -> None:
    before = issuing.sign("a", issuing.world.time_ms)
    issuing.deactivate()
    assert issuing.judge(before).is_ok
    after = issuing.judge(issuing.sign("a", issuing.world.time_ms))
    assert "was deactivated" in after.reason


def test_a_key_that_is_not_for_assertions_signs_none(issuing: Issuing) -> None:
    credential = issuing.sign("a", issuing.world.time_ms)
    credential["proof"]["verificationMethod"] = f"{issuing.did}#key-2"
    assert "was not one for assertions" in issuing.judge(credential).reason


def test_an_answer_does_not_speak_of_what_came_after_it(issuing: Issuing) -> None:
    verdict = issuing.judge(issuing.sign("a", issuing.world.time_ms + 1))
    assert "older than the time asked for" in verdict.reason


# --- what a recovery could still take away ---


def test_a_key_of_a_change_in_dispute_can_not_be_told_until_its_window_is_over(
    issuing: Issuing,
) -> None:
    issuing.rotate("b", step_ms=HOUR_MS)
    signed, changed_ms = issuing.sign("b", issuing.world.time_ms), issuing.world.time_ms
    window_ms = WORLD_PARAMS.dispute_window_ms
    issuing.world.block([], step_ms=window_ms - 1)
    verdict = issuing.judge(signed)
    assert verdict.worth is Worth.CANNOT_TELL
    assert "can still be set aside by a recovery" in verdict.reason
    issuing.world.block([], step_ms=1)
    assert issuing.world.time_ms == changed_ms + window_ms
    assert issuing.judge(signed).is_ok


def test_a_key_that_stays_whatever_is_set_aside_is_settled(issuing: Issuing) -> None:
    issuing.rotate("a", "b")
    issuing.rotate("a", "c")
    assert issuing.judge(issuing.sign("a", issuing.world.time_ms)).is_ok
    before = issuing.judge(issuing.sign("a", issuing.created_ms))
    assert before.is_ok, "nothing sets the creation aside"
    issuing.rotate("c")
    issuing.rotate("a")
    between = issuing.judge(issuing.sign("a", issuing.world.time_ms))
    assert between.worth is Worth.CANNOT_TELL, "set aside the last, and c is the key"


def test_an_older_change_settles_with_the_head_through_which_a_recovery_reaches_it(
    issuing: Issuing,
) -> None:
    issuing.rotate("b")
    signed = issuing.sign("b", issuing.world.time_ms)
    issuing.rotate("c", step_ms=WORLD_PARAMS.dispute_window_ms - 1)
    late = issuing.sign("c", issuing.world.time_ms)
    issuing.world.block([], step_ms=WORLD_PARAMS.dispute_window_ms - 1)
    for credential in (signed, late):
        assert issuing.judge(credential).worth is Worth.CANNOT_TELL
    issuing.world.block([], step_ms=1)
    for credential in (signed, late):
        assert issuing.judge(credential).is_ok


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another issuer": (lambda c: c.update(issuer="did:example:x"), "not by the issuer"),
    "an issuer without an id": (lambda c: c.update(issuer={}), "issuer is malformed"),
    "another purpose": (
        lambda c: c["proof"].update(proofPurpose="authentication"), "another purpose"),
    "a method with a query": (
        lambda c: c["proof"].update(verificationMethod=c["issuer"] + "?versionId=1#key-1"),
        "not by the issuer"),
    "a method of another kind": (
        lambda c: c["proof"].update(verificationMethod="https://x.example/#k"), "not a DID URL"),
    "no context": (lambda c: c.pop("@context"), "another @context"),
    "the old context": (
        lambda c: c.update({"@context": ["https://www.w3.org/2018/credentials/v1"]}),
        "another @context"),
    "no type": (lambda c: c.update(type="Degree"), "not a credential"),
    "a context that nobody signed": (
        lambda c: c.update({"@context": [*c["@context"], {"degree": "https://evil.example/#x"}]}),
        "goes on where"),
    "no claims": (lambda c: c.update(credentialSubject=[]), "credentialSubject"),
    "empty claims": (lambda c: c.update(credentialSubject={}), "credentialSubject"),
    "a claim that is text": (lambda c: c.update(credentialSubject="x"), "credentialSubject"),
    "an id that is no text": (lambda c: c.update(id=5), "id is malformed"),
    "a date without a zone": (lambda c: c.update(validFrom="2026-01-01"), "not a time"),
    "an end before the beginning": (
        lambda c: c.update(validUntil="2025-01-01T00:00:00Z"), "ends before"),
    "no proof": (lambda c: c.pop("proof"), "no proof"),
    "an altered claim": (
        lambda c: c["credentialSubject"].update(id="did:example:eve"), "does not match"),
    "a float": (lambda c: c["credentialSubject"].update(x=1.5), "not an integer"),
    "a lone surrogate": (lambda c: c["credentialSubject"].update(x="\ud800"), "no canonical form"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_named(issuing: Issuing, name: str) -> None:
    credential = copy.deepcopy(issuing.sign("a", issuing.world.time_ms))
    change, reason = DEFECTS[name]
    change(credential)
    verdict = issuing.judge(credential)
    assert not verdict.is_ok
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_credential_counts_in_its_period_alone(issuing: Issuing) -> None:
    now = issuing.world.time_ms
    early = issuing.sign("a", now, validFrom="2027-01-01T00:00:00Z")
    assert "not valid yet" in issuing.judge(early).reason
    late = issuing.sign("a", now, validUntil="2026-01-01T00:10:00Z")
    verdict = verify_credential(late, documents=issuing.history(), now_ms=now + HOUR_MS)
    assert "has expired" in verdict.reason


def test_an_altered_history_is_refused(issuing: Issuing) -> None:
    issuing.rotate("b")
    answer = issuing.answer()
    data = json.dumps(answer).encode()
    assert decode_history_answer(data) == answer
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda a: a["operations"].pop(),
        lambda a: a["operations"].pop(0),
        lambda a: a["operations"].reverse(),
        lambda a: a["operations"][0].update(entry=a["operations"][1]["entry"]),
        lambda a: a["operations"][1].update(nullifiedBy=1),
        lambda a: a["proof"].update(record=None),
        lambda a: a.update(proof=None),
        lambda a: a.update(did=a["did"][:-1] + "x"),
    ]
    for change in changes:
        altered = copy.deepcopy(answer)
        change(altered)
        with pytest.raises(InvalidInputError):
            verify_history_answer(altered, trusted=VALIDATORS, chain_id=NET)
    for data in (b"[]", b"{}", b'{"did":1,"operations":[],"nextCursor":null,"proof":{}}'):
        with pytest.raises(InvalidInputError):
            decode_history_answer(data)


# --- the whole check, as `zynk vc verify` does it ---


def check(issuing: Issuing, credential: dict[str, Any], **more: Any) -> Any:
    options: dict[str, Any] = {
        "answers": [issuing.answer()], "trust": trust_of(issuing.world, 1000), "status": None,
        **more,
    }  # fmt: skip
    return check_credential(credential, **options)


def test_a_revocable_credential_without_its_list_is_refused(issuing: Issuing) -> None:
    entry = StatusEntry(list_id="https://i.example/1", index=5, purpose=REVOCATION)
    credential = issuing.sign("a", issuing.world.time_ms, credentialStatus=entry.to_json())
    found = check(issuing, credential)
    assert "status list is not at hand" in found.verdict.reason
    listed = list_credential(entry.list_id, bytes(LIST_BITS_MIN // 8))
    for status_list, reason in (
        (issuing.sign("a", issuing.world.time_ms, **{**listed, "id": "https://i.example/2"}),
         "another status list"),
        ({**listed, "issuer": "did:example:x"}, "by somebody else"),
        ({**listed, "issuer": issuing.did}, "another @context"),
        (issuing.sign("other", issuing.world.time_ms, **listed), "signature does not match"),
        (issuing.sign("a", issuing.world.time_ms, **listed), "receipt|canonical|msgpack"),
    ):  # fmt: skip
        evidence = StatusEvidence(
            status_list=status_list, receipt=b"\x90", stream=None, age_max_ms=None
        )
        found = check(issuing, credential, status=evidence)
        assert (found.verdict.is_ok, found.is_revoked) == (False, False)
        assert re.search(reason, found.verdict.reason), found.verdict.reason


def test_the_newest_answer_about_the_issuer_counts(issuing: Issuing) -> None:
    issuing.rotate("thief")
    stolen = issuing.sign("thief", issuing.world.time_ms)
    old = issuing.answer()
    assert check(issuing, stolen, answers=[old]).verdict.worth is Worth.CANNOT_TELL
    issuing.recover_to_first("c")
    new = issuing.answer()
    for answers in ([old, new], [new, old]):
        assert check(issuing, stolen, answers=answers).verdict.worth is Worth.WRONG
    assert "no answer about the issuer" in check(issuing, stolen, answers=[]).verdict.reason
    other = Issuing()
    other.rotate("b")
    assert other.did == issuing.did  # the same keys make the same DID; another chain would not
    foreign = {**old, "did": "did:zynk:x"}
    assert "no answer" in check(issuing, stolen, answers=[foreign]).verdict.reason


class Node:
    """The history pages of the world, two operations a page."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def call(self, method: str, **params: object) -> Any:
        assert method == "did_history"
        cursor = params["cursor"]
        assert isinstance(cursor, int)
        return resolver.history(self.world.view(), str(params["did"]), cursor, 2)


def test_the_answer_put_together_of_pages_proves_the_proof(issuing: Issuing) -> None:
    for name in ("b", "c", "d"):
        issuing.rotate(name)
    issuing.settle()
    trust = trust_of(issuing.world, 1000)
    issuer = asyncio.run(find_issuer(Node(issuing.world), issuing.did, key("d"), trust))
    template = complete_credential(
        {"credentialSubject": SUBJECT}, issuer=issuing.did, valid_from_ms=issuer.time_ms
    )
    signed = issuer.sign(template, JCS)
    assert issuer.method == f"{issuing.did}#key-1"
    answer = decode_history_answer(json.dumps(issuer.answer).encode())
    assert check(issuing, signed, answers=[answer]).verdict.is_ok
    with pytest.raises(UsageError, match="not one that the DID's document lists"):
        asyncio.run(find_issuer(Node(issuing.world), issuing.did, key("a"), trust))
    issuing.deactivate()
    with pytest.raises(UsageError, match="deactivated"):
        asyncio.run(find_issuer(Node(issuing.world), issuing.did, key("d"), trust))
