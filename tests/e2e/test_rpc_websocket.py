"""WebSockets on the real server: calls, subscriptions, and consumers that do not keep up."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from rpc.api import BlockEvent, JsonObject, TxOutcome
from rpc.client import RpcClient
from rpc.errors import RpcCode, RpcConnectionError, RpcError
from rpc.params import text_of_bytes
from rpc.server import RpcServer
from tests.e2e.test_rpc_server import run
from tests.unit.test_rpc_fake import SLOW_TX, FakeNodeApi, running

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def event(height: int, *tx_ids: bytes) -> BlockEvent:
    return BlockEvent(
        height=height,
        hash=hashlib.sha256(b"%d" % height).digest(),
        time_ms=1000 * height,
        txs=tuple(TxOutcome(tx_id=tx_id, code="ok") for tx_id in tx_ids),
    )


def request(method: str, request_id: object = 1, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


async def ask(socket: aiohttp.ClientWebSocketResponse, text: str) -> Any:
    await socket.send_str(text)
    return json.loads((await socket.receive()).data)


async def until(is_true: Any, wait_s: float = 10) -> None:
    async with asyncio.timeout(wait_s):
        while not is_true():
            await asyncio.sleep(0.01)


def metric(server: RpcServer, name: str) -> float:
    for line in server.metrics.render().decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(name)


def test_calls_batches_and_wrong_texts_are_answered_on_a_websocket() -> None:
    async def scenario() -> None:
        async with (
            running() as (_, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            assert (await ask(ws, request("chain_head")))["result"]["height"] == 7
            found = await ask(ws, f"[{request('chain_head', 1)},{request('nope', 2)}]")
            assert [item["id"] for item in found] == [1, 2]
            assert (await ask(ws, "{"))["error"]["code"] == RpcCode.PARSE_ERROR
            assert (await ask(ws, "[]"))["error"]["code"] == RpcCode.INVALID_REQUEST
            assert (await ask(ws, request("chain_head", "still here")))["id"] == "still here"

    run(scenario())


def test_a_slow_call_does_not_hold_up_the_next() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with (
            running(api) as (_, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            await ws.send_str(request("tx_submit", "slow", tx=text_of_bytes(SLOW_TX)))
            assert (await ask(ws, request("chain_head", "fast")))["id"] == "fast"
            api.release.set()
            assert json.loads((await ws.receive()).data)["id"] == "slow"

    run(scenario())


def test_calls_of_one_websocket_are_bounded_by_not_reading_on() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with (
            running(api, ws_calls_inflight_max=2) as (server, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            for i in range(5):
                await ws.send_str(request("tx_submit", i, tx=text_of_bytes(SLOW_TX)))
            await until(lambda: server._dispatcher.inflight_count == 2)
            await asyncio.sleep(0.1)  # time for a third, which must not come
            assert server._dispatcher.inflight_count == 2
            api.release.set()
            ids = [json.loads((await ws.receive()).data)["id"] for _ in range(5)]
            assert sorted(ids) == list(range(5))

    run(scenario())


def test_every_final_block_reaches_its_subscribers_in_order() -> None:
    async def scenario() -> None:
        tx_id = b"\x01" * 32
        async with running() as (server, _, client), client.subscribe("blocks") as blocks:
            server.publish_block(event(8, tx_id))
            server.publish_block(event(9))
            first, second = await anext(blocks), await anext(blocks)
        assert first == {
            "height": 8,
            "hash": event(8).hash.hex(),
            "time_ms": 8000,
            "txs": [{"tx_id": tx_id.hex(), "code": "ok"}],
        }
        assert second["height"] == 9

    run(scenario())


def test_a_tx_subscription_tells_once_when_it_is_final() -> None:
    async def scenario() -> None:
        tx_id = b"\x01" * 32
        async with running() as (server, _, client), client.subscribe("tx", tx_id) as found:
            assert found.current is None
            server.publish_block(event(8, b"\x02" * 32))
            server.publish_block(event(9, b"\x02" * 32, tx_id))
            told = await anext(found)
            assert (told["height"], told["index"], told["code"]) == (9, 1, "ok")
            assert server._hub._subscribers_by_topic == {}

    run(scenario())


def test_a_tx_that_is_final_already_is_told_at_once() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        tx_id = b"\x01" * 32
        api.final.add(tx_id)
        async with running(api) as (server, _, client), client.subscribe("tx", tx_id) as found:
            assert found.current["height"] == 7
            assert server._hub._subscribers_by_topic == {}

    run(scenario())


def test_the_status_is_told_when_it_changes() -> None:
    async def scenario() -> None:
        api = FakeNodeApi()
        async with (
            running(api, status_interval_ms=20) as (_, _, client),
            client.subscribe("status") as statuses,
        ):
            assert statuses.current["peers"] == 0
            api.peer_count = 3
            async with asyncio.timeout(5):
                while (await anext(statuses))["peers"] != 3:
                    pass

    run(scenario())


@pytest.mark.parametrize(
    "params",
    [
        {"topic": "tx"},
        {"topic": "blocks", "tx_id": "00" * 32},
        {"topic": "everything"},
        {"topic": "blocks", "after": "1-0"},
        {"topic": "operations", "after": 5},
        {},
    ],
)
def test_a_wrong_subscription_is_refused(params: dict[str, object]) -> None:
    async def scenario() -> None:
        async with (
            running() as (_, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            answer = await ask(ws, request("subscribe", **params))
            assert answer["error"]["code"] == RpcCode.INVALID_PARAMS

    run(scenario())


def test_operations_are_resumed_at_a_cursor_without_a_gap() -> None:
    async def scenario() -> None:
        async with running() as (server, _, client):
            async with client.subscribe("operations", after="4-0") as operations:
                assert operations.current is not None
                missed = operations.current["operations"]
                assert [line["cursor"] for line in missed] == ["5-0", "6-0", "7-0"]
                server.publish_block(event(8))
                found = await anext(operations)
                assert [line["cursor"] for line in found["operations"]] == ["8-0"]
            async with client.subscribe("operations") as operations:
                assert operations.current is None

    run(scenario())


def test_operations_of_a_large_block_come_in_messages_that_a_queue_holds() -> None:
    class Busy(FakeNodeApi):
        def did_operations(self, height: int) -> Sequence[JsonObject]:
            return [{"cursor": f"{height}-{n}"} for n in range(250)]

    async def scenario() -> None:
        async with (
            running(Busy()) as (server, _, client),
            client.subscribe("operations") as operations,
        ):
            server.publish_block(event(8))
            found = [await anext(operations) for _ in range(3)]
        assert [len(message["operations"]) for message in found] == [100, 100, 50]
        assert found[2]["operations"][-1]["cursor"] == "8-249"

    run(scenario())


def test_missed_operations_are_gathered_over_short_pages() -> None:
    pages: dict[str, JsonObject] = {
        "1-0": {"operations": [{"cursor": "1-1"}], "nextCursor": "5-0"},
        "5-0": {"operations": [], "nextCursor": "9-0"},
        "9-0": {"operations": [{"cursor": "9-3"}], "nextCursor": None},
    }

    class Sparse(FakeNodeApi):
        async def did_export(self, after: str | None, limit: int) -> JsonObject:
            return pages[str(after)]

    async def scenario() -> None:
        async with (
            running(Sparse()) as (_, _, client),
            client.subscribe("operations", after="1-0") as operations,
        ):
            assert operations.current is not None
            found = operations.current["operations"]
            assert [line["cursor"] for line in found] == ["1-1", "9-3"]

    run(scenario())


def test_too_many_missed_operations_are_left_to_the_export() -> None:
    class Ahead(FakeNodeApi):
        async def did_export(self, after: str | None, limit: int) -> JsonObject:
            return {"operations": [], "nextCursor": "5-0"}

    async def scenario() -> None:
        async with running(Ahead()) as (server, _, client):
            with pytest.raises(RpcError) as caught:
                async with client.subscribe("operations", after="1-0"):
                    pass
            assert caught.value.code == RpcCode.TOO_LARGE
            assert server._hub._subscribers_by_topic == {}

    run(scenario())


def test_unsubscribing_ends_the_messages() -> None:
    async def scenario() -> None:
        async with (
            running(ws_topics_max=1) as (server, url, _),
            aiohttp.ClientSession() as http,
            http.ws_connect(url + "/ws") as ws,
        ):
            answer = await ask(ws, request("subscribe", topic="blocks"))
            assert answer["result"]["subscription"] == "blocks"
            over = await ask(ws, request("subscribe", topic="tx", tx_id="00" * 32))
            assert over["error"]["code"] == RpcCode.RATE_LIMITED
            for expected in (True, False):
                found = await ask(ws, request("unsubscribe", subscription="blocks"))
                assert found["result"] is expected
            server.publish_block(event(8))
            assert (await ask(ws, request("chain_head", 5)))["id"] == 5

    run(scenario())


def test_a_connection_that_ends_leaves_no_subscription() -> None:
    async def scenario() -> None:
        async with running() as (server, _, client):
            async with client.subscribe("blocks"):
                assert server._hub._subscribers_by_topic
            await until(lambda: not server._hub._subscribers_by_topic)
            await until(lambda: metric(server, "zynk_rpc_subscribers") == 0)

    run(scenario())


def test_a_subscriber_with_a_full_queue_is_closed_with_4001() -> None:
    async def scenario() -> None:
        async with (
            running(ws_queue_max=4) as (server, _, client),
            client.subscribe("blocks") as slow,
        ):
            for height in range(9):
                server.publish_block(event(height))
            with pytest.raises(RpcConnectionError, match="4001 slow consumer"):
                async for _ in slow:
                    pass
            assert metric(server, "zynk_rpc_subscribers_dropped_total") == 1

    run(scenario())


@pytest.mark.slow
def test_a_subscriber_that_never_reads_is_dropped_while_others_get_everything() -> None:
    async def scenario() -> None:
        tx_ids = [hashlib.sha256(b"%d" % i).digest() for i in range(2000)]
        async with (
            running(ws_queue_bytes_max=2**20) as (server, url, client),
            client.subscribe("blocks") as healthy,
        ):
            host, port = url.removeprefix("http://").split(":")
            loop = asyncio.get_running_loop()
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.setblocking(False)
                await loop.sock_connect(plain, (host, int(port)))
                await loop.sock_sendall(plain, HANDSHAKE)
                assert b"101" in await loop.sock_recv(plain, 4096)
                text = request("subscribe", topic="blocks").encode()
                mask = b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0"
                await loop.sock_sendall(plain, mask + text)
                await until(lambda: len(server._hub._subscribers_by_topic["blocks"]) == 2)
                for height in range(60):
                    server.publish_block(event(height, *tx_ids))
                    assert (await anext(healthy))["height"] == height
                assert metric(server, "zynk_rpc_subscribers_dropped_total") == 1
                await until(lambda: metric(server, "zynk_rpc_subscribers") == 1)

    run(scenario())


@pytest.mark.slow
def test_a_caller_that_never_reads_its_answers_is_dropped() -> None:
    async def scenario() -> None:
        async with running(ws_queue_bytes_max=2**20, ws_write_timeout_ms=200) as (server, url, _):
            host, port = url.removeprefix("http://").split(":")
            loop = asyncio.get_running_loop()
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.setblocking(False)
                await loop.sock_connect(plain, (host, int(port)))
                await loop.sock_sendall(plain, HANDSHAKE)
                assert b"101" in await loop.sock_recv(plain, 4096)
                text = request("rpc.discover").encode()
                frame = b"\x81" + bytes([0x80 | len(text)]) + b"\0\0\0\0" + text
                await loop.sock_sendall(plain, frame * 400)
                await until(lambda: metric(server, "zynk_rpc_subscribers_dropped_total") == 1)
                await until(lambda: metric(server, "zynk_rpc_subscribers") == 0)
                assert server._sessions == set()

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x81\0\0\0\0x", 1003),
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),
        (b"\x81\xfe\x08\x00\0\0\0\0" + b"x" * 2048, 1009),
        (b"\xf1\x81\0\0\0\0x", 1002),
    ],
)
def test_wrong_frames_close_the_connection_with_their_code(frame: bytes, code: int) -> None:
    async def scenario() -> None:
        async with running(body_bytes_max=1024) as (_, url, client):
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            head = await asyncio.wait_for(reader.readexactly(4), 5)
            writer.close()
            assert head[0] == 0x88
            assert int.from_bytes(head[2:4], "big") == code
            assert await client.call("node_peers")

    run(scenario())


def test_a_page_of_another_origin_can_not_open_a_websocket() -> None:
    async def scenario() -> None:
        async with (
            running(origins_allowed=("https://app.example",)) as (_, url, _),
            aiohttp.ClientSession() as http,
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await http.ws_connect(url + "/ws", origin="https://evil.example")
            async with http.ws_connect(url + "/ws", origin="https://app.example") as ws:
                assert (await ask(ws, request("chain_head")))["id"] == 1

    run(scenario())


def test_websockets_over_the_limit_are_refused() -> None:
    async def scenario() -> None:
        async with (
            running(ws_count_max=1) as (_, url, client),
            client.subscribe("blocks"),
            aiohttp.ClientSession() as http,
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
                await http.ws_connect(url + "/ws")

    run(scenario())


def test_stopping_tells_subscribers_that_the_node_goes_away() -> None:
    async def scenario() -> None:
        async with running() as (server, url, _):
            client = RpcClient(url)
            async with client.subscribe("blocks") as blocks:
                stopping = asyncio.create_task(server.stop())
                with pytest.raises(RpcConnectionError, match="1001"):
                    await anext(blocks)
                await stopping
            await client.close()

    run(scenario())


def test_a_refused_subscription_is_an_rpc_error_in_the_client() -> None:
    async def scenario() -> None:
        async with running() as (_, _, client):
            with pytest.raises(RpcError):
                async with client.subscribe("tx"):
                    pass

    run(scenario())
