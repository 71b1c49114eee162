"""The resolver's HTTP binding on a real socket, over real answers: representations, status codes,
options, caches; and everything that it says verifies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import uvloop
from yarl import URL

from did import resolver
from did.resolution_error import ResolutionError
from did.resolution_options import read_version_query
from did.verify import Outcome, verify_resolution
from did.version import format_time
from ledger.params import ChainParams
from rpc.api import JsonObject
from rpc.resolver import IMMUTABLE, REVALIDATE
from tests.unit.test_did_version import STRANGER, History
from tests.unit.test_rpc_fake import FakeNodeApi, running
from tests.vectors.did_world import NET, VALIDATORS

RESULT = "application/did-resolution"
LD_RESULT = 'application/ld+json; profile="https://w3id.org/did-resolution"'
DEREFERENCING = "application/did-url-dereferencing"
DAY_MS = 24 * 3600 * 1000


class Resolver(FakeNodeApi):
    """Resolves the DIDs of a small chain as the node does."""

    def __init__(self, past: History) -> None:
        super().__init__()
        self.past = past
        self.failure: Exception | None = None
        self.trusted_heights: list[int] = []

    async def did_resolve(
        self,
        did: str,
        version_id: str | None,
        version_time: str | None,
        trusted_height: int = 0,
        as_of_height: int | None = None,
        proof: bool = True,
    ) -> JsonObject:
        if self.failure is not None:
            raise self.failure
        self.trusted_heights.append(trusted_height)
        try:
            query = read_version_query(version_id, version_time, as_of_height)
        except ResolutionError as error:
            return resolver.error_result(error.code, error.message)
        return resolver.resolve(self.past.world.view(), did, query, is_proven=proof)


def _make_past() -> History:
    """0 created, 1 updated, 2 updated, 3 days later 3 updated; then one block."""
    past = History(ChainParams(did_ops_per_day_max=100))
    past.create()
    past.update()
    past.update()
    past.world.time_ms += 4 * DAY_MS
    past.update()
    past.world.block([])
    return past


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.kind = headers.get("Content-Type", "")

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a resolver; targets go out as they are."""

    def __init__(self, url: str, http: aiohttp.ClientSession, api: Resolver) -> None:
        self.url = url
        self.http = http
        self.api = api
        self.past = api.past
        self.did = api.past.did

    async def ask(
        self, target: str, accept: str = "*/*", method: str = "GET", **extra: Any
    ) -> Answer:
        headers = {"Accept": accept, "Origin": "https://any.example", **extra.pop("headers", {})}
        url = URL(f"{self.url}/1.0/identifiers/{target}", encoded=True)
        async with self.http.request(
            method, url, headers=headers, allow_redirects=False, **extra
        ) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            return Answer(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def serving(past: History, **settings: object) -> AsyncIterator[Client]:
    api = Resolver(past)
    async with running(api, **settings) as (_, url, _), aiohttp.ClientSession() as http:
        yield Client(url, http, api)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 30))


@pytest.fixture(scope="module")
def past() -> History:
    return _make_past()


# --- representations ---


def test_each_representation_has_its_media_type_and_shape(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            for accept, kind in (
                ("*/*", RESULT),
                (RESULT, RESULT),
                (LD_RESULT, LD_RESULT),
                ("application/ld+json", LD_RESULT),
                ("application/*;q=0.3, text/html", RESULT),
            ):
                answer = await client.ask(client.did, accept)
                assert (answer.status, answer.kind) == (200, kind)
                found = answer.json()
                assert found.keys() == {
                    "didDocument", "didResolutionMetadata", "didDocumentMetadata",
                }  # fmt: skip
                assert found["didResolutionMetadata"] == {"contentType": "application/did"}
                assert _verify(client, found).outcome is Outcome.FOUND
            document = found["didDocument"]
            for kind in ("did", "did+json", "did+ld+json", "json"):
                answer = await client.ask(client.did, f"application/{kind}")
                assert (answer.status, answer.kind) == (200, f"application/{kind}")
                assert answer.json() == document
            answer = await client.ask(client.did, DEREFERENCING)
            found = answer.json()
            assert (answer.status, answer.kind) == (200, DEREFERENCING)
            assert found["content"] == found["contentStream"] == document
            assert found["dereferencingMetadata"] == {"contentType": "application/did"}
            assert found["contentMetadata"]["proof"]
            liked = await client.ask(client.did, "application/did;q=0.5, application/json;q=0.9")
            assert liked.kind == "application/json"

    run(scenario())


def _verify(client: Client, found: dict[str, Any], did: str = "", **query: Any) -> Any:
    return verify_resolution(
        found,
        did=did or client.did,
        trusted=VALIDATORS,
        chain_id=NET,
        max_age_ms=None,
        now_ms=None,
        query=read_version_query(
            query.get("versionId"), query.get("versionTime"), query.get("asOfHeight")
        ),
    )


def test_fragment_and_services_are_dereferenced(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            answer = await client.ask(f"{client.did}%23k1")
            found = answer.json()
            assert (answer.status, answer.kind) == (200, DEREFERENCING)
            assert found["content"]["id"] == f"{client.did}#k1"
            assert found["dereferencingMetadata"]["didDocument"]["id"] == client.did
            answer = await client.ask(f"{client.did}%23k1", "application/did+json")
            assert answer.json()["type"] == "Multikey"
            answer = await client.ask(
                f"{client.did}%23k1?verificationRelationship=authentication", "application/did"
            )
            assert answer.json()["id"] == f"{client.did}#k1"
            answer = await client.ask(f"{client.did}?service=s", "application/json")
            assert [s["id"] for s in answer.json()["service"]] == [f"{client.did}#s"]
            for target in (
                f"{client.did}?service=s&relativeRef=/cv%3Fa%3D1",
                quote(f"{client.did}?service=s&relativeRef=%2Fcv%3Fa%3D1", safe=""),
                quote(f"{client.did}?service=s", safe="") + "?relativeRef=%2Fcv%3Fa%3D1",
            ):
                answer = await client.ask(target, "text/uri-list")
                assert (answer.status, answer.body) == (303, b"")
                assert answer.headers["Location"] == "https://3.example/cv?a=1"
            answer = await client.ask(
                quote(f"{client.did}?serviceType=Files#top", safe=""), "text/uri-list"
            )
            assert answer.headers["Location"] == "https://3.example/files#top"

    run(scenario())


def test_unknown_did_and_version_are_not_found_with_proof(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            answer = await client.ask(STRANGER)
            assert (answer.status, answer.kind) == (404, RESULT)
            assert _verify(client, answer.json(), STRANGER).outcome is Outcome.NOT_FOUND
            unknown = f"9-{past.versions[0].split('-')[1]}"
            answer = await client.ask(f"{client.did}?versionId={unknown}")
            assert answer.status == 404
            found = _verify(client, answer.json(), versionId=unknown)
            assert found.outcome is Outcome.NOT_FOUND

    run(scenario())


def test_deactivated_did_is_gone_in_every_representation() -> None:
    past = _make_past()
    past.deactivate()

    async def scenario() -> None:
        async with serving(past) as client:
            for accept in ("*/*", LD_RESULT, "application/did+json", "text/uri-list;q=0.1, */*"):
                answer = await client.ask(client.did, accept)
                found = answer.json()
                assert answer.status == 410
                assert found["didDocument"] is None
                assert found["didDocumentMetadata"]["deactivated"] is True
                assert "error" not in found["didResolutionMetadata"]
                assert _verify(client, found).outcome is Outcome.DEACTIVATED
            for target in (client.did, client.did + "%23k1"):
                answer = await client.ask(target, DEREFERENCING)
                found = answer.json()
                assert (answer.status, found["content"]) == (410, None)
                assert found["contentMetadata"]["deactivated"] is True
            before = await client.ask(f"{client.did}?versionId={past.versions[1]}")
            assert before.status == 200

    run(scenario())


# --- options ---


def test_versions_are_resolved_and_verify(past: History) -> None:
    async def scenario() -> None:
        async with serving(past) as client:
            queries: list[dict[str, Any]] = [
                {"versionId": past.versions[1]},
                {"versionTime": format_time(past.times[1])},
                {"asOfHeight": past.heights[1]},
            ]
            for query in queries:
                ((name, value),) = query.items()
                calls: list[tuple[str, dict[str, Any]]] = [
                    (f"{client.did}?{name}={value}", {}),
                    (quote(f"{client.did}?{name}={value}", safe=""), {}),
                    (client.did, {"method": "POST", "json": query}),
                ]
                for target, extra in calls:
                    answer = await client.ask(target, **extra)
                    found = answer.json()
                    assert answer.status == 200, found
                    assert found["didDocumentMetadata"]["versionId"] == past.versions[1]
                    assert _verify(client, found, **query).version_id == past.versions[1]
            await client.ask(f"{client.did}?trusted_height=2")
            assert client.api.trusted_heights[-1] == 2

    run(scenario())


# --- caches ---


def test_caches_may_keep_only_what_can_not_change(past: History) -> None:
    first, second = f"versionId={past.versions[0]}", f"versionId={past.versions[1]}"
    head, then = f"versionId={past.versions[3]}", f"versionTime={format_time(past.times[1])}"
    document, urls = "application/did", "text/uri-list"
    always = (
        ("", "*/*", REVALIDATE),
        ("", document, REVALIDATE),
        (first, document, IMMUTABLE),  # nothing sets a create aside
        (f"asOfHeight={past.heights[3]}", "*/*", IMMUTABLE),
        (head, "*/*", REVALIDATE),  # what follows it is still to come
    )
    # A recovery that sets the head aside can reach back to any version but the create.
    open_ = [(first, "*/*"), (second, document), (then, document), (head, document)]
    settled = _make_past()
    settled.world.time_ms += 4 * DAY_MS
    settled.world.block([])
    closed = [*open_, (second, "*/*"), (then, "*/*"), (f"{second}&service=s", urls)]

    async def scenario() -> None:
        for history, expected in (
            (past, [*always, *((*asked, REVALIDATE) for asked in open_)]),
            (settled, [*always, *((*asked, IMMUTABLE) for asked in closed)]),
        ):
            async with serving(history) as client:
                for query, accept, cache in expected:
                    answer = await client.ask(f"{client.did}?{query}", accept)
                    assert answer.headers["Cache-Control"] == cache, (query, accept)
                    assert answer.headers["Vary"] == "Accept"

    run(scenario())


def test_conditional_request_saves_the_body_until_something_changes() -> None:
    past = _make_past()

    async def scenario() -> None:
        async with serving(past) as client:
            first = await client.ask(client.did, "application/did")
            tag = first.headers["ETag"]
            for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
                again = await client.ask(
                    client.did, "application/did", headers={"If-None-Match": known}
                )
                assert (again.status, again.body) == (304, b"")
                assert again.headers["ETag"] == tag
                assert again.headers["Cache-Control"] == REVALIDATE
            other = await client.ask(
                client.did, "application/did+json", headers={"If-None-Match": tag}
            )
            assert other.status == 200
            past.world.block([])
            same = await client.ask(client.did, "application/did", headers={"If-None-Match": tag})
            assert same.status == 304
            past.update()
            changed = await client.ask(
                client.did, "application/did", headers={"If-None-Match": tag}
            )
            assert changed.status == 200
            posted = await client.ask(client.did, method="POST", headers={"If-None-Match": "*"})
            assert posted.status == 200
            assert "ETag" not in posted.headers

    run(scenario())
