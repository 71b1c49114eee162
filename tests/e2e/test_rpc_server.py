"""The real server on a real socket, under uvloop as in the node: routes, limits, stop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Coroutine
from typing import Any

import aiohttp
import pytest
import uvloop

from rpc.api import Readiness
from rpc.client import RpcClient, SyncRpcClient
from rpc.config import RpcConfig
from rpc.errors import RpcCode, RpcConnectionError, RpcError
from rpc.metrics import LatencyHistogram
from rpc.params import text_of_bytes
from rpc.server import RpcServer
from tests.unit.test_rpc_fake import BAD_TX, SLOW_TX, FakeNodeApi, running

CALL = b'{"jsonrpc":"2.0","id":1,"method":"node_peers"}'
JSON = {"Content-Type": "application/json"}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 30))


async def post(
    url: str, body: bytes = CALL, headers: dict[str, str] | None = None, path: str = "/"
) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(url + path, data=body, headers=JSON if headers is None else headers) as answer,
    ):
        text = await answer.read()
        return answer.status, json.loads(text) if text else None, answer.headers


async def raw(url: str, data: bytes, *, wait_s: float = 5) -> bytes:
    """What comes back on a plain connection until the server closes it or time is up."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = b""
    try:
        writer.write(data)
        async with asyncio.timeout(wait_s):
            while chunk := await reader.read(65536):
                found += chunk
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return found


def test_the_client_speaks_with_the_server_by_call_batch_and_error() -> None:
    async def scenario() -> None:
        async with running() as (_, _, client):
            assert (await client.call("chain_head"))["height"] == 7
            found = await client.batch(
                [("chain_header", {"block": 3}), ("chain_header", {"block": 99}), ("nope", {})]
            )
            first, *errors = found
            assert not isinstance(first, RpcError)
            assert first["height"] == 3
            assert [isinstance(error, RpcError) and error.code for error in errors] == [
                RpcCode.NOT_FOUND,
                RpcCode.METHOD_NOT_FOUND,
            ]
            with pytest.raises(RpcError) as caught:
                await client.tx_submit(BAD_TX)
            assert (caught.value.reason, caught.value.expected) == ("tx/bad-nonce", "1")
            outcomes = await client.tx_submit_batch([b"a", BAD_TX])
            assert [item["status"] for item in outcomes] == ["accepted", "refused"]

    run(scenario())


def test_no_server_is_a_connection_error_that_may_be_retried() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with RpcClient(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
                with pytest.raises(RpcConnectionError) as caught:
                    await client.call("chain_head")
        assert caught.value.retry

    run(scenario())


def test_a_taken_port_is_an_os_error() -> None:
    async def scenario() -> None:
        async with running() as (_, url, _):
            second = RpcServer(FakeNodeApi(), RpcConfig(port=int(url.rsplit(":", 1)[1])))
            with pytest.raises(OSError, match="in use"):
                await second.start()

    run(scenario())


def test_discover_lists_every_method_and_code() -> None:
    async def scenario() -> None:
        async with running() as (server, _, client):
            document = await client.call("rpc.discover")
        names = [method["name"] for method in document["methods"]]
        assert names == [method.name for method in server.registry]
        assert {"tx_submitBatch", "subscribe", "rpc.discover"} <= set(names)
        codes = {error["code"] for error in document["components"]["errors"].values()}
        assert codes == set(RpcCode)
        for method in document["methods"]:
            for error in method["errors"]:
                assert error["$ref"].rsplit("/", 1)[1] in document["components"]["errors"]

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
        ({**JSON, "Origin": "https://evil.example"}, 403),
        ({**JSON, "Origin": "https://app.example"}, 200),
    ],
)
def test_content_type_and_origin_decide_who_may_post(headers: dict[str, str], status: int) -> None:
    async def scenario() -> None:
        async with running(origins_allowed=("https://app.example",)) as (_, url, _):
            body = CALL if "Content-Encoding" not in headers else b"\x1f\x8b"
            found, answer, sent = await post(url, body, headers)
        assert found == status
        assert ("error" in answer) == (status != 200)
        if "app.example" in headers.get("Origin", ""):
            assert sent["Access-Control-Allow-Origin"] == "https://app.example"

    run(scenario())


def test_a_preflight_is_answered_for_allowed_origins_alone() -> None:
    async def scenario() -> None:
        async with (
            running(origins_allowed=("https://app.example",)) as (_, url, _),
            aiohttp.ClientSession() as http,
        ):
            good = await http.options(url + "/", headers={"Origin": "https://app.example"})
            bad = await http.options(url + "/", headers={"Origin": "null"})
        assert (good.status, good.headers["Access-Control-Allow-Methods"]) == (204, "POST")
        assert bad.status == 403
        assert "Access-Control-Allow-Origin" not in bad.headers

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/", 405),
        ("POST", "/page/page.mjs", 405),
        ("GET", "/page/index.html", 404),
        ("GET", "/page/../server.py", 404),
        ("POST", "/read/node_status", 405),
        ("POST", "/health", 405),
        ("GET", "/nope", 404),
        ("GET", "/ws", 400),
        ("HEAD", "/health", 200),
        ("DELETE", "/1.0/identifiers/did:zynk:z1", 405),
    ],
)
def test_wrong_paths_and_methods_are_told_so(method: str, path: str, status: int) -> None:
    async def scenario() -> None:
        async with running() as (_, url, _), aiohttp.ClientSession() as http:
            answer = await http.request(method, url + path)
            assert answer.status == status
            if method != "HEAD":
                assert (await answer.json())["error"]["data"]["expected"]

    run(scenario())


def test_bodies_over_the_limit_are_refused_also_when_their_length_is_not_declared() -> None:
    async def pieces() -> Any:
        for _ in range(8):
            yield b" " * 512

    async def scenario() -> None:
        async with running(body_bytes_max=1024) as (_, url, client):
            status, answer, _ = await post(url, b" " * 1025)
            assert (status, answer["error"]["code"]) == (413, RpcCode.TOO_LARGE)
            async with (
                aiohttp.ClientSession() as http,
                http.post(url + "/", data=pieces(), headers=JSON) as chunked,
            ):
                assert chunked.status == 413
            assert await client.call("node_peers")

    run(scenario())


def test_bodies_share_a_budget_that_is_given_back() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with running(api, bodies_bytes_max=600, connections_max=9) as (server, url, client):
            waiting = asyncio.create_task(client.tx_submit(SLOW_TX))
            while not _inflight(server):
                await asyncio.sleep(0.01)
            status, answer, _ = await post(url, CALL + b" " * 500)
            assert (status, answer["error"]["code"]) == (429, RpcCode.RATE_LIMITED)
            api.release.set()
            await waiting
            assert (await post(url, CALL + b" " * 500))[0] == 200

    run(scenario())


@pytest.mark.slow
def test_a_body_that_does_not_come_is_given_up() -> None:
    async def scenario() -> None:
        async with running(body_timeout_ms=100) as (_, url, _):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            found = await raw(url, head + b"Content-Length: 50\r\n\r\n{", wait_s=10)
        assert found.startswith(b"HTTP/1.1 504")

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"POST / HT", CALL])
def test_a_connection_that_stands_still_is_closed(start: bytes) -> None:
    async def scenario() -> None:
        async with running(keepalive_ms=200) as (_, url, client):
            begun = asyncio.get_running_loop().time()
            await raw(url, start, wait_s=8)
            assert asyncio.get_running_loop().time() - begun < 5
            assert await client.call("node_peers")

    run(scenario())


@pytest.mark.slow
def test_an_answer_that_nobody_reads_does_not_hold_its_connection() -> None:
    async def scenario() -> None:
        async with running(keepalive_ms=300) as (server, url, _):
            host, port = url.removeprefix("http://").split(":")
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.setblocking(False)
                await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
                calls = b"[" + b",".join([CALL.replace(b"node_peers", b"rpc.discover")] * 400)
                head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                head += f"Content-Length: {len(calls) + 1}\r\n\r\n"
                await asyncio.get_running_loop().sock_sendall(plain, head.encode() + calls + b"]")
                async with asyncio.timeout(8):
                    while b"zynk_rpc_connections 1.0" not in server.metrics.render():
                        await asyncio.sleep(0.01)
                    while b"zynk_rpc_connections 0.0" not in server.metrics.render():
                        await asyncio.sleep(0.05)

    run(scenario())


def test_connections_over_a_limit_are_refused_and_room_comes_back() -> None:
    async def scenario() -> None:
        async with running(connections_per_ip_max=3) as (server, url, _):
            host, port = url.removeprefix("http://").split(":")
            held = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            refused = await raw(url, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", wait_s=2)
            assert refused == b"" or refused.startswith(b"HTTP/1.1 503")
            assert b"zynk_rpc_connections_refused_total 1.0" in server.metrics.render()
            for _, writer in held:
                writer.close()
            while b"zynk_rpc_connections 0.0" not in server.metrics.render():
                await asyncio.sleep(0.01)
            assert (await post(url))[0] == 200

    run(scenario())


def test_ready_says_why_not_and_health_says_alive() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with running(api) as (_, _, client):
            assert await client.get("/ready") == (200, b'{"ready":true,"reasons":[]}')
            api.ready = Readiness(ready=False, reasons=("syncing: 3 of 9",))
            assert await client.get("/ready") == (
                503,
                b'{"ready":false,"reasons":["syncing: 3 of 9"]}',
            )
            assert (await client.get("/health"))[0] == 200

    run(scenario())


def test_metrics_show_every_family() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        api.latency = LatencyHistogram()
        for seconds in (0.004, 0.03, 99):
            api.latency.observe(seconds)
        async with running(api) as (_, _, client):
            await client.call("chain_head")
            with pytest.raises(RpcError):
                await client.call("chain_header", block=99)
            text = (await client.get("/metrics"))[1].decode()
        for line in (
            "zynk_consensus_height 7.0",
            'zynk_consensus_finality_seconds_bucket{le="0.005"} 1.0',
            'zynk_consensus_finality_seconds_bucket{le="0.03"} 2.0',
            'zynk_consensus_finality_seconds_bucket{le="+Inf"} 3.0',
            "zynk_mempool_txs 3.0",
            'zynk_p2p_messages_total{kind="vote"} 5.0',
            "zynk_storage_bytes 10.5",
            'zynk_rpc_calls_total{method="chain_head"} 1.0',
            'zynk_rpc_errors_total{code="-32003"} 1.0',
            "zynk_process_resident_memory_bytes ",
        ):
            assert line in text
        assert "Not a name" not in text
        samples = [line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")]
        assert len(set(samples)) == len(samples)

    run(scenario())


@pytest.mark.parametrize(
    ("did", "accept", "status", "kind"),
    [
        ("did:zynk:z1", "*/*", 200, "application/did-resolution"),
        ("did%3Azynk%3Az1", "", 200, "application/did-resolution"),
        ("did:zynk:z1", "application/did+json", 200, "application/did+json"),
        ("did:zynk:z1", "application/did-resolution", 200, "application/did-resolution"),
        ("did:zynk:none", "application/did+json", 404, "application/did-resolution"),
        ("did:zynk:gone", "*/*", 410, "application/did-resolution"),
        ("nonsense", "*/*", 400, "application/did-resolution"),
        ("", "*/*", 400, "application/did-resolution"),
        ("did:zynk:z1?versionid=x", "*/*", 501, "application/did-resolution"),
    ],
)
def test_a_did_resolves_over_http_for_any_origin(
    did: str, accept: str, status: int, kind: str
) -> None:
    async def scenario() -> None:
        async with running() as (_, url, _), aiohttp.ClientSession() as http:
            headers = {"Accept": accept, "Origin": "https://any.example"}
            async with http.get(f"{url}/1.0/identifiers/{did}", headers=headers) as answer:
                found = await answer.json(content_type=None)
                assert (answer.status, answer.content_type) == (status, kind)
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
        if kind == "application/did+json":
            assert found == {"id": "did:zynk:z1"}
        elif status == 200:
            assert found["didDocument"]["id"] == "did:zynk:z1"
            assert found["didDocumentMetadata"]["proof"][0]["certificate"]

    run(scenario())


def test_operations_are_exported_as_json_lines() -> None:
    async def scenario() -> None:
        async with running() as (_, url, _), aiohttp.ClientSession() as http:
            path = url + "/1.0/operations"
            async with http.get(path + "?after=2-0&limit=3") as answer:
                assert answer.content_type == "application/jsonl"
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
                lines = [json.loads(line) for line in (await answer.text()).splitlines()]
            assert [line["cursor"] for line in lines] == ["3-0", "4-0", "5-0"]
            async with http.get(path + "?after=7-0") as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            for query in ("limit=0", "limit=1001", "limit=x", "more=1", "limit=1&limit=2"):
                async with http.get(f"{path}?{query}") as answer:
                    assert answer.status == 400, query
            async with http.post(path) as answer:
                assert answer.status == 405

    run(scenario())


def test_stopping_lets_calls_in_flight_end_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        server = RpcServer(api, RpcConfig(port=0))
        url = f"http://127.0.0.1:{await server.start()}"
        async with RpcClient(url) as client:
            await client.call("node_peers")
            waiting = asyncio.create_task(client.tx_submit(SLOW_TX))
            while not _inflight(server):
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0.05)
            assert not stopping.done()
            api.release.set()
            assert (await waiting)["status"] == "accepted"
            await stopping
            with pytest.raises(RpcConnectionError):
                await client.call("node_peers")
        await server.stop()

    run(scenario())


@pytest.mark.slow
def test_stopping_does_not_wait_for_ever() -> None:
    async def scenario() -> None:
        server = RpcServer(FakeNodeApi(), RpcConfig(port=0, drain_ms=100))
        async with RpcClient(f"http://127.0.0.1:{await server.start()}") as client:
            waiting = asyncio.create_task(client.tx_submit(SLOW_TX))
            while not _inflight(server):
                await asyncio.sleep(0.01)
            await asyncio.wait_for(server.stop(), 5)
            with pytest.raises((RpcConnectionError, RpcError)):
                await waiting

    run(scenario())


def test_code_without_an_event_loop_can_call_too() -> None:
    async def serve(ready: asyncio.Event, url: list[str], over: asyncio.Event) -> None:
        async with running() as (_, found, _):
            url.append(found)
            ready.set()
            await over.wait()

    async def scenario() -> None:
        ready, over, url = asyncio.Event(), asyncio.Event(), list[str]()
        server = asyncio.create_task(serve(ready, url, over))
        await ready.wait()

        def blocking() -> tuple[Any, int]:
            with SyncRpcClient(url[0]) as client:
                client.tx_submit(b"t")
                head = client.call("chain_head")
                assert isinstance(client.batch([("nope", {})])[0], RpcError)
                return head["height"], client.get("/health")[0]

        assert await asyncio.to_thread(blocking) == (7, 200)
        over.set()
        await server

    run(scenario())


def test_blobs_go_through_unchanged() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with running(api) as (_, url, client):
            data = bytes(range(256))
            await client.tx_submit(data)
            body = f'{{"jsonrpc":"2.0","method":"tx_submit","params":["{text_of_bytes(b"x")}"]}}'
            assert (await post(url, body.encode()))[0] == 204
        assert api.submitted == [data, b"x"]

    run(scenario())


def _inflight(server: RpcServer) -> int:
    return server._dispatcher.inflight_count
