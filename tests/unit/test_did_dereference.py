"""DID URLs, options, references and what they name in a document."""

from __future__ import annotations

from typing import Any

import pytest

from did.dereference import Content, dereference
from did.did_url import parse_did_url, parse_query
from did.document import to_resolved
from did.multikey import X25519_PREFIX, encode_hash, encode_multikey
from did.reference import resolve_reference
from did.resolution_error import ResolutionError, error_object, status_of_error
from did.resolution_options import VersionQuery, read_options
from did.syntax import encode_did
from ledger.errors import InvalidInputError

DID = encode_did(bytes(range(32)))
VERSION = f"3-{encode_hash(bytes(32))}"
STORED: dict[str, Any] = {
    "verificationMethod": [
        {"id": "#ed", "type": "Multikey", "publicKeyMultibase": encode_multikey(bytes(32))},
        {
            "id": "#x",
            "type": "Multikey",
            "publicKeyMultibase": encode_multikey(bytes(32), X25519_PREFIX),
        },
    ],
    "authentication": ["#ed"],
    "keyAgreement": ["#x"],
    "service": [
        {
            "id": "#files",
            "type": ["Files", "Linked"],
            "serviceEndpoint": ["https://files.example/a/b?c=d", "ipfs://Qm/x"],
        },
        {"id": "#box", "type": "Box", "serviceEndpoint": {"uri": "https://box.example"}},
        {"id": "#hash", "type": "Hash", "serviceEndpoint": "https://hash.example/#here"},
    ],
}
DOCUMENT = to_resolved(DID, STORED)


def _dereference(tail: str, urls: bool = False, **options: object) -> Content:
    url = parse_did_url(DID + tail)
    return dereference(DOCUMENT, url, read_options({**url.parameters, **options}), wants_urls=urls)


def _code(tail: str, urls: bool = False, **options: object) -> str:
    with pytest.raises(ResolutionError) as caught:
        _dereference(tail, urls, **options)
    return caught.value.code


# --- DID URLs ---


def test_did_url_of_another_method_is_parsed() -> None:
    url = parse_did_url("did:web:example.org%3A80:a?versionId=1#k")
    assert (url.did, url.fragment) == ("did:web:example.org%3A80:a", "k")


@pytest.mark.parametrize("text", ["did:web:", "did:web:a:", "did:Web:a", "web:a", "did:web:%2"])
def test_did_url_without_a_did_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_did_url(text)


def test_query_takes_plus_as_itself_and_refuses_broken_escapes() -> None:
    assert parse_query("a=1+2&b=%2B%C3%A9&c") == {"a": "1+2", "b": "+é", "c": ""}
    for query in ("a=%", "a=%4", "a=%zz", "a=%ff", "a=1&%61=2", "=1", "&"):
        with pytest.raises(InvalidInputError):
            parse_query(query)


# --- references ---


# RFC 3986 section 5.4.1 and 5.4.2, base http://a/b/c/d;p?q
RFC_EXAMPLES = {
    "g:h": "g:h", "g": "http://a/b/c/g", "./g": "http://a/b/c/g", "g/": "http://a/b/c/g/",
    "/g": "http://a/g", "//g": "http://g", "?y": "http://a/b/c/d;p?y", "g?y": "http://a/b/c/g?y",
    "#s": "http://a/b/c/d;p?q#s", "g#s": "http://a/b/c/g#s", "g?y#s": "http://a/b/c/g?y#s",
    ";x": "http://a/b/c/;x", "g;x": "http://a/b/c/g;x", "g;x?y#s": "http://a/b/c/g;x?y#s",
    "": "http://a/b/c/d;p?q", ".": "http://a/b/c/", "./": "http://a/b/c/", "..": "http://a/b/",
    "../": "http://a/b/", "../g": "http://a/b/g", "../..": "http://a/", "../../": "http://a/",
    "../../g": "http://a/g", "../../../g": "http://a/g", "../../../../g": "http://a/g",
    "/./g": "http://a/g", "/../g": "http://a/g", "g.": "http://a/b/c/g.", ".g": "http://a/b/c/.g",
    "g..": "http://a/b/c/g..", "..g": "http://a/b/c/..g", "./../g": "http://a/b/g",
    "./g/.": "http://a/b/c/g/", "g/./h": "http://a/b/c/g/h", "g/../h": "http://a/b/c/h",
    "g;x=1/./y": "http://a/b/c/g;x=1/y", "g;x=1/../y": "http://a/b/c/y",
    "g?y/./x": "http://a/b/c/g?y/./x", "g?y/../x": "http://a/b/c/g?y/../x",
    "g#s/./x": "http://a/b/c/g#s/./x", "g#s/../x": "http://a/b/c/g#s/../x", "http:g": "http:g",
}  # fmt: skip


@pytest.mark.parametrize(("reference", "target"), RFC_EXAMPLES.items())
def test_references_resolve_as_the_rfc_shows(reference: str, target: str) -> None:
    assert resolve_reference("http://a/b/c/d;p?q", reference) == target


def test_references_resolve_against_bases_of_any_scheme() -> None:
    assert resolve_reference("ipfs://Qm/x", "y") == "ipfs://Qm/y"
    assert resolve_reference("https://a.example", "y?z") == "https://a.example/y?z"
    assert resolve_reference("urn:a:b", "?c") == "urn:a:b?c"


# --- options ---


def test_options_are_read_as_text_or_as_json() -> None:
    text = read_options(
        {"versionTime": "2026-01-31T12:00:00Z", "asOfHeight": "7", "expandRelativeUrls": "true"}
    )
    typed = read_options({"asOfHeight": 7, "expandRelativeUrls": False, "trusted_height": 5})
    assert text.version == VersionQuery(time_s=1_769_860_800, as_of_height=7)
    assert (typed.version, typed.trusted_height) == (VersionQuery(as_of_height=7), 5)
    assert read_options({"versionId": VERSION}).version == VersionQuery(version=(3, bytes(32)))
    assert read_options({}).version is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"versionTime": "2026-01-31T12:00:00.5Z"}, "INVALID_OPTIONS"),
        ({"versionTime": "2026-01-31T12:00:00+01:00"}, "INVALID_OPTIONS"),
        ({"versionTime": "2026-02-30T12:00:00Z"}, "INVALID_OPTIONS"),
        ({"versionTime": "2026-01-31T12:00:00Z\n"}, "INVALID_OPTIONS"),
        ({"versionTime": "٢026-01-31T12:00:00Z"}, "INVALID_OPTIONS"),
        ({"versionTime": 5}, "INVALID_OPTIONS"),
        ({"versionId": "3"}, "INVALID_OPTIONS"),
        ({"versionId": "03" + VERSION[1:]}, "INVALID_OPTIONS"),
        ({"versionId": VERSION[:-1]}, "INVALID_OPTIONS"),
        ({"versionId": VERSION, "versionTime": "2026-01-31T12:00:00Z"}, "INVALID_OPTIONS"),
        ({"asOfHeight": "-1"}, "INVALID_OPTIONS"),
        ({"asOfHeight": "٣"}, "INVALID_OPTIONS"),
        ({"asOfHeight": True}, "INVALID_OPTIONS"),
        ({"asOfHeight": 2**53}, "INVALID_OPTIONS"),
        ({"expandRelativeUrls": "yes"}, "INVALID_OPTIONS"),
        ({"verificationRelationship": "owner"}, "INVALID_OPTIONS"),
        ({"service": ""}, "INVALID_OPTIONS"),
        ({"relativeRef": "/a"}, "INVALID_OPTIONS"),
        ({"transformKey": "JsonWebKey"}, "FEATURE_NOT_SUPPORTED"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], code: str) -> None:
    with pytest.raises(ResolutionError) as caught:
        read_options(options)
    assert caught.value.code == code


# --- fragments ---


def test_fragment_names_a_verification_method_or_a_service() -> None:
    found = _dereference("#ed").value
    assert isinstance(found, dict)
    assert (found["id"], found["controller"]) == (DID + "#ed", DID)
    assert found["@context"] == DOCUMENT["@context"]
    found = _dereference("#box").value
    assert isinstance(found, dict)
    assert found["serviceEndpoint"] == {"uri": "https://box.example"}
    assert _code("#nothing") == "NOT_FOUND"
    assert _code("#") == "NOT_FOUND"


def test_verification_relationship_filters_verification_methods() -> None:
    found = _dereference("#ed", verificationRelationship="authentication").value
    assert isinstance(found, dict)
    assert found["id"] == DID + "#ed"
    wrong = "INVALID_RELATIONSHIP_FOR_VERIFICATION_METHOD"
    assert _code("#ed", verificationRelationship="keyAgreement") == wrong
    assert _code("#ed", verificationRelationship="assertionMethod") == wrong
    for tail in ("#box", "#nothing", ""):
        code = _code(tail, verificationRelationship="authentication")
        assert code == "INVALID_VERIFICATION_METHOD"


def test_path_names_nothing() -> None:
    assert _code("/path") == "NOT_FOUND"


def test_bare_did_is_its_document() -> None:
    content = _dereference("")
    assert (content.value, content.is_document) == (DOCUMENT, True)


# --- services ---


@pytest.mark.parametrize("service", ["files", "%23files", DID + "%23files"])
def test_service_selects_by_relative_or_absolute_id(service: str) -> None:
    found = _dereference(f"?service={service}").value
    assert isinstance(found, dict)
    assert [s["id"] for s in found["service"]] == [DID + "#files"]
    assert found["verificationMethod"] == DOCUMENT["verificationMethod"]


def test_service_type_selects_among_several_types() -> None:
    found = _dereference("?serviceType=Linked").value
    assert isinstance(found, dict)
    assert [s["id"] for s in found["service"]] == [DID + "#files"]
    assert _code("?serviceType=Nope") == "NOT_FOUND"
    assert _code("?service=files&serviceType=Box") == "NOT_FOUND"


def test_uri_list_has_the_endpoints_with_reference_and_fragment() -> None:
    assert _dereference("?service=files", urls=True).value == [
        "https://files.example/a/b?c=d",
        "ipfs://Qm/x",
    ]
    found = _dereference("?service=files&relativeRef=%2Fcv%3Fv%3D1#top", urls=True)
    assert found.value == ["https://files.example/cv?v=1#top", "ipfs://Qm/cv?v=1#top"]
    assert found.content_type == "text/uri-list"
    assert _code("?service=box", urls=True) == "NOT_FOUND"
    assert _code("?service=hash#top", urls=True) == "INVALID_DID_URL"
    assert _code("#ed", urls=True) == "REPRESENTATION_NOT_SUPPORTED"


@pytest.mark.parametrize(
    ("reference", "climbs"),
    [
        ("..", True), ("../x", True), ("a/../x", True), ("/../x", True), ("a/..", True),
        ("%2e%2E/x", True), (".%2e/x", True), ("a%2f..%2fx", True), ("%252E%252e%252fx", True),
        ("a%5c..%5Cx", True), ("%25252e%25252e/x", True), ("a/..?b", True), ("..#c", True),
        ("./x", False), ("..x/y..", False), ("...", False), ("x?../y", False), ("x#/../y", False),
        ("a%3F../b", False), ("%ff%fe", False), ("%" + "25" * 250 + "2e", False),
    ],
)  # fmt: skip
def test_relative_ref_does_not_climb_in_any_encoding(reference: str, climbs: bool) -> None:
    if climbs:
        assert _code("?service=files", urls=True, relativeRef=reference) == "INVALID_DID_URL"
    else:
        assert _dereference("?service=files", urls=True, relativeRef=reference).value


@pytest.mark.parametrize(
    "reference",
    [
        "//evil.example/",
        "https://evil.example",
        "javascript:alert(1)",
        "a b",
        "/%0a",
        "\\evil",
        "é",
    ],
)
def test_relative_ref_can_not_lead_to_another_host_or_break_the_header(reference: str) -> None:
    for tail in ("?service=files", "?serviceType=Files"):
        if reference == "/%0a":
            assert _dereference(tail, urls=True, relativeRef=reference).value == [
                "https://files.example/%0a",
                "ipfs://Qm/%0a",
            ]
        else:
            assert _code(tail, urls=True, relativeRef=reference) == "INVALID_DID_URL"


# --- errors ---


@pytest.mark.parametrize(
    ("code", "status", "prefix"),
    [
        ("INVALID_DID", 400, "https://www.w3.org/ns/did#"),
        ("INVALID_DID_URL", 400, "https://www.w3.org/ns/did#"),
        ("INVALID_OPTIONS", 400, "https://www.w3.org/ns/did#"),
        ("NOT_FOUND", 404, "https://www.w3.org/ns/did#"),
        ("REPRESENTATION_NOT_SUPPORTED", 406, "https://www.w3.org/ns/did#"),
        ("INTERNAL_ERROR", 500, "https://www.w3.org/ns/did#"),
        ("INVALID_DID_DOCUMENT", 500, "https://www.w3.org/ns/did#"),
        ("METHOD_NOT_SUPPORTED", 501, "https://www.w3.org/ns/did#"),
        ("FEATURE_NOT_SUPPORTED", 501, "https://www.w3.org/ns/did#"),
        ("INVALID_VERIFICATION_METHOD", 500, "https://w3id.org/security#"),
    ],
)
def test_an_error_has_its_type_and_status(code: str, status: int, prefix: str) -> None:
    error = error_object(code, "why")
    assert error["type"] == prefix + code
    assert error["detail"] == "why"
    assert status_of_error(error) == status
