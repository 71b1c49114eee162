"""What clients send, and what they do not read, is held within the server's budgets."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from rpc.dispatch import Caller
from rpc.errors import RpcCode, RpcError
from rpc.params import text_of_bytes
from rpc.server import RpcServer
from tests.e2e.test_rpc_server import run
from tests.e2e.test_rpc_websocket import HANDSHAKE, metric, request, until
from tests.unit.test_rpc_dispatch import dispatcher
from tests.unit.test_rpc_fake import SLOW_TX, FakeNodeApi, running

WAIT = request("tx_submit", tx=text_of_bytes(SLOW_TX))
DISCOVER = request("rpc.discover")


@asynccontextmanager
async def deaf_client(url: str) -> AsyncIterator[socket.socket]:
    """A connection whose far end reads nothing unless the test does."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
        yield plain


def frame(text: str) -> bytes:
    """A masked WebSocket text; the mask is zeros."""
    data = text.encode()
    return b"\x81\xff" + len(data).to_bytes(8, "big") + b"\0\0\0\0" + data


def post_of(calls: str) -> bytes:
    head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(calls)}\r\n\r\n{calls}".encode()


def test_padded_waits_on_a_websocket_count_against_the_budget_of_bodies() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with (
            running(api, bodies_bytes_max=100_000) as (server, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            for _ in range(64):
                await ws.send_str(WAIT + " " * 8_000)
            refused = [json.loads((await ws.receive()).data) for _ in range(52)]
            assert {answer["error"]["code"] for answer in refused} == {RpcCode.RATE_LIMITED}
            assert server._dispatcher.inflight_count == 12
            assert 96_000 < server._bodies.bytes_held <= 100_000
            api.release.set()
            for _ in range(12):
                assert json.loads((await ws.receive()).data)["result"]["status"] == "accepted"
            await until(lambda: server._bodies.bytes_held == 0)

    run(scenario())


def test_a_connection_lost_while_it_waits_gives_its_bodies_back() -> None:
    async def scenario() -> None:
        async with running() as (server, url, _), aiohttp.ClientSession() as http:
            async with http.ws_connect(url + "/ws") as ws:
                for _ in range(60):
                    await ws.send_str(WAIT + " " * 8_000)
                await until(lambda: server._dispatcher.inflight_count == 60)
                assert server._bodies.bytes_held > 60 * 8_000
            await until(lambda: server._bodies.bytes_held == 0)

    run(scenario())


def test_a_text_over_the_limit_of_websockets_closes_with_1009() -> None:
    async def scenario() -> None:
        async with (
            running() as (_, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            await ws.send_str(" " * (256 * 1024 + 1))
            assert (await ws.receive()).data == 1009

    run(scenario())


@pytest.mark.parametrize("size", ["one", "batch"])
def test_a_waiting_call_keeps_no_reference_to_its_body(size: str) -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        under_test = dispatcher(api)
        body = (WAIT if size == "one" else f"[{WAIT},{WAIT}]").encode() + b" " * 5_000
        before = sys.getrefcount(body)
        waiting = asyncio.create_task(under_test.answer(body, Caller("a")))
        await until(lambda: under_test.inflight_count > 0)
        assert sys.getrefcount(body) == before
        api.release.set()
        await waiting

    run(scenario())


@pytest.mark.slow
def test_answers_that_a_websocket_does_not_read_stay_within_its_queue_and_the_budget() -> None:
    limit = 512 * 1024

    async def scenario() -> None:
        async with running(ws_queue_bytes_max=limit, ws_write_timeout_ms=300) as (server, url, _):
            async with deaf_client(url) as plain:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(plain, HANDSHAKE)
                assert b"101" in await loop.sock_recv(plain, 4096)
                await loop.sock_sendall(plain, frame(DISCOVER) * 400)
                await until(lambda: server._answers.bytes_held > limit)
                (session,) = server._sessions
                largest = 0
                while server._sessions:
                    assert session._queue_bytes <= limit
                    largest = max(largest, server._answers.bytes_held)
                    await asyncio.sleep(0.005)
                answer_bytes = len(json.dumps(await discover(url), separators=(",", ":"))) + 100
                assert largest <= limit + 64 * answer_bytes
            assert server._answers.bytes_held == 0
            assert metric(server, "zynk_rpc_subscribers_dropped_total") == 1

    run(scenario())


@pytest.mark.slow
def test_answers_that_nobody_reads_over_http_use_up_no_more_than_the_budget() -> None:
    limit = 8 * 1024 * 1024

    async def scenario() -> None:
        async with running(answers_bytes_max=limit, answers_bytes_per_ip_max=limit) as (
            server,
            url,
            client,
        ):
            calls = post_of("[" + ",".join([DISCOVER] * 150) + "]")
            async with deaf_client(url) as a, deaf_client(url) as b, deaf_client(url) as c:
                for plain in (a, b, c):
                    await asyncio.get_running_loop().sock_sendall(plain, calls)
                await until(lambda: is_refused(server))
                assert server._answers.bytes_held <= limit + 150 * 1024
                with pytest.raises(RpcError, match="unread answers") as caught:
                    await client.call("rpc.discover")
                assert caught.value.retry
            await until(lambda: server._answers.bytes_held == 0)
            assert await client.call("node_peers")
            assert server._answers.bytes_held == 0

    run(scenario())


async def discover(url: str) -> object:
    async with (
        aiohttp.ClientSession() as http,
        http.post(url + "/", data=DISCOVER, headers={"Content-Type": "application/json"}) as answer,
    ):
        return await answer.json()


def is_refused(server: RpcServer) -> bool:
    code = int(RpcCode.RATE_LIMITED)
    return f'zynk_rpc_errors_total{{code="{code}"}}'.encode() in server.metrics.render()
