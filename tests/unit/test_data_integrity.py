"""Data Integrity proofs: the published vectors, and documents altered in every way that the eye
could miss."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import base58
import pytest

from did.contexts import FILE_BY_URL, load_context
from did.data_integrity import (
    JCS,
    RDFC,
    SUITES,
    add_proof,
    decode_document,
    format_date_time,
    read_date_time,
    read_proof,
    verify_signature,
)
from did.json_ld import OBJECTS_MAX, to_quads
from did.multikey import decode_multikey
from did.rdf_canonical import canonicalize
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError

ROOT = Path(__file__).parent.parent.parent
VECTORS = json.loads((ROOT / "tests" / "vectors" / "vc_di_eddsa.json").read_text())
KEY = KeyPair.from_seed(base58.b58decode(VECTORS["secretKeyMultibase"][1:])[2:34])
PUBLIC = decode_multikey(VECTORS["publicKeyMultibase"])
CREATED_MS = read_date_time(VECTORS["created"], "created")
CONTEXT_HASHES = {
    "https://www.w3.org/ns/credentials/v2": (
        "8a9f494a89ecc51db093e90e84713e07e84d6d9204364a9b3c7868b21751236f"
    ),
    "https://www.w3.org/ns/credentials/examples/v2": (
        "e6600df812cdc1872f20b42ab0c1cecac39755b7ed381e7f6a88dac7baab54d6"
    ),
    "https://www.w3.org/ns/credentials/undefined-terms/v2": (
        "82dab514ba44eb18f5d1b0f638c5e140c6a556fbfb5089601bdc0fa5eb8b2581"
    ),
    "https://w3id.org/security/data-integrity/v2": (
        "0f77743daf5b4e8fc067fc5ba5b21044283053aa717fc6b0219843bed3b00363"
    ),
}


def signed(suite: str, **changes: Any) -> dict[str, Any]:
    return add_proof(
        {**VECTORS["credential"], **changes},
        suite=suite,
        verification_method=VECTORS["verificationMethod"],
        created_ms=CREATED_MS,
        key=KEY,
    )


def verify(document: dict[str, Any]) -> None:
    verify_signature(document, read_proof(document), PUBLIC)


@pytest.mark.parametrize("suite", SUITES)
def test_the_published_vector(suite: str) -> None:
    document = signed(suite)
    assert KEY.public_key == PUBLIC
    assert document["proof"]["proofValue"] == VECTORS["suites"][suite]["proofValue"]
    verify(document)


def test_the_published_intermediate_values() -> None:
    expected = VECTORS["suites"][RDFC]
    options = signed(RDFC)["proof"]
    del options["proofValue"]
    for name, form in (
        ("document", VECTORS["credential"]),
        ("options", {**options, "@context": VECTORS["credential"]["@context"]}),
    ):
        nquads = canonicalize(to_quads(form))
        assert nquads == expected[name + "Nquads"]
        assert hashlib.sha256(nquads.encode()).hexdigest() == expected[name + "Hash"]


def test_a_document_signed_by_another_implementation() -> None:
    document = VECTORS["foreign"]
    proof = read_proof(document)
    key = decode_multikey(proof.verification_method.split("#")[1])
    verify_signature(document, proof, key)
    document = {**document, "recipient": "did:web:other.example"}
    with pytest.raises(InvalidInputError, match="signature does not match"):
        verify_signature(document, read_proof(document), key)


@pytest.mark.parametrize("suite", SUITES)
def test_any_altered_value_or_option_breaks_the_signature(suite: str) -> None:
    document = signed(suite)
    paths = [
        ("id",), ("name",), ("issuer",), ("validFrom",), ("type", 1), ("credentialSubject", "id"),
        ("credentialSubject", "alumniOf"), ("proof", "verificationMethod"),
        ("proof", "proofPurpose"),
    ]  # fmt: skip
    for path in paths:
        changed = copy.deepcopy(document)
        target: Any = changed
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] += "x"
        with pytest.raises(InvalidInputError, match="signature does not match"):
            verify(changed)
    moved = copy.deepcopy(document)
    moved["proof"]["created"] = "2023-02-24T23:36:39Z"
    with pytest.raises(InvalidInputError, match="signature does not match"):
        verify(moved)
    added = {**document, "validUntil": "2033-01-01T00:00:00Z"}
    with pytest.raises(InvalidInputError, match="signature does not match"):
        verify(added)
    other = copy.deepcopy(document)
    other["proof"]["cryptosuite"] = RDFC if suite == JCS else JCS
    with pytest.raises(InvalidInputError, match="signature does not match"):
        verify(other)


def _with_subject(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["credentialSubject"].update(members)


def _move_into_inner_root(document: dict[str, Any]) -> None:
    # the same quads, but who reads the JSON sees no end of validity at the top
    until = document.pop("validUntil")
    document["credentialSubject"]["about"] = {
        "id": document["id"], "type": "VerifiableCredential", "validUntil": until,
    }  # fmt: skip


DISGUISES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a member that no context defines": (
        lambda d: d.update({"@context": d["@context"][:1]}), "no context defines"),
    "null": (_with_subject(x=None), "null"),
    "an empty list": (_with_subject(x=[]), "empty list"),
    "a relative id": (_with_subject(id="abc"), "not an absolute IRI"),
    "an id that breaks out of its brackets": (_with_subject(id="urn:x> <urn:y"), "not an absolute"),
    "a blank node label": (_with_subject(id="_:b0"), "blank node label"),
    "a blank node as issuer": (lambda d: d.update(issuer="_:b0"), "not an absolute IRI"),
    "an inline context": (lambda d: d["@context"].append({"x": "urn:x"}), "inline"),
    "a context of someone else": (lambda d: d["@context"].append("https://evil.example/"),
        "not one of those"),
    "a context inside": (
        _with_subject(**{"@context": VECTORS["credential"]["@context"]}), "not a plain term"),
    "a second name of a property": (
        lambda d: d.update({"https://www.w3.org/2018/credentials#validUntil": d.pop("validUntil")}),
        "not a plain term"),
    "a keyword": (_with_subject(**{"@included": {"id": "urn:a"}}), "not a plain term"),
    "a member moved into an inner object with the same id": (
        _move_into_inner_root, "document's own id"),
    "a language that is none": (
        lambda d: d.update(name={"@value": "x", "@language": "e n"}), "language tag"),
    "a vocabulary name with a space": (_with_subject(**{"a b": "x"}), "no context defines"),
    "too many objects": (_with_subject(x=[{"y": str(i)} for i in range(OBJECTS_MAX)]), "too many"),
    "too many values": (_with_subject(x=[str(i) for i in range(2000)]), "too deep or too large"),
    "a value that is none": (lambda d: d.update(name={"@value": {"a": "b"}}), "not JSON-LD"),
}  # fmt: skip


@pytest.mark.parametrize("name", DISGUISES)
def test_what_rdf_would_lose_or_disguise_is_refused(name: str) -> None:
    disguise, reason = DISGUISES[name]
    plain = copy.deepcopy({**VECTORS["credential"], "validUntil": "2033-01-01T00:00:00Z"})
    plain["credentialSubject"]["about"] = plain["id"]
    verify(signed(RDFC, **plain))
    disguise(plain)
    with pytest.raises(InvalidInputError, match=reason):
        to_quads(plain)
    with pytest.raises(InvalidInputError, match=reason):
        verify({**signed(RDFC), **plain})


def test_each_name_that_a_verifier_reads_is_the_only_one_of_its_property() -> None:
    read = ("credentialStatus", "issuer", "validFrom", "validUntil", "credentialSubject",
            "encodedList", "statusListIndex", "statusListCredential", "statusPurpose")  # fmt: skip
    names: dict[str, set[str]] = {}

    def collect(value: object) -> None:
        if isinstance(value, list):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            for name, member in value.items():
                iri = member.get("@id") if isinstance(member, dict) else member
                if isinstance(iri, str):
                    names.setdefault(iri, set()).add(name)
                collect(member)

    for url in FILE_BY_URL:
        collect(load_context(url)["@context"])
    for iri, aliases in names.items():
        if aliases & set(read):
            assert len(aliases - {"@id"}) == 1, iri


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["types", "same subject", "nested"])
def test_hostile_json_ld_ends_in_bounded_time(shape: str) -> None:
    types = [
        "BitstringStatusListCredential",
        "VerifiablePresentation",
        "JsonSchema",
        "BitstringStatusList",
    ]
    subject: Any = {
        "types": [{"type": types, "id": f"urn:x:{i}"} for i in range(150)],
        "same subject": [{"id": "urn:x", "k": [f"{i}.{j}" for j in range(300)]} for i in range(3)],
        "nested": [_nest(10, types) for _ in range(14)],
    }[shape]
    began = time.monotonic()
    with suppress(InvalidInputError):
        signed(RDFC, credentialSubject=subject)
    assert time.monotonic() - began < 10  # measured: below 1 s


def _nest(depth: int, types: list[str]) -> dict[str, Any]:
    return {"type": types, **({"x": _nest(depth - 1, types)} if depth else {})}


PROOF_DEFECTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "no proof": lambda d: d.pop("proof"),
    "two proofs": lambda d: d.update(proof=[d["proof"], d["proof"]]),
    "a chain": lambda d: d["proof"].update(previousProof="urn:x"),
    "no created": lambda d: d["proof"].pop("created"),
    "created without a zone": lambda d: d["proof"].update(created="2023-02-24T23:36:38"),
    "created before 1970": lambda d: d["proof"].update(created="1969-12-31T23:59:59Z"),
    "created that is no date": lambda d: d["proof"].update(created="2023-02-30T23:36:38Z"),
    "another type": lambda d: d["proof"].update(type="Ed25519Signature2020"),
    "another suite": lambda d: d["proof"].update(cryptosuite="ecdsa-jcs-2019"),
    "a suite that is no text": lambda d: d["proof"].update(cryptosuite={}),
    "a short signature": lambda d: d["proof"].update(proofValue="z" + "1" * 63),
    "a padded signature": lambda d: d["proof"].update(proofValue=d["proof"]["proofValue"] + " "),
    "a long signature": lambda d: d["proof"].update(proofValue="z" + "2" * 100_000),
    "base64url": lambda d: d["proof"].update(proofValue="u" + "A" * 86),
    "a method that is no text": lambda d: d["proof"].update(verificationMethod={"id": "x"}),
}


@pytest.mark.parametrize("name", PROOF_DEFECTS)
def test_a_malformed_proof_is_refused(name: str) -> None:
    document = signed(JCS)
    PROOF_DEFECTS[name](document)
    with pytest.raises(InvalidInputError):
        read_proof(document)


def test_the_proof_context_must_begin_the_documents() -> None:
    document = signed(JCS)
    document["@context"] = [*document["@context"], "https://later.example/"]
    verify(document)
    document["@context"] = document["@context"][1:]
    with pytest.raises(InvalidInputError, match="does not begin"):
        verify(document)


def test_an_rdfc_proof_may_repeat_the_documents_context_and_have_no_other() -> None:
    document = signed(RDFC)
    document["proof"]["@context"] = document["@context"]
    verify(document)
    others: list[Any] = [None, [], document["@context"][:1]]
    for other in others:
        document["proof"]["@context"] = other
        with pytest.raises(InvalidInputError, match="another @context"):
            verify(document)


def test_what_json_readers_read_differently_is_not_read() -> None:
    for data in (b'{"a":1,"a":2}', b'{"a":1.5}', b'{"a":NaN}', b"[]", b"{" * 40, b"{}x"):
        with pytest.raises(InvalidInputError):
            decode_document(data)


def test_a_signed_document_is_not_signed_again() -> None:
    with pytest.raises(UsageError):
        add_proof(signed(JCS), suite=JCS, verification_method="x", created_ms=0, key=KEY)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.5Z", 500),
        ("1970-01-01T00:00:00.123456Z", 123),
        ("2026-11-24T23:06:14Z", 1_795_561_574_000),
    ],
)
def test_times(text: str, time_ms: int) -> None:
    assert read_date_time(text, "time") == time_ms
    assert read_date_time(format_date_time(time_ms), "time") == time_ms


def test_the_contexts_are_the_ones_that_were_reviewed() -> None:
    assert FILE_BY_URL.keys() == CONTEXT_HASHES.keys()
    for url, name in FILE_BY_URL.items():
        data = (ROOT / "did" / "contexts" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == CONTEXT_HASHES[url]


@pytest.mark.slow
def test_no_network_is_used_whatever_a_document_asks_for() -> None:
    result = subprocess.run(
        [sys.executable, "-c", QUIET_SCRIPT, json.dumps(VECTORS["credential"])],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "quiet\n"), result.stderr


QUIET_SCRIPT = """
import json, sys
may_probe = True
def refuse(event, arguments):
    if may_probe and event in ("socket.__new__", "socket.bind"):
        return  # urllib3, which PyLD imports, looks whether there is an IPv6 loopback
    if event.startswith(("socket.", "urllib.", "http.")):
        raise SystemExit("network: " + event)
sys.addaudithook(refuse)
import pyld
may_probe = False
from did.data_integrity import add_proof, read_proof, verify_signature
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
credential = json.loads(sys.argv[1])
key = KeyPair.from_seed(bytes(32))
for suite in ("eddsa-rdfc-2022", "eddsa-jcs-2022"):
    options = {"suite": suite, "verification_method": "urn:k", "created_ms": 0, "key": key}
    document = add_proof(credential, **options)
    verify_signature(document, read_proof(document), key.public_key)
for url in ("https://example.org/context", "http://127.0.0.1:1/", "file:///etc/passwd"):
    hostile = {**credential, "@context": [*credential["@context"], url]}
    try:
        add_proof(hostile, **{**options, "suite": "eddsa-rdfc-2022"})
    except InvalidInputError:
        continue
    raise SystemExit("taken: " + url)
print("quiet")
"""
