"""A resolver that lies is caught, whatever kind of answer it gives: what `zynk did verify` does,
offline, with nothing but a trusted validator set (test_cli_did.py runs the command itself)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from did import resolver
from did.batch import resolve_batch
from did.dereference import dereferencing_result
from did.verify import Outcome, Verdict
from did.verify_answer import Basis, verify_answer
from did.version import format_time
from ledger.errors import InvalidInputError, UsageError
from tests.unit.test_did_version import STRANGER, History
from tests.vectors.did_world import NET, VALIDATORS, dereference_answer

BASIS = Basis(trusted=VALIDATORS, chain_id=NET, max_age_ms=None, now_ms=None)


class Asked:
    """A question with a true answer."""

    def __init__(
        self, answer: dict[str, Any], asked: list[str], options: Mapping[str, object]
    ) -> None:
        self.answer: dict[str, Any] = json.loads(json.dumps(answer))
        self.asked = asked
        self.options = options

    def verify(self, answer: Any, basis: Basis = BASIS) -> list[Verdict]:
        data = json.dumps(answer).encode()
        return verify_answer(data, asked=self.asked, options=self.options, basis=basis)


def _dereference(past: History, tail: str, **options: object) -> dict[str, Any]:
    return dereference_answer(past.world.view(), past.did + tail, **options)


def _make_past() -> History:
    past = History()
    past.create()
    past.update()
    past.update()
    past.recover(1)
    past.update()
    past.world.block([])
    return past


def _make_questions(past: History) -> dict[str, Asked]:
    view, did = past.world.view(), past.did
    version = {"versionId": past.versions[1]}
    time = {"versionTime": format_time(past.times[1])}
    return {
        "newest": Asked(resolver.resolve(view, did), [did], {}),
        "version": Asked(past.ask(view, version_id=past.versions[1]), [did], version),
        "time": Asked(past.ask(view, version_time=time["versionTime"]), [did], time),
        "height": Asked(past.ask(view, as_of_height=2), [did], {"asOfHeight": 2}),
        "set aside": Asked(
            past.ask(view, version_id=past.versions[2]), [did], {"versionId": past.versions[2]}
        ),
        "absent": Asked(resolver.resolve(view, STRANGER), [STRANGER], {}),
        "document": Asked(_dereference(past, ""), [did], {}),
        "key": Asked(_dereference(past, "#k1"), [did + "#k1"], {}),
        "key for": Asked(
            _dereference(past, "#k1", verificationRelationship="authentication"),
            [did + "#k1"], {"verificationRelationship": "authentication"},
        ),
        "old key": Asked(
            _dereference(past, "#k1", versionId=past.versions[1]), [did + "#k1"], version
        ),
        "service": Asked(_dereference(past, "?service=s"), [did + "?service=s"], {}),
        "no key": Asked(_dereference(past, "#no"), [did + "#no"], {}),
        "no version": Asked(
            _dereference(past, "#k1", versionId=past.versions[2]),
            [did + "#k1"], {"versionId": past.versions[2]},
        ),
        "batch": Asked(resolve_batch(view, [did, STRANGER]), [did, STRANGER], {}),
        "history": Asked(resolver.history(view, did), [did], {}),
        "page": Asked(resolver.history(view, did, 1, 2), [did], {}),
        "record": Asked(resolver.proof(view, did), [did], {}),
        "no record": Asked(resolver.proof(view, STRANGER), [STRANGER], {}),
    }  # fmt: skip


PAST = _make_past()
QUESTIONS = _make_questions(PAST)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_true_answer_of_each_kind_verifies(kind: str) -> None:
    question = QUESTIONS[kind]
    verdicts = question.verify(question.answer)
    assert [v.height for v in verdicts] == [PAST.world.height] * len(question.asked)
    assert all(verdict.steps for verdict in verdicts)
    wrapped = {"jsonrpc": "2.0", "id": 1, "result": question.answer}
    assert question.verify(wrapped) == verdicts
    absent = {"set aside", "absent", "no version", "no record"}
    assert (verdicts[0].outcome is Outcome.NOT_FOUND) is (kind in absent)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path
    for name, item in items:
        yield from _leaves(item, (*path, name))


def _changed(answer: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    lie = copy.deepcopy(answer)
    holder = lie
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = change(holder[path[-1]])
    return lie


def _twist(value: Any) -> Any:
    if isinstance(value, str):
        middle = len(value) // 2
        other = "A" if value[middle : middle + 1] != "A" else "B"
        return value[:middle] + other + value[middle + 1 :]
    if isinstance(value, bool) or value is None:
        return 1
    return value + 1


@pytest.mark.parametrize("kind", QUESTIONS)
def test_altered_answer_is_caught_wherever_it_was_altered(kind: str) -> None:
    question = QUESTIONS[kind]
    paths = list(_leaves(question.answer))
    assert len(paths) > 5
    for path in paths:
        if kind == "page" and path[-1] == "nullifiedBy":
            continue  # a part of a history does not show it, and says so
        changes: tuple[Callable[[Any], Any], ...] = (_twist, lambda _: None, lambda _: [])
        for change in changes:
            lie = _changed(question.answer, path, change)
            if lie == question.answer:
                continue
            with pytest.raises((InvalidInputError, UsageError)):
                question.verify(lie)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answer_from_another_chain_or_too_old_is_caught(kind: str) -> None:
    question, now = QUESTIONS[kind], PAST.world.time_ms
    young = Basis(trusted=VALIDATORS, chain_id=NET, max_age_ms=60_000, now_ms=now + 60_000)
    question.verify(question.answer, young)
    for basis in (
        Basis(trusted=VALIDATORS, chain_id="zynk-other", max_age_ms=None, now_ms=None),
        Basis(trusted=VALIDATORS, chain_id=NET, max_age_ms=60_000, now_ms=now + 60_001),
    ):
        with pytest.raises(InvalidInputError):
            question.verify(question.answer, basis)


def test_stale_answer_with_a_newer_header_is_caught() -> None:
    """The state of before an update, dressed up as that of now."""
    past = _make_past()
    before = resolver.resolve(past.world.view(), past.did)
    past.update()
    newer = resolver.resolve(past.world.view(), past.did)
    question = Asked(newer, [past.did], {})
    question.verify(newer)
    lie = copy.deepcopy(before)
    for name in ("header", "certificate"):
        proof = newer["didDocumentMetadata"]["proof"][0]
        lie["didDocumentMetadata"]["proof"][0][name] = proof[name]
    with pytest.raises(InvalidInputError, match="root"):
        question.verify(lie)


def test_certificate_of_another_block_does_not_make_a_header_final() -> None:
    past = _make_past()
    answer = resolver.resolve(past.world.view(), past.did)
    past.world.block([])
    later = resolver.resolve(past.world.view(), past.did)["didDocumentMetadata"]["proof"][0]
    lie = copy.deepcopy(answer)
    lie["didDocumentMetadata"]["proof"][0]["certificate"] = later["certificate"]
    with pytest.raises(InvalidInputError):
        Asked(answer, [past.did], {}).verify(lie)


def test_hidden_did_is_caught() -> None:
    """'There is no such DID', with the true proof that another one does not exist."""
    past, stranger = PAST, QUESTIONS["absent"].answer
    lie = json.loads(json.dumps(stranger).replace(STRANGER, past.did))
    with pytest.raises(InvalidInputError):
        QUESTIONS["newest"].verify(lie)
    with pytest.raises(InvalidInputError):
        QUESTIONS["key"].verify(dereferencing_result(None, lie["didResolutionMetadata"], {}))
    batch = copy.deepcopy(QUESTIONS["batch"].answer)
    batch["results"][0] = resolver.not_found_result(past.did)
    batch["proof"]["records"][0] = None
    with pytest.raises(InvalidInputError):
        QUESTIONS["batch"].verify(batch)


def test_true_answer_to_another_question_is_caught() -> None:
    for kind, question in QUESTIONS.items():
        for other, asked in QUESTIONS.items():
            same = (question.asked, question.options) == (asked.asked, asked.options)
            if same or {kind, other} == {"key", "key for"}:
                continue
            if {kind, other} <= {"version", "time", "height"}:
                continue  # different ways to ask for the same version
            if (kind, other) == ("no version", "set aside"):
                continue  # the same fact in the form of the other function
            with pytest.raises((InvalidInputError, UsageError)):
                asked.verify(question.answer)


def test_answer_that_names_no_did_needs_the_question() -> None:
    absent = QUESTIONS["absent"].answer
    with pytest.raises(UsageError):
        verify_answer(json.dumps(absent).encode(), asked=[], options={}, basis=BASIS)
    for data in (b"[]", b"{", b'{"a":1,"a":1}', b"null"):
        with pytest.raises(InvalidInputError):
            verify_answer(data, asked=[STRANGER], options={}, basis=BASIS)
