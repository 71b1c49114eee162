"""The JavaScript and the Python verifier judge DID answers of every kind alike: true ones, and
thousands with something changed, under trust points of every sort, young enough and too old."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from did import strict_json
from did.batch import BATCH_PROOF_TYPE
from did.record import Record
from did.resolver import PROOF_TYPE
from did.verify import (
    ANSWER_BYTES_MAX,
    decode_finality,
    decode_proof_finality,
    split_proof,
    verify_proof,
)
from did.verify_answer import Basis, verify_answer
from did.verify_history import verify_history
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.light import TrustPoint, Verdict, judge_decoded
from ledger.validator_set import Validator, ValidatorSet
from tests.property.answer_changes import CHANGES, PARTS, change_part, nothing, texts_of
from tests.property.campaign import examples
from tests.property.did_lives import STRANGER, Lives, Question
from tests.property.light_bundles import Bundle
from tests.property.test_light_bundles import run_js
from tests.vectors.did_world import NET, START_MS, VALIDATORS, key

COUNT = examples(600, 4_000)
PAIRS = examples(300, 2_000)
SEED = 20_260_101
KINDS = ("newest", "older", "part", "batch", "history")
SHARES = (*Verdict, Verdict.VALID, Verdict.VALID)
"""The verdicts that true answers get by their basis, in turn; 7, to meet every one of 6 changes."""
TRUST = TrustPoint(
    chain_id=NET,
    height=0,
    time_ms=START_MS,
    validators=VALIDATORS,
    trusting_period_ms=10**12,
    header_hash=bytes(32),
)
STRANGERS = ValidatorSet.of([Validator(public_key=key("somebody").public_key, power=1)])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question with an answer, true or not, whom the asker trusts, and when. `expected` is the
    verdict on it as far as the case says so."""

    name: str
    question: Question
    trust: TrustPoint
    now_ms: int
    max_age_ms: int | None
    expected: Verdict | None

    def to_json(self) -> dict[str, Any]:
        bundle = Bundle(
            name=self.name,
            trust=self.trust,
            proof=b"",
            now_ms=self.now_ms,
            max_age_ms=self.max_age_ms,
            expected=None,
        )
        shown = {**bundle.to_json(), "asked": self.question.asked, "texts": self.question.texts}
        kind = "history" if self.question.kind == "history" else "answer"
        return {**shown, "options": self.question.options, "kind": kind}


# --- the verdict in Python ---


def judge(case: Case) -> Verdict:
    """What is refused whatever the rest says comes from the light verifier, and then everything
    from `verify_answer`, as the light client has it."""
    try:
        if case.question.kind == "history":
            return _judge_history(case)
        (text,) = case.question.texts
        judged = _judge_finality(case, _find_finality(case.question, text))
        if judged in (Verdict.WRONG, Verdict.CANNOT_TELL):
            return judged
        asked = case.question.asked
        verify_answer(
            text.encode(),
            asked=[asked] if isinstance(asked, str) else asked,
            options=case.question.options,
            basis=Basis(
                trusted=case.trust.validators,
                chain_id=case.trust.chain_id,
                max_age_ms=None,
                now_ms=None,
            ),
        )
    except InvalidInputError:
        return Verdict.WRONG
    return judged


def _judge_finality(case: Case, finality: FinalityProof) -> Verdict:
    return judge_decoded(
        finality, case.trust, now_ms=case.now_ms, max_age_ms=case.max_age_ms
    ).verdict


def _find_finality(question: Question, text: str) -> FinalityProof:
    """Raises InvalidInputError."""
    answer = strict_json.decode(text.encode(), bytes_max=ANSWER_BYTES_MAX)
    if type(answer) is not dict:
        raise InvalidInputError("answer is not an object")
    if question.kind == "batch":
        proof = _members(answer, {"results", "proof"})["proof"]
        names = {"type", "records", "multiproof", "header", "certificate", "handoffs"}
        if _members(proof, names)["type"] != BATCH_PROOF_TYPE:
            raise InvalidInputError("proof has another type")
        return decode_finality(proof)
    if "dereferencingMetadata" in answer:
        answer = _find_resolution(answer)
    names = {"didDocument", "didResolutionMetadata", "didDocumentMetadata"}
    resolution = _members(answer, names)["didResolutionMetadata"]
    metadata = answer["didDocumentMetadata"]
    if type(resolution) is not dict or type(metadata) is not dict:
        raise InvalidInputError("metadata is not an object")
    plain, _ = split_proof((metadata if "error" not in resolution else resolution).get("proof"))
    if type(plain) is dict and plain.get("type") != PROOF_TYPE:
        raise InvalidInputError("proof has another type")
    return decode_proof_finality(plain)


def _find_resolution(answer: dict[str, Any]) -> dict[str, Any]:
    _members(answer, {"dereferencingMetadata", "content", "contentStream", "contentMetadata"})
    shown, metadata = answer["dereferencingMetadata"], answer["contentMetadata"]
    if type(shown) is not dict or type(metadata) is not dict:
        raise InvalidInputError("metadata is not an object")
    if "proof" in shown:
        metadata, resolution = {}, shown
    else:
        metadata = shown.get("didDocumentMetadata") if "error" in shown else metadata
        resolution = {"contentType": "application/did"}
    return {
        "didDocument": None,
        "didResolutionMetadata": resolution,
        "didDocumentMetadata": metadata,
    }


def _members(value: Any, names: set[str]) -> Any:
    if type(value) is not dict or value.keys() != names:
        raise InvalidInputError("answer is malformed")
    return value


def _judge_history(case: Case) -> Verdict:
    """As `node.identity` reads pages, and that a page says nothing else."""
    did = case.question.asked
    decoded = [
        strict_json.decode(text.encode(), bytes_max=ANSWER_BYTES_MAX)
        for text in case.question.texts
    ]
    verdicts: list[Verdict] = []
    records: list[Record | None] = []
    items: list[Any] = []
    for page in decoded:
        _members(page, {"did", "operations", "nextCursor", "proof"})
        if page["did"] != did or type(page["operations"]) is not list:
            raise InvalidInputError("page is of another DID")
        proof = page["proof"]
        if type(proof) is dict and proof.get("type") != PROOF_TYPE:
            raise InvalidInputError("proof has another type")
        verdict = _judge_finality(case, decode_proof_finality(proof))
        if verdict in (Verdict.WRONG, Verdict.CANNOT_TELL):
            return verdict
        assert isinstance(did, str)
        _, record, _ = verify_proof(
            proof,
            did=did,
            trusted=case.trust.validators,
            chain_id=case.trust.chain_id,
            max_age_ms=None,
            now_ms=None,
        )
        if records and (record and record.head) != (records[0] and records[0].head):
            raise InvalidInputError("the DID changed")
        verdicts.append(verdict)
        records.append(record)
        items += page["operations"]
    if records[0] is not None:
        verify_history(items, records[0])
    elif items:
        raise InvalidInputError("operations of nobody")
    return verdicts[0]


# --- cases ---


def basis_cases(lives: Lives) -> dict[str, tuple[TrustPoint, int, int | None, Verdict]]:
    """(trust, now, maximum age, the verdict on a true answer of the newest block), by name."""
    view = lives.world.view()
    height, time_ms, own = view.height, view.time_ms, view.finality.header.hash
    at_head = replace(TRUST, height=height, time_ms=time_ms)
    short = replace(TRUST, trusting_period_ms=1_000)
    return {
        "trusted": (TRUST, time_ms + 1_000, None, Verdict.VALID),
        "young": (TRUST, time_ms + 60_000, 60_000, Verdict.VALID),
        "too old": (TRUST, time_ms + 60_001, 60_000, Verdict.TOO_OLD),
        "expired": (short, time_ms, None, Verdict.VALID_BUT_EXPIRED_TRUST),
        "expired, young": (short, time_ms, 60_000, Verdict.VALID_BUT_EXPIRED_TRUST),
        "expired, too old": (short, time_ms + 9, 8, Verdict.TOO_OLD),
        "trust above": (replace(at_head, height=height + 1), time_ms, None, Verdict.CANNOT_TELL),
        "header unknown": (replace(at_head, header_hash=b""), time_ms, 9, Verdict.CANNOT_TELL),
        "header known": (replace(at_head, header_hash=own), time_ms, None, Verdict.VALID),
        "another header": (at_head, time_ms, None, Verdict.WRONG),
        "another chain": (replace(TRUST, chain_id="another"), time_ms, None, Verdict.WRONG),
        "strangers": (replace(TRUST, validators=STRANGERS), time_ms, None, Verdict.WRONG),
        "a little ahead": (TRUST, time_ms - 10_000, 60_000, Verdict.VALID),
        "in the future": (TRUST, time_ms - 10_001, 60_000, Verdict.WRONG),
    }


def true_cases(lives: Lives, questions: Sequence[Question]) -> Iterator[Case]:
    """Each question under the plainest trust; each basis with one question of each kind."""
    bases = basis_cases(lives)
    first = {kind: next(q for q in questions if q.kind == kind) for kind in KINDS}
    for name, (trust, now_ms, max_age_ms, expected) in bases.items():
        for question in questions if name == "trusted" else first.values():
            yield Case(
                name=f"true, {name}",
                question=question,
                trust=trust,
                now_ms=now_ms,
                max_age_ms=max_age_ms,
                expected=expected,
            )


def mutated_cases(lives: Lives, questions: Sequence[Question], count: int) -> Iterator[Case]:
    """`count` cases: kinds, changes, parts and bases take turns; a third have nothing changed."""
    random = Random(SEED)
    bases = basis_cases(lives)
    of_kind = {kind: [q for q in questions if q.kind == kind] for kind in KINDS}
    of_verdict = {v: [name for name, basis in bases.items() if basis[3] is v] for v in Verdict}
    changer = _Changer(lives, random)
    for number in range(count):
        question = random.choice(of_kind[KINDS[number % len(KINDS)]])
        at = random.randrange(len(question.texts))
        name, text = changer.change(question, at, number // len(KINDS))
        texts = (*question.texts[:at], text, *question.texts[at + 1 :])
        share = SHARES[number // len(KINDS) % len(SHARES)]
        basis = random.choice(of_verdict[share])
        trust, now_ms, max_age_ms, _ = bases[basis]
        yield Case(
            name=f"{name}, {basis}",
            question=replace(question, texts=texts),
            trust=trust,
            now_ms=now_ms,
            max_age_ms=max_age_ms,
            expected=None,
        )


class _Changer:
    """Gives (what was changed, the text)."""

    def __init__(self, lives: Lives, random: Random) -> None:
        self._lies = _lies(lives)
        self._random = random
        self._parts: Counter[str] = Counter()

    def change(self, question: Question, at: int, number: int) -> tuple[str, str]:
        text = question.texts[at]
        match number % 6:
            case 0 | 1:
                return "unchanged", nothing(json.loads(text), self._random)
            case 2 | 3:
                change = CHANGES[(number // 6 * 2 + number % 2) % len(CHANGES)]
                return change.__name__, change(json.loads(text), self._random)
            case 4 if question.kind != "history" and isinstance(question.asked, str):
                did = question.asked[:56]
                return "another answer", self._random.choice([t for t in self._lies if did in t])
            case _:
                return self._change_part(json.loads(text))

    def _change_part(self, value: Any) -> tuple[str, str]:
        """In the part that was changed least so far, of those that are there."""
        part = min((p for p in PARTS if texts_of(value, p)), key=lambda p: self._parts[p])
        self._parts[part] += 1
        return f"part {part}", change_part(value, part, self._random)


def _lies(lives: Lives) -> list[str]:
    """Answers that are true of another question, or were once, and such in newer dress."""
    questions = lives.questions()
    found = [q.texts[0] for q in questions if q.kind in ("newest", "older", "part")]
    newest = json.loads(questions[0].texts[0])["didDocumentMetadata"]["proof"][0]
    for text in lives.early:
        stale = json.loads(text)
        found.append(text)
        for name in ("header", "certificate"):
            stale["didDocumentMetadata"]["proof"][0][name] = newest[name]
        found.append(json.dumps(stale))
    hidden = [t.replace(STRANGER, lives.owner) for t in found if STRANGER in t]
    return [*found, *hidden]


@pytest.fixture(scope="module")
def lives() -> Lives:
    return Lives()


@pytest.fixture(scope="module")
def questions(lives: Lives) -> list[Question]:
    return lives.questions()


def compare(cases: Sequence[Case]) -> Counter[tuple[str, Verdict]]:
    """Judge all by both; how often each kind met each verdict."""
    seen: Counter[tuple[str, Verdict]] = Counter()
    shown = [line.partition(" ")[0] for line in run_js([case.to_json() for case in cases])]
    for case, in_js in zip(cases, shown, strict=True):
        verdict = judge(case)
        assert verdict == in_js, (case.name, verdict, in_js, case.question)
        assert case.expected in (None, verdict), (case.name, verdict, case.question)
        seen[case.question.kind, verdict] += 1
    return seen


@pytest.mark.slow
def test_both_verifiers_take_every_true_answer_for_what_it_is(
    lives: Lives, questions: list[Question]
) -> None:
    seen = compare(list(true_cases(lives, questions)))
    kinds = Counter(question.kind for question in questions)
    assert min(kinds[kind] for kind in KINDS) >= 4
    for kind in KINDS:
        assert seen[kind, Verdict.VALID] >= kinds[kind]


@pytest.mark.slow
def test_both_verifiers_give_the_same_verdict_on_mutated_answers(
    lives: Lives, questions: list[Question], record_property: Callable[[str, object], None]
) -> None:
    cases = list(mutated_cases(lives, questions, COUNT))
    seen = compare(cases)
    parts = Counter(case.name.split(",")[0] for case in cases)
    table = {k: {v.value: seen[k, v] for v in Verdict} for k in KINDS}
    for name, value in (("verdicts", table), ("changes", dict(parts))):
        record_property(name, json.dumps(value))
        print(f"{name}: {json.dumps(value)}")
    assert sum(seen.values()) == COUNT >= 600
    for kind in KINDS:
        for verdict in Verdict:
            assert seen[kind, verdict] >= COUNT // 200, (kind, verdict, table)
        assert seen[kind, Verdict.WRONG] <= 0.7 * COUNT / len(KINDS), (kind, table)
    for part in PARTS:
        assert parts[f"part {part}"] >= 2, (part, parts)


@pytest.mark.slow
def test_both_verifiers_take_a_true_answer_about_one_version_for_no_other(
    lives: Lives, questions: list[Question]
) -> None:
    """Where two questions mean one version, its answer is an answer to both."""
    older = [q for q in questions if q.asked == lives.owner and len(q.options) == 1]
    older = [q for q in older if q.kind == "older"]
    pairs = [(asked, other) for asked in older for other in older]
    if len(pairs) > PAIRS:
        pairs = Random(SEED).sample(pairs, PAIRS)
    cases = [
        replace(plain_case("another version", asked), question=replace(asked, texts=other.texts))
        for asked, other in pairs
    ]
    seen = compare(cases)
    assert seen["older", Verdict.WRONG] > len(cases) // 2
    assert seen["older", Verdict.VALID] > len(cases) // len(older)


@pytest.mark.slow
def test_history_tells_who_was_in_charge_after_each_operation_as_the_chain_had_it(
    lives: Lives,
) -> None:
    dids = (lives.owner, lives.gone, lives.back)
    items = [history_case("true", d, lives.pages(d)).to_json() for d in dids]
    for did, line in zip(dids, run_js(items), strict=True):
        verdict, _, shown = line.partition(" ")
        expected = lives.authority[did]
        changes = [at == 0 or now != expected[at - 1] for at, now in enumerate(expected)]
        assert verdict == "valid"
        assert json.loads(shown) == [list(pair) for pair in zip(changes, expected, strict=True)]
    assert len(lives.authority[lives.owner]) == 8


def history_case(name: str, did: str, pages: Sequence[Any]) -> Case:
    texts = tuple(json.dumps(page) for page in pages)
    return plain_case(name, Question(kind="history", asked=did, texts=texts))


def plain_case(name: str, question: Question) -> Case:
    return Case(
        name=name,
        question=question,
        trust=TRUST,
        now_ms=START_MS + 10**9,
        max_age_ms=None,
        expected=None,
    )


def moved_operations(pages: list[Any], lives: Lives) -> dict[str, list[Any]]:
    """Histories of which each part is true by itself."""

    def changed(change: Callable[[list[Any]], object]) -> list[Any]:
        copy = json.loads(json.dumps(pages))
        change(copy)
        return list(copy)

    other = lives.pages(lives.gone)
    return {
        "last page missing": pages[:-1],
        "pages out of order": pages[::-1],
        "a page twice": [pages[0], *pages],
        "an operation missing": changed(lambda p: p[0]["operations"].pop()),
        "nullified hidden": changed(lambda p: p[1]["operations"][0].update(nullifiedBy=None)),
        "nullified by another": changed(lambda p: p[1]["operations"][0].update(nullifiedBy=6)),
        "nullified invented": changed(lambda p: p[0]["operations"][1].update(nullifiedBy=6)),
        "operations of another": changed(lambda p: p[0].update(operations=other[0]["operations"])),
        "proof of another": changed(lambda p: p[0].update(proof=other[0]["proof"])),
    }


@pytest.mark.slow
def test_a_history_made_of_true_parts_is_refused_by_both(lives: Lives) -> None:
    moved = moved_operations(lives.pages(lives.owner), lives)
    cases = [history_case(name, lives.owner, pages) for name, pages in moved.items()]
    for case, line in zip(cases, run_js([case.to_json() for case in cases]), strict=True):
        assert (line, judge(case)) == ("wrong []", Verdict.WRONG), case.name
