"""The resolver's HTTP binding as one table, against the real server: each pair of HTTP status and
error type, in the order in which a request is judged: syntax, method, options, representation,
then what was found. Every row is a raw request, so that no client mends it on its way."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest

from did.resolution_error import STATUS_BY_CODE
from rpc.errors import RpcCode, RpcError
from rpc.resolver import NEVER, REVALIDATE
from tests.e2e.test_rpc_resolver import (
    DEREFERENCING,
    LD_RESULT,
    RESULT,
    Client,
    _make_past,
    run,
    serving,
)
from tests.unit.test_did_version import STRANGER, History

BARE = "application/did"
FOREIGN = "did:web:example.org"
JSON_BODY = {"Content-Type": "application/json"}
MEMBERS_BY_KIND = {
    RESULT: {"didDocument", "didResolutionMetadata", "didDocumentMetadata"},
    LD_RESULT: {"didDocument", "didResolutionMetadata", "didDocumentMetadata"},
    DEREFERENCING: {"dereferencingMetadata", "content", "contentStream", "contentMetadata"},
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, as it was on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A request and its answer. `error` is the word that the error's type ends in, "" for none,
    "blank" for a refusal by HTTP alone. In `target` DID, GONE, STRANGER and V1 are put in."""

    target: str
    accept: str
    status: int
    error: str = ""
    kind: str = RESULT
    method: str = "GET"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cache: str = NEVER


def post(
    target: str, body: bytes, status: int, error: str = "", kind: str = RESULT, **more: Any
) -> Row:
    headers = more.pop("headers", JSON_BODY)
    return Row(target, "*/*", status, error, kind, "POST", body, headers, **more)


FOUND = [
    Row("DID", "*/*", 200, cache=REVALIDATE),
    Row("DID", "", 200, cache=REVALIDATE),
    Row("DID?", RESULT, 200, cache=REVALIDATE),
    Row("DID%3F", RESULT, 200, cache=REVALIDATE),
    Row("QUOTED", RESULT, 200, cache=REVALIDATE),
    Row("DID", f"{RESULT},application/ld+json", 200, cache=REVALIDATE),  # as uni-resolver asks
    Row("DID", LD_RESULT, 200, kind=LD_RESULT, cache=REVALIDATE),
    Row("DID", 'application/ld+json;profile="https://a.example/ https://w3id.org/did-resolution"',
        200, kind=LD_RESULT, cache=REVALIDATE),
    Row("DID", BARE, 200, kind=BARE, cache=REVALIDATE),
    Row("DID", "application/json; charset=utf-8", 200, kind="application/json", cache=REVALIDATE),
    Row("DID", "application/json;charset=\"UTF-8\";q=0.5, text/html", 200,
        kind="application/json", cache=REVALIDATE),
    Row("DID", f"{RESULT};q=0.1, {BARE};q=0.101", 200, kind=BARE, cache=REVALIDATE),
    Row("DID", f"*/*;q=0.1, {RESULT};q=0, {DEREFERENCING}", 200, kind=DEREFERENCING,
        cache=REVALIDATE),
    Row("DID", DEREFERENCING, 200, kind=DEREFERENCING, cache=REVALIDATE),
    Row("DID%23k1", "*/*", 200, kind=DEREFERENCING, cache=REVALIDATE),
    Row("DID%23k1", BARE, 200, kind=BARE, cache=REVALIDATE),
    Row("DID?service=s", BARE, 200, kind=BARE, cache=REVALIDATE),
    Row("DID?versionId=V1", "*/*", 200, cache=REVALIDATE),  # it may get a nextVersionId
    Row("DID?versionId=V1", BARE, 200, kind=BARE, cache=REVALIDATE),  # still in dispute
    Row("DID?noCache=false", "*/*", 200, cache=REVALIDATE),
    Row("DID?noCache=true", "*/*", 200),
    Row("DID?versionId=V1&noCache=true", BARE, 200, kind=BARE),
    Row("DID?service=s", "text/uri-list", 303, kind="", cache=REVALIDATE),
    Row("DID?service=s", "text/uri-list", 303, kind="", method="HEAD", cache=REVALIDATE),
    Row("DID", "*/*", 200, method="HEAD", cache=REVALIDATE),
    Row("GONE", "*/*", 410, cache=REVALIDATE),
    Row("GONE", LD_RESULT, 410, kind=LD_RESULT, cache=REVALIDATE),
    Row("GONE", BARE, 410, cache=REVALIDATE),
    Row("GONE%23k1", "*/*", 410, kind=DEREFERENCING, cache=REVALIDATE),
    Row("GONE?service=s", "text/uri-list", 410, kind=DEREFERENCING, cache=REVALIDATE),
    Row("GONE", "*/*", 410, method="HEAD", cache=REVALIDATE),
    post("DID", b"", 200, headers={}),
    post("DID", b"{}", 200, headers={}),
    post("DID", b'{"versionId":"V1"}', 200, headers={}),
    post("DID", b"{}", 200,
         headers={"Content-Type": "application/json; charset=UTF-8"}),
    post("DID", b'{"noCache":true}', 200),
    post("DID", b'{"expandRelativeUrls":true}', 200),
    post("DID", b'{"service":"s"}', 200, kind=DEREFERENCING),
]  # fmt: skip

SYNTAX = [
    Row("", "*/*", 400, "INVALID_DID"),
    Row("not-a-did", RESULT, 400, "INVALID_DID"),
    Row("did:example", RESULT, 400, "INVALID_DID"),
    Row("did:zynk:zzz", LD_RESULT, 400, "INVALID_DID", LD_RESULT),
    Row("did:zynk:zzz", DEREFERENCING, 400, "INVALID_DID", DEREFERENCING),
    Row("did:zynk:zzz?transformKey=x", "text/html", 400, "INVALID_DID"),
    Row("did:zynk:zzz?versionId=1&versionId=1", "*/*", 400, "INVALID_DID"),
    Row("did:zynk:zzz%23k1", BARE, 400, "INVALID_DID"),
    Row("not-a-did?versionId=x", "*/*", 400, "INVALID_DID"),
    Row("DID%zz", "*/*", 400, "INVALID_DID"),
    Row("did%253Aexample%253A1", "*/*", 400, "INVALID_DID"),  # encoded twice, decoded once
    Row("did:zynk:" + "z" * 7000, "*/*", 400, "INVALID_DID"),
    Row("DID%0A", "*/*", 400, "INVALID_DID"),
    post("did:zynk:zzz", b"[", 400, "INVALID_DID"),
    Row("DID/%ff", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%23%25zz", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%3Fa=%25zz", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%23a%23b", "*/*", 400, "INVALID_DID_URL"),
    Row("not-a-did%23k1", "*/*", 400, "INVALID_DID_URL"),
    Row("DID#k1", "*/*", 400, "INVALID_DID_URL"),  # no request may have a fragment
    Row("DID?versionId=V1#k1", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%3F" + "a" * 2048, "*/*", 400, "INVALID_DID_URL"),
]

METHOD = [
    Row(FOREIGN, "*/*", 501, "METHOD_NOT_SUPPORTED"),
    Row("did:unsupported:123456789abcdefghi", RESULT, 501, "METHOD_NOT_SUPPORTED"),
    Row(FOREIGN, "text/html", 501, "METHOD_NOT_SUPPORTED"),
    Row(FOREIGN + "?versionTime=x", "*/*", 501, "METHOD_NOT_SUPPORTED"),
    Row(FOREIGN + "?transformKey=x", DEREFERENCING, 501, "METHOD_NOT_SUPPORTED", DEREFERENCING),
    Row(FOREIGN + "?a=1&a=1", "*/*", 501, "METHOD_NOT_SUPPORTED"),
    Row(FOREIGN + "%23k1", "*/*", 501, "METHOD_NOT_SUPPORTED"),
    post(FOREIGN, b"[", 501, "METHOD_NOT_SUPPORTED"),
    post(FOREIGN, b"a=1", 501, "METHOD_NOT_SUPPORTED", headers={"Content-Type": "text/plain"}),
]

OPTIONS = [
    Row("DID?versionId=V1&versionId=V1", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%3FversionId=V1%26versionId=V1", "*/*", 400, "INVALID_DID_URL"),
    Row("DID%3FversionId=V1?versionId=V1", "*/*", 400, "INVALID_DID_URL"),
    Row("DID?versionId=V1&&service=s", "*/*", 400, "INVALID_DID_URL"),
    Row("DID?versionId=%zz", "*/*", 400, "INVALID_DID_URL"),
    post("DID?versionId=V1", b'{"versionId":"V1"}', 400, "INVALID_DID_URL"),
    Row("DID?transformKey=x", "*/*", 501, "FEATURE_NOT_SUPPORTED"),
    Row("DID?transformKey=x&versionId=1", "text/html", 501, "FEATURE_NOT_SUPPORTED"),
    Row("DID?versionID=V1", "*/*", 501, "FEATURE_NOT_SUPPORTED"),
    post("DID", b'{"accept":"application/did"}', 501, "FEATURE_NOT_SUPPORTED"),
    Row("DID?versionId=1", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionId=1", "text/html", 400, "INVALID_OPTIONS"),
    Row("DID?versionId=", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionId", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?service=", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?noCache=1", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?expandRelativeUrls=yes", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionTime=2026-01-01T00:00:00.000Z", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionTime=2026-01-01T00:00:00%2B00:00", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionTime=2999-01-01T00:00:00Z", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?versionId=V1&versionTime=2026-01-01T00:00:02Z", "*/*", 400, "INVALID_OPTIONS"),
    Row("DID?relativeRef=/a", "*/*", 400, "INVALID_OPTIONS"),
    post("DID", b"[]", 400, "INVALID_OPTIONS"),
    post("DID", b"{", 400, "INVALID_OPTIONS"),
    post("DID", b"\xff", 400, "INVALID_OPTIONS"),
    post("DID", b'{"versionId":1}', 400, "INVALID_OPTIONS"),
    post("DID", b'{"a":1,"a":1}', 400, "INVALID_OPTIONS"),
    post("DID", b'{"a":[' + b"1," * 300 + b"1]}", 400, "INVALID_OPTIONS"),
    post("DID", b'{"a":"' + b"a" * 20_000 + b'"}', 400, "INVALID_OPTIONS"),
    post("DID", b"{}", 400, "INVALID_OPTIONS", headers={"Content-Type": "text/plain"}),
    post("DID", b"a=1", 400, "INVALID_OPTIONS",
         headers={"Content-Type": "application/x-www-form-urlencoded"}),
    post("DID", b"{}", 400, "INVALID_OPTIONS", headers={**JSON_BODY, "Content-Encoding": "gzip"}),
]  # fmt: skip

REPRESENTATION = [
    Row("DID", "text/html", 406, "REPRESENTATION_NOT_SUPPORTED"),
    Row("DID", "application/x-unsupported-did-representation-99999", 406,
        "REPRESENTATION_NOT_SUPPORTED"),
    Row("DID", "text/uri-list", 406, "REPRESENTATION_NOT_SUPPORTED"),
    Row("DID", "application/json;charset=latin1", 406, "REPRESENTATION_NOT_SUPPORTED"),
    Row("DID", f"{RESULT};q=0", 406, "REPRESENTATION_NOT_SUPPORTED"),
    Row("DID%23k1", RESULT, 406, "REPRESENTATION_NOT_SUPPORTED", DEREFERENCING),
    Row("GONE", "text/html", 406, "REPRESENTATION_NOT_SUPPORTED"),
    Row("STRANGER", "text/html", 406, "REPRESENTATION_NOT_SUPPORTED"),
]  # fmt: skip

NOT_FOUND = [
    Row("STRANGER", "*/*", 404, "NOT_FOUND"),
    Row("STRANGER", BARE, 404, "NOT_FOUND"),
    Row("STRANGER", "*/*", 404, "NOT_FOUND", method="HEAD"),
    Row("STRANGER%23k1", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    post("STRANGER", b"{}", 404, "NOT_FOUND"),
    Row("DID%23none", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID%23", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID/path", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID/", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID/a/../b", "*/*", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID?service=none", "text/uri-list", 404, "NOT_FOUND", DEREFERENCING),
    Row("DID?service=s&relativeRef=//x", "text/uri-list", 400, "INVALID_DID_URL", DEREFERENCING),
    Row("DID?service=s&relativeRef=..%2Fa", "text/uri-list", 400, "INVALID_DID_URL", DEREFERENCING),
    Row("DID?service=s&relativeRef=a/%252e%252E/%252e./b", "text/uri-list", 400, "INVALID_DID_URL",
        DEREFERENCING),
    Row("DID%23k1?verificationRelationship=keyAgreement", "*/*", 500,
        "INVALID_RELATIONSHIP_FOR_VERIFICATION_METHOD", DEREFERENCING),
    Row("DID%23s?verificationRelationship=keyAgreement", "*/*", 500,
        "INVALID_VERIFICATION_METHOD", DEREFERENCING),
]  # fmt: skip

WRONG_METHOD = [
    Row("DID", "*/*", 405, "blank", method="DELETE"),
    Row("DID", DEREFERENCING, 405, "blank", DEREFERENCING, method="PUT"),
]

ROWS = FOUND + SYNTAX + METHOD + OPTIONS + REPRESENTATION + NOT_FOUND + WRONG_METHOD


@pytest.fixture(scope="module")
def past() -> History:
    return _make_past()


@pytest.fixture(scope="module")
def gone() -> History:
    past = _make_past()
    past.deactivate()
    return past


async def ask(client: Client, row: Row) -> Reply:
    """The row's request, byte for byte, and its answer."""
    did = client.did
    names = {
        "QUOTED": quote(did, safe=""), "DID": did, "GONE": did, "STRANGER": STRANGER,
        "V1": client.past.versions[1],
    }  # fmt: skip
    target, body = row.target, row.body
    for name, value in names.items():
        target = target.replace(name, value)
        body = body.replace(name.encode(), value.encode())
    headers = {"Host": "a.example", "Origin": "https://b.example", **row.headers}
    if row.accept:
        headers["Accept"] = row.accept
    if row.method == "POST":
        headers["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    line = f"{row.method} /1.0/identifiers/{target} HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
    return await send(client.url, line.encode() + body)


async def send(url: str, request: bytes) -> Reply:
    """One request on a connection of its own; the answer's end is the connection's."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    found = await reader.read()
    writer.close()
    top, _, body = found.partition(b"\r\n\r\n")
    status_line, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Reply(int(status_line.split()[1]), headers, body)


def check(row: Row, reply: Reply) -> None:
    """The whole of what the binding says of one answer."""
    headers = reply.headers
    assert reply.status == row.status, reply.body
    assert headers.get("content-type", "") == row.kind
    assert headers["cache-control"] == row.cache
    assert headers["vary"] == "Accept"
    assert headers["access-control-allow-origin"] == "*"
    assert ("location" in headers) is (row.status == 303)
    assert ("allow" in headers) is (row.status == 405)
    is_tagged = row.status == 200 and row.method != "POST"
    assert ("etag" in headers) is is_tagged
    if row.method == "HEAD" or row.status == 303:
        assert reply.body == b""
        assert row.status == 303 or int(headers["content-length"]) > 0
        return
    assert int(headers["content-length"]) == len(reply.body)
    found = json.loads(reply.body)
    if row.kind not in MEMBERS_BY_KIND:
        assert row.status == 200
        assert "id" in found
        return
    assert found.keys() == MEMBERS_BY_KIND[row.kind]
    check_result(row, found)


def check_result(row: Row, found: dict[str, Any]) -> None:
    if row.kind == DEREFERENCING:
        content, told, metadata = (
            found["content"], found["dereferencingMetadata"], found["contentMetadata"],
        )  # fmt: skip
        assert found["contentStream"] == content
    else:
        content, told, metadata = (
            found["didDocument"], found["didResolutionMetadata"], found["didDocumentMetadata"],
        )  # fmt: skip
    assert (content is None) is (row.status != 200)
    assert metadata.get("deactivated") is (True if row.status == 410 else None)
    if row.error == "":
        assert "error" not in told
        return
    assert metadata == {}
    error = told["error"]
    assert error.keys() == {"type", "title", "detail"}
    if row.error == "blank":
        assert error["type"] == "about:blank"
        assert error["title"] == HTTPStatus(row.status).phrase
        return
    space = "https://w3id.org/security#" if "VERIFICATION" in row.error else (
        "https://www.w3.org/ns/did#"
    )  # fmt: skip
    assert error["type"] == space + row.error
    assert STATUS_BY_CODE.get(row.error, 500) == row.status
    assert "did" not in error["title"]
    assert "url" not in error["title"]
    assert error["title"].upper().replace(" ", "_") == row.error


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda r: f"{r.method} {r.target[:48]} {r.accept[:24]} {r.status}"
)
def test_each_request_gets_its_status_and_its_error_in_a_whole_answer(
    past: History, gone: History, row: Row
) -> None:
    async def scenario() -> None:
        async with serving(gone if "GONE" in row.target else past) as client:
            check(row, await ask(client, row))

    run(scenario())


def test_table_has_every_error_that_a_request_can_bring_about() -> None:
    shown = {row.error for row in ROWS}
    assert set(STATUS_BY_CODE) - shown == {"INTERNAL_ERROR", "INVALID_DID_DOCUMENT"}


@pytest.mark.parametrize(
    ("failure", "status", "error"),
    [
        (KeyError("secret"), 500, "INTERNAL_ERROR"),
        (RpcError(RpcCode.INTERNAL_ERROR, "the store is damaged"), 500, "INTERNAL_ERROR"),
        (RpcError(RpcCode.HISTORY_PRUNED, "gone"), 500, "INTERNAL_ERROR"),
        (RpcError(RpcCode.NOT_FOUND, "gone"), 500, "INTERNAL_ERROR"),
        (RpcError(RpcCode.UNVERIFIED, "no proof"), 500, "INTERNAL_ERROR"),
        (RpcError(RpcCode.INVALID_PARAMS, "too high"), 400, "INVALID_OPTIONS"),
        (RpcError(RpcCode.UNSUPPORTED, "off"), 501, "FEATURE_NOT_SUPPORTED"),
        (RpcError(RpcCode.RATE_LIMITED, "too many"), 429, "blank"),
        (RpcError(RpcCode.NOT_READY, "no block yet"), 503, "blank"),
        (RpcError(RpcCode.TIMED_OUT, "slow"), 504, "blank"),
    ],
)
def test_node_that_can_not_answer_says_so_in_a_whole_answer(
    past: History, failure: Exception, status: int, error: str
) -> None:
    """INTERNAL_ERROR is 500 and nothing else; that a request was not carried out at all is said by
    the HTTP status, under `about:blank` (RFC 9457 section 4.2.1), with a time to come back."""

    async def scenario() -> None:
        async with serving(past) as client:
            client.api.failure = failure
            for kind, accept in ((RESULT, "*/*"), (DEREFERENCING, DEREFERENCING)):
                row = Row("DID", accept, status, error, kind)
                reply = await ask(client, row)
                check(row, reply)
                assert b"secret" not in reply.body
                assert ("retry-after" in reply.headers) is (status in (429, 503))

    run(scenario())


def test_too_many_calls_of_one_address_are_refused_in_a_whole_answer(past: History) -> None:
    async def scenario() -> None:
        async with serving(past, calls_per_s_per_ip_max=1) as client:
            assert (await ask(client, Row("DID", "*/*", 200))).status == 200
            check(Row("DID", "*/*", 429, "blank"), await ask(client, Row("DID", "*/*", 429)))
            refused = Row("DID", DEREFERENCING, 429, "blank", DEREFERENCING, "POST", b"{}")
            check(refused, await ask(client, refused))

    run(scenario())


def test_answers_that_nobody_reads_are_refused_in_a_whole_answer(past: History) -> None:
    async def scenario() -> None:
        async with serving(past, answers_bytes_per_ip_max=100) as client:
            check(Row("DID", "*/*", 429, "blank"), await ask(client, Row("DID", "*/*", 429)))

    run(scenario())


def test_preflight_names_what_the_binding_takes(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            reply = await ask(client, Row("DID", "*/*", 204, method="OPTIONS"))
            assert (reply.status, reply.body) == (204, b"")
            told = reply.headers
            assert told["allow"] == told["access-control-allow-methods"] == "GET, HEAD, POST"
            assert told["access-control-allow-origin"] == "*"
            allowed = told["access-control-allow-headers"].split(", ")
            assert set(allowed) >= {"Accept", "Content-Type", "If-None-Match"}

    run(scenario())


def test_head_has_the_headers_of_get(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            for target in ("DID", "DID%23k1", "STRANGER", "not-a-did"):
                shown = []
                for method in ("GET", "HEAD"):
                    reply = await ask(client, Row(target, "*/*", 0, method=method))
                    shown.append((reply.status, {**reply.headers, "date": ""}))
                assert shown[0] == shown[1]

    run(scenario())


@pytest.mark.parametrize(
    "target", ["/1.0/identifiers", "/1.0/identifiers%2Fdid:zynk:a", "/1.0/Identifiers/did:zynk:a"]
)
def test_what_is_not_the_path_of_the_binding_is_no_resolver(past: History, target: str) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            request = f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            reply = await send(client.url, request.encode())
            assert reply.status == 404
            assert "error" in json.loads(reply.body)

    run(scenario())


@pytest.mark.parametrize(
    "line",
    [
        "GET /1.0/identifiers/did:zynk:" + "z" * 9000 + " HTTP/1.1\r\nHost: a",
        "GET /1.0/identifiers/did:zynk:a b HTTP/1.1\r\nHost: a",
        "GET /1.0/identifiers/did:zynk:a HTTP/1.1\r\nHost: a\r\nAccept: " + "a" * 9000,
    ],
)
def test_what_is_no_http_request_gets_a_typed_refusal_that_mirrors_nothing(
    past: History, line: str
) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            reply = await send(client.url, f"{line}\r\n\r\n".encode())
            assert reply.status == 400
            assert reply.headers["content-type"] == "application/json"
            assert reply.headers["access-control-allow-origin"] == "*"
            assert json.loads(reply.body)["error"]["code"] == RpcCode.INVALID_REQUEST
            assert b"did:zynk" not in reply.body
            assert b"aaaa" not in reply.body

    run(scenario())
