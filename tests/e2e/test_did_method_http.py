"""The method specification's examples over HTTP: each request goes out as it stands there, and the
answer is the one that stands there, byte for byte but for the proofs, which are `"..."`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from did import resolver
from did.resolution_options import OPTION_NAMES, read_version_query
from rpc.api import JsonObject
from tests.e2e.test_rpc_binding import Reply, send
from tests.unit.test_did_method_doc import EXAMPLES, OPERATIONS, TEXT, played
from tests.unit.test_rpc_fake import FakeNodeApi, running
from tests.vectors.did_world import World

HTTP_EXAMPLES = sorted(name for name in EXAMPLES if name.startswith("http-"))
PLAYED = {"http-deactivated": OPERATIONS[:3]}
"""What has happened to the DID; in the others the create and the update."""


class Reader(FakeNodeApi):
    """Resolves in the world of the examples."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def did_resolve(
        self,
        did: str,
        version_id: str | None,
        version_time: str | None,
        trusted_height: int = 0,
        as_of_height: int | None = None,
        proof: bool = True,
    ) -> JsonObject:
        query = read_version_query(version_id, version_time, as_of_height)
        return resolver.resolve(self._world.view(), did, query, is_proven=proof)


async def exchange(names: tuple[str, ...], request: str) -> Reply:
    head, _, body = request.partition("\n\n")
    lines = [*head.splitlines(), "Host: resolver.example", "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    async with running(Reader(played(*names))) as (_, url, _):
        return await send(url, ("\r\n".join(lines) + "\r\n\r\n" + body).encode())


def shown(body: bytes) -> str:
    """As the text shows it."""

    def hide(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: "..." if name == "proof" else hide(v) for name, v in value.items()}
        return value

    text = body.decode()
    return json.dumps(hide(json.loads(text)), separators=(",", ":")) if '"proof"' in text else text


@pytest.mark.parametrize("name", HTTP_EXAMPLES)
def test_request_gets_the_answer_that_the_text_shows(name: str) -> None:
    request, _, answer = EXAMPLES[name].partition("\n\nHTTP/1.1 ")
    head, _, body = answer.partition("\n\n")
    status, *headers = head.splitlines()
    reply = asyncio.run(exchange(PLAYED.get(name, OPERATIONS[:2]), request))
    assert reply.status == int(status.split()[0])
    for line in headers:
        header, _, value = line.partition(": ")
        assert reply.headers[header.lower()] == value
    assert headers
    assert shown(reply.body) == body


def test_options_in_the_text_are_those_of_the_code_and_each_has_an_example() -> None:
    read = TEXT.split("### Read\n")[1].split("\n### ")[0]
    options = {line.split("`")[1] for line in read.splitlines() if line.startswith("| `")}
    requests = " ".join(EXAMPLES[name].split("\n\nHTTP/1.1 ")[0] for name in HTTP_EXAMPLES)
    assert options == OPTION_NAMES
    assert {option for option in options if option not in requests} == set()
