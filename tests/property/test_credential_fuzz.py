"""Credentials, fed mutations: what is judged is a verdict, never another error, and only a change
that means nothing leaves it good."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from did.contexts import UNDEFINED_TERMS_V2
from did.data_integrity import RDFC, add_proof, decode_document
from did.document_at import decode_history_answer
from did.json_ld import to_quads
from did.rdf_canonical import Quad, canonicalize, encode_literal
from did.status_list import REVOCATION, StatusEntry, decode_bits
from ledger.errors import InvalidInputError
from node.vc_check import CredentialVerdict, check_credential
from tests.property.campaign import examples
from tests.unit.test_credential import Issuing
from tests.unit.trust_fixture import trust_of
from tests.vectors.did_world import key

ISSUING = Issuing()
ENTRY = StatusEntry(list_id="https://i.example/1", index=5, purpose=REVOCATION)
CREDENTIAL = ISSUING.sign("a", ISSUING.world.time_ms, RDFC, validUntil="2030-01-01T00:00:00Z")
JCS_CREDENTIAL = ISSUING.sign("a", ISSUING.world.time_ms, description="x")
ANSWER = ISSUING.answer()
ODD: list[Any] = [
    None, True, 0, -1, 2**60, 1.5, "", "x", "\ud800", "_:b0", "did:zynk:x", [], {}, [[]], [None],
    {"id": None}, {"@value": 1}, {"@id": "urn:x"}, "https://www.w3.org/ns/credentials/v2",
    {"type": "VerifiableCredential"}, "VerifiableCredential", ENTRY.to_json(),
]  # fmt: skip
NAMES = [
    "credentialStatus",
    "validUntil",
    "@context",
    "id",
    "@id",
    "type",
    "proof",
    "@graph",
    "x:y",
]


def judge(credential: Any, answer: Any = ANSWER) -> CredentialVerdict:
    return check_credential(
        credential,
        answers=[answer],
        trust=trust_of(ISSUING.world, 1000),
        status=None,
    )


def mutate(data: st.DataObject, document: dict[str, Any]) -> dict[str, Any]:
    """The document with one member removed, replaced, added or doubled, at any depth."""
    changed = copy.deepcopy(document)
    target: Any = changed
    while True:
        names = list(target) if isinstance(target, dict) else list(range(len(target)))
        if not names:
            return changed
        name = data.draw(st.sampled_from(names))
        if not isinstance(target[name], dict | list) or data.draw(st.booleans()):
            break
        target = target[name]
    what = data.draw(st.sampled_from(["drop", "replace", "add", "list"]))
    if what == "drop":
        del target[name]
    elif what == "replace":
        target[name] = data.draw(st.sampled_from(ODD))
    elif what == "list":
        target[name] = [target[name]]
    elif isinstance(target, dict):
        target[data.draw(st.sampled_from(NAMES))] = data.draw(st.sampled_from(ODD))
    return changed


def meaning(document: dict[str, Any], suite: str) -> object:
    """What the suite's signature covers of the document: quads, or the JSON as it stands."""
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    return canonicalize(to_quads(unsecured)) if suite == RDFC else unsecured


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_a_mutated_credential_is_good_only_if_it_means_the_same(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([CREDENTIAL, JCS_CREDENTIAL]))
    changed = mutate(data, original)
    verdict = judge(changed)
    if verdict.verdict.is_ok:
        suite = original["proof"]["cryptosuite"]
        assert meaning(changed, suite) == meaning(original, suite)
        assert changed.get("validUntil") == original.get("validUntil")
    assert not verdict.is_revoked
    json.dumps(verdict.to_json())


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_a_mutated_answer_is_never_taken(data: st.DataObject) -> None:
    changed = mutate(data, ANSWER)
    if changed != ANSWER:
        try:
            verdict = judge(CREDENTIAL, decode_answer(changed))
        except InvalidInputError:
            return
        assert not verdict.verdict.is_ok


def decode_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """As it comes from a file."""
    return decode_history_answer(json.dumps(answer).encode())


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_noise_is_refused_by_every_reader(noise: bytes) -> None:
    for read in (decode_document, lambda raw: decode_bits(raw.decode("latin-1"))):
        try:
            read(noise)
        except InvalidInputError:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "type", "name", "x", "proof", "@value"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=examples(200), deadline=None)
@given(JSON)
def test_any_claims_are_signed_or_refused_and_never_lost(claims: Any) -> None:
    document = {
        "@context": ["https://www.w3.org/ns/credentials/v2", UNDEFINED_TERMS_V2],
        "type": ["VerifiableCredential"],
        "credentialSubject": {"id": "urn:s", "y": claims},
    }
    try:
        signed = add_proof(
            document, suite=RDFC, verification_method="urn:k", created_ms=0, key=key("a")
        )
    except InvalidInputError:
        return
    quads = to_quads({name: value for name, value in signed.items() if name != "proof"})
    assert any("undefined-term#y>" in quad.predicate for quad in quads)
    for text in texts(claims):
        assert any(json_text(text) in quad.to_line() for quad in quads)


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return (
        [text for item in value.values() for text in texts(item)] if isinstance(value, dict) else []
    )


def json_text(text: str) -> str:
    return encode_literal(text)[1:-1]


def test_quads_are_told_apart_by_every_member() -> None:
    quads = [
        Quad("<urn:a>", "<urn:p>", "<urn:b>"),
        Quad("<urn:a>", "<urn:p>", "<urn:b>", "<urn:g>"),
    ]
    assert canonicalize(quads).count("\n") == 2
