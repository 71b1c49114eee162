"""Text forms: strict JSON, Multikey, DIDs and DID URLs, documents. One meaning, one spelling."""

from __future__ import annotations

import base64
from typing import Any

import base58
import pytest
import rfc8785

from did import strict_json
from did.did_url import parse_did_url
from did.document import DOCUMENT_BYTES_MAX, encode_document, to_resolved, to_stored
from did.multikey import (
    ED25519_PREFIX,
    X25519_PREFIX,
    decode_base64url,
    decode_hash,
    decode_multikey,
    encode_base64url,
    encode_hash,
    encode_multikey,
    split_multikey,
)
from did.syntax import decode_did, encode_did, is_did_syntax
from ledger.errors import InvalidInputError, UsageError
from tests.vectors.did_world import document, key

DID = encode_did(bytes(range(32)))
KEY = key("k").public_key
ED = {"id": "#ed", "type": "Multikey", "publicKeyMultibase": encode_multikey(KEY)}
X = {"id": "#x", "type": "Multikey", "publicKeyMultibase": encode_multikey(KEY, X25519_PREFIX)}


# --- strict JSON ---


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} ",
        b" {}",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}',
        b'{"b":{"a":1,"a":2}}',
        b'{"b":1,"a":2}',
        b"1.0",
        b"1e3",
        b"-0",
        b"01",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"9007199254740992",
        b"-9007199254740992",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0041"',
        b'"\\/"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"a\nb"',
        b'"\\u001F"',
        b"[" * 17 + b"]" * 17,
        b"[" * 100_000,
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b'["\\\\",' + b"[" * 16 + b"]" * 16 + b"]",
        b"nul",
        b"[1,]",
        b"'a'",
        b"[1]x",
        b"\x00",
    ],
)
def test_json_outside_the_rules_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        strict_json.decode_canonical(data, bytes_max=200_000)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"a":1,"b":[true,false,null]}',
        b"9007199254740991",
        b"-9007199254740991",
        b"[" * 16 + b"]" * 16,
        b'"[[[[[[[[[[[[[[[[[[[[\\"[[[["',
        b'["\\\\",' + b"[" * 15 + b"]" * 15 + b"]",
        '"é\U0001f600"'.encode(),
        b'"\\u001f\\b\\n\x7f"',
    ],
)
def test_canonical_json_round_trips(data: bytes) -> None:
    value = strict_json.decode_canonical(data, bytes_max=len(data))
    assert strict_json.encode(value) == data == rfc8785.dumps(value)
    with pytest.raises(InvalidInputError, match="too long"):
        strict_json.decode_canonical(data, bytes_max=len(data) - 1)


def test_names_are_ordered_by_utf16_as_jcs_says() -> None:
    value = {"\U0001f600": 1, "\ufb33": 2}  # by code point the other way round
    assert strict_json.encode(value) == '{"\U0001f600":1,"\ufb33":2}'.encode()


def test_what_has_no_jcs_form_is_our_callers_mistake() -> None:
    for value in (float("nan"), b"bytes", {1, 2}, {"a": object()}, "\ud800"):
        with pytest.raises(UsageError):
            strict_json.encode(value)


# --- Multikey, hashes, base64url ---


def test_multikey_of_the_w3c_example_decodes() -> None:
    # W3C Controlled Identifiers 1.0, the Ed25519 example of "Multikey"
    text = "z6MkmM42vxfqZQsv4ehtTjFFxQ4sQKS2w6WR7emozFAn5cxu"
    assert encode_multikey(decode_multikey(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "z",
        ED["publicKeyMultibase"][1:],
        " " + ED["publicKeyMultibase"],
        ED["publicKeyMultibase"] + " ",
        ED["publicKeyMultibase"] + "\n",
        ED["publicKeyMultibase"][:-1],
        "z1" + ED["publicKeyMultibase"][1:],
        "z0" + ED["publicKeyMultibase"][2:],
        "m" + base64.b64encode(ED25519_PREFIX + KEY).decode(),
        "z" + base58.b58encode(b"\xe7\x01" + KEY).decode(),
        "z" + base58.b58encode(ED25519_PREFIX + KEY[:31]).decode(),
        "z" + base58.b58encode(ED25519_PREFIX + KEY + b"\0").decode(),
        "z" + "2" * 1_000_000,
        "zé",
        X["publicKeyMultibase"],
    ],
)
def test_other_spellings_of_a_key_are_refused(text: object) -> None:
    with pytest.raises(InvalidInputError):
        decode_multikey(text)


def test_x25519_is_told_apart() -> None:
    assert split_multikey(X["publicKeyMultibase"]) == (X25519_PREFIX, KEY)


def test_hash_text_is_a_sha2_256_multihash() -> None:
    text = encode_hash(bytes(32))
    assert text.startswith("zQm")
    assert decode_hash(text) == bytes(32)
    for other in (b"\x13\x20" + bytes(32), b"\x12\x1f" + bytes(31), b"\x12\x20" + bytes(33)):
        with pytest.raises(InvalidInputError):
            decode_hash("z" + base58.b58encode(other).decode())


def test_base64url_refuses_padding_other_alphabets_and_stray_bits() -> None:
    assert decode_base64url(encode_base64url(b"\xff\xfe"), bytes_max=2) == b"\xff\xfe"
    for text in ("__4=", "//4", "__5", "__4 ", "_", "__4\n", "é", None, 4, "_" * 100):
        with pytest.raises(InvalidInputError):
            decode_base64url(text, bytes_max=2)


# --- DIDs ---


def test_did_is_56_characters_and_round_trips() -> None:
    assert DID.startswith("did:zynk:zQm")
    assert len(DID) == 56
    assert decode_did(DID) == bytes(range(32))
    assert is_did_syntax(DID)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "did:zynk:",
        "did:zynk:z",
        DID.upper(),
        DID.replace("zynk", "Zynk"),
        DID + "#a",
        DID + " ",
        DID + "\n",
        DID[:-1],
        DID.replace("did:zynk:z", "did:zynk:"),
        "did:web:example.org",
        "did:zynk:" + encode_multikey(KEY),
        "did:zynk:z" + "2" * 10**6,
    ],
)
def test_what_is_not_exactly_a_did_is_refused(text: object) -> None:
    with pytest.raises(InvalidInputError):
        decode_did(text)


def test_did_url_is_split_and_its_parameters_decoded() -> None:
    url = parse_did_url(DID + "/a/b%20c?service=files&relativeRef=%2Fx%3Fy#frag")
    assert (url.did, url.path, url.fragment) == (DID, "/a/b%20c", "frag")
    assert url.parameters == {"service": "files", "relativeRef": "/x?y"}
    bare = parse_did_url(DID)
    assert (bare.path, bare.query, bare.fragment, bare.parameters) == ("", None, None, {})


@pytest.mark.parametrize(
    "tail",
    [
        "?a=1&a=2",
        "?=1",
        "?a=%ff",
        "?a=%2",
        "# ",
        "#a#b",
        "/é",
        "?%61=1&a=2",
        "\n",
        "?" + "a" * 2048,
    ],
)
def test_did_url_outside_the_rules_is_refused(tail: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_did_url(DID + tail)


def test_did_url_may_not_have_too_many_parameters() -> None:
    query = "&".join(f"p{i}=1" for i in range(17))
    with pytest.raises(InvalidInputError, match="too many"):
        parse_did_url(f"{DID}?{query}")


# --- documents ---

FULL: dict[str, Any] = {
    "verificationMethod": [ED, X],
    "authentication": ["#ed"],
    "assertionMethod": ["#ed"],
    "keyAgreement": ["#x"],
    "capabilityInvocation": ["#ed"],
    "capabilityDelegation": ["#ed"],
    "alsoKnownAs": ["did:web:example.org", "https://example.org/@name"],
    "service": [
        {"id": "#a", "type": "A", "serviceEndpoint": "https://example.org/"},
        {"id": "#b", "type": ["B", "C"], "serviceEndpoint": ["https://a.example", "urn:x:y"]},
        {
            "id": "#c",
            "type": "DIDCommMessaging",
            "serviceEndpoint": {"uri": "https://c.example", "accept": ["didcomm/v2"]},
        },
    ],
}


@pytest.mark.parametrize("value", [{}, document(), FULL])
def test_document_is_in_one_to_one_correspondence_with_its_resolved_form(
    value: dict[str, Any],
) -> None:
    data = encode_document(value)
    stored = strict_json.decode_canonical(data, bytes_max=DOCUMENT_BYTES_MAX)
    resolved = to_resolved(DID, stored)
    assert resolved["id"] == DID
    assert to_stored(DID, resolved) == stored
    with pytest.raises(InvalidInputError):
        to_stored(encode_did(bytes(32)), resolved)
    with pytest.raises(InvalidInputError):
        to_stored(DID, {**resolved, "@context": ["https://example.org"]})


def _service(endpoint: object, **other: object) -> dict[str, Any]:
    return {"service": [{"id": "#s", "type": "S", "serviceEndpoint": endpoint, **other}]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"id": DID},
        {"@context": []},
        {"unknown": 1},
        {"verificationMethod": []},
        {"verificationMethod": {}},
        {"verificationMethod": [7]},
        {"verificationMethod": [ED, ED]},
        {"verificationMethod": [{**ED, "id": "ed"}]},
        {"verificationMethod": [{**ED, "id": "#"}]},
        {"verificationMethod": [{**ED, "id": "#a b"}]},
        {"verificationMethod": [{**ED, "id": "#ed\n"}]},
        {"verificationMethod": [{**ED, "id": ["#ed"]}]},
        {"verificationMethod": [{**ED, "type": "JsonWebKey2020"}]},
        {"verificationMethod": [{**ED, "controller": DID}]},
        {"verificationMethod": [{**ED, "id": f"#{i}"} for i in range(17)]},
        {"authentication": ["#ed"]},
        {"verificationMethod": [ED], "authentication": []},
        {"verificationMethod": [ED], "authentication": ["#ed", "#ed"]},
        {"verificationMethod": [ED], "authentication": [ED]},
        {"verificationMethod": [ED], "authentication": ["ed"]},
        {"verificationMethod": [ED], "keyAgreement": ["#ed"]},
        {"verificationMethod": [X], "authentication": ["#x"]},
        {"verificationMethod": [X], "assertionMethod": ["#x"]},
        {"verificationMethod": [ED], "service": [{**_service("a:b")["service"][0], "id": "#ed"}]},
        {"alsoKnownAs": ["not a uri"]},
        {"alsoKnownAs": ["a:b", "a:b"]},
        {"alsoKnownAs": ["mailto:a@example.org"]},
        {"alsoKnownAs": ["MAILTO:a@example.org"]},
        {"alsoKnownAs": ["tel:+4912345"]},
        {"alsoKnownAs": ["data:text/plain,hello"]},
        {"alsoKnownAs": ["https://name:pw@example.org/"]},
        {"alsoKnownAs": ["https://example.org/" + "a" * 500]},
        {"alsoKnownAs": ["https://example.org/é"]},
        {"alsoKnownAs": ["https://example.org/%zz"]},
        {"alsoKnownAs": ["a:b\n"]},
        {"alsoKnownAs": [f"a:{i}" for i in range(17)]},
        _service("nothing"),
        _service("https://user@example.org"),
        _service({"accept": []}),
        _service({"uri": "mailto:a@b"}),
        _service({"uri": "a:b", "x": "mailto:a@b"}),
        _service({"uri": "a:b", "x": "http://u@b"}),
        _service({"uri": "a:b", "x": 1}),
        _service({"uri": "a:b", "x": [[1]]}),
        _service({"uri": "a:b", "x": "\u0000"}),
        _service({"uri": "a:b", "x": "a" * 513}),
        _service({"uri": "a:b", "bad name": "x"}),
        _service({"uri": "a:b", **{f"m{i}": "x" for i in range(8)}}),
        _service([]),
        _service([["a:b"]]),
        _service(["a:b"] * 2),
        _service("a:b", more=1),
        _service("a:b", type=""),
        _service("a:b", type=[]),
        _service("a:b", type="x" * 65),
        {"service": [_service("a:b")["service"][0]] * 2},
    ],
)
def test_document_that_breaks_a_rule_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        encode_document(value)


def test_document_of_more_than_8_kib_is_refused() -> None:
    uris = [f"https://example.org/{i}/".ljust(500, "a") for i in range(16)]
    endpoints = [f"a:{i}".ljust(500, "b") for i in range(8)]
    assert encode_document({"alsoKnownAs": uris[:15]})
    with pytest.raises(InvalidInputError, match="too long"):
        encode_document({"alsoKnownAs": uris, **_service(endpoints)})
