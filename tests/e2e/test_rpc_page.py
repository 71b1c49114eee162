"""What is served to the page for people: its files with their headers, and reads by GET."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from rpc.page_files import GENESIS_BYTES_MAX, GENESIS_PATH, load_page_files
from rpc.reads import METHODS as READS
from tests.e2e.test_rpc_server import run
from tests.unit.test_rpc_fake import H, running

ROOT = Path(__file__).parents[2]
SAFE_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def test_the_served_verifier_is_what_the_repository_holds() -> None:
    served = load_page_files()
    modules = sorted((ROOT / "verifier" / "js").glob("*.mjs"))
    assert len(modules) == 11
    for path in modules:
        assert served["/verifier/" + path.name].body == path.read_bytes()
    for path in (ROOT / "rpc" / "page").iterdir():
        name = "/" if path.name == "index.html" else "/page/" + path.name
        assert served[name].body == path.read_bytes()


def test_all_that_the_page_refers_to_is_served_and_nothing_else_is_asked_for() -> None:
    served = load_page_files(b"{}")
    for path, file in served.items():
        text = file.body.decode()
        if path.endswith((".mjs", "/")):
            assert not re.findall(r"style=|innerHTML|\son[a-z]+=", text), path
        for asked in re.findall(r'(?:from |src=|href=)"([^"]+)"', text):
            if not asked.startswith(("#", "node:")):
                folder = path.rpartition("/")[0]
                full = folder + asked[1:] if asked.startswith("./") else asked
                assert full in served, (path, asked)


def test_a_genesis_is_served_unless_it_is_large() -> None:
    assert load_page_files(b"x" * GENESIS_BYTES_MAX)[GENESIS_PATH].body[:1] == b"x"
    assert GENESIS_PATH not in load_page_files(b"x" * (GENESIS_BYTES_MAX + 1))
    assert GENESIS_PATH not in load_page_files()


def test_files_come_with_safe_headers_and_304_while_they_are_the_same() -> None:
    async def scenario() -> None:
        async with running() as (_, url, _), aiohttp.ClientSession() as http:
            for path, kind in (
                ("/", "text/html"),
                ("/page/style.css", "text/css"),
                ("/page/page.mjs", "text/javascript"),
                ("/page/mark.svg", "image/svg+xml"),
                ("/verifier/did.mjs", "text/javascript"),
            ):
                answer = await http.get(url + path)
                assert (answer.status, answer.content_type) == (200, kind)
                assert SAFE_HEADERS.items() <= dict(answer.headers).items()
                policy = answer.headers["Content-Security-Policy"].split("; ")
                assert "default-src 'none'" in policy
                assert not [rule for rule in policy if "unsafe" in rule or "*" in rule]
                tag = answer.headers["ETag"]
                for sent, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200)):
                    again = await http.get(url + path, headers={"If-None-Match": sent})
                    assert (again.status, again.headers["ETag"]) == (status, tag)
                    assert bool(await again.read()) == (status == 200)
                head = await http.head(url + path)
                assert (head.status, await head.read()) == (200, b"")
                assert head.headers["Content-Length"] == answer.headers["Content-Length"]

    run(scenario())


def test_a_read_is_the_call_of_its_name() -> None:
    async def scenario() -> None:
        async with running() as (_, url, client), aiohttp.ClientSession() as http:
            asked: tuple[tuple[str, dict[str, object]], ...] = (
                ("node_status", {}),
                ("chain_header", {"block": 3}),
                ("chain_header", {"block": H}),
                ("chain_validators", {"height": 3, "trusted_height": 0}),
                ("did_resolve", {"did": "did:zynk:z1"}),
                ("did_history", {"did": "did:zynk:z1", "cursor": 0, "limit": 2}),
            )
            assert {name for name, _ in asked} == set(READS)
            for name, params in asked:
                query = {key: str(value) for key, value in params.items()}
                answer = await http.get(f"{url}/read/{name}", params=query)
                assert answer.status == 200
                assert answer.headers["Cache-Control"] == "no-store"
                assert await answer.json() == await client.call(name, **params)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("tx_submit?tx=AA", {}, 404),
        ("audit_submit", {}, 404),
        ("nope", {}, 404),
        ("chain_header?block=99", {}, 404),
        ("did_resolve", {}, 400),
        ("did_resolve?did=a&did=b", {}, 400),
        ("did_history?did=a&cursor=-1", {}, 400),
        ("did_history?did=a&cursor=007", {}, 400),
        ("did_history?did=a&cursor=99999999999999999999", {}, 400),
        ("did_history?did=a&more=1", {}, 400),
        ("node_status", {"Origin": "https://evil.example"}, 403),
        ("node_status", {"Origin": "null"}, 403),
    ],
)
def test_a_read_that_is_wrong_or_foreign_is_refused(
    path: str, headers: dict[str, str], status: int
) -> None:
    async def scenario() -> None:
        async with running() as (_, url, _), aiohttp.ClientSession() as http:
            answer = await http.get(f"{url}/read/{path}", headers=headers)
            assert answer.status == status
            assert (await answer.json())["error"]["data"]["reason"]
            assert "Access-Control-Allow-Origin" not in answer.headers

    run(scenario())


def test_reads_that_nobody_takes_hold_their_bytes_and_give_them_back() -> None:
    async def scenario() -> None:
        async with (
            running(answers_bytes_max=64, answers_bytes_per_ip_max=64) as (_, url, _),
            aiohttp.ClientSession() as http,
        ):
            answer = await http.get(f"{url}/read/chain_header?block=3")
            assert answer.status == 429
        async with running() as (server, url, _), aiohttp.ClientSession() as http:
            for _ in range(5):
                assert (await http.get(f"{url}/read/node_status")).status == 200
            await asyncio.sleep(0)
            assert server._answers.bytes_held == 0

    run(scenario())
