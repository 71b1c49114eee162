"""Whatever bytes come, the server answers by the book and goes on."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpc.config import RpcConfig
from rpc.dispatch import Caller, Dispatcher
from rpc.errors import RpcCode
from rpc.methods import METHODS
from rpc.metrics import RpcMetrics
from rpc.params import bytes_of_text, text_of_bytes
from rpc.registry import Registry
from rpc.server import RpcServer
from rpc.subscriptions import SUBSCRIPTION_METHODS
from tests.unit.test_rpc_fake import FakeNodeApi

pytestmark = pytest.mark.timeout(1800)
SOAK = os.environ.get("ZYNK_SOAK") == "1"
CASES = settings(
    max_examples=10_000 if SOAK else 400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SOCKET_CASES = settings(CASES, max_examples=10_000 if SOAK else 60)
STANDARD = {code.value for code in RpcCode}
ERROR_DATA = {"reason", "expected", "got", "retry"}

scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["ab" * 32, "AAEC", "did:zynk:z1", "none", "blocks"])
)
json_value = st.recursive(
    scalar,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=12,
)
param_name = st.sampled_from(sorted({p.name for m in METHODS for p in m.params}))
params = st.one_of(
    json_value,
    st.lists(scalar, max_size=5),
    st.dictionaries(param_name, json_value, max_size=4),
)
method_name = st.sampled_from([m.name for m in METHODS] + ["subscribe", "rpc.discover", "", "x"])
request = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | st.just("2.0") | json_value,
        "id": json_value,
        "method": method_name | method_name | json_value,
        "params": params,
    },
)
near_request = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers(), "method": method_name, "params": params}
)
body = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.one_of(request, near_request, json_value, st.lists(request | near_request, max_size=6)).map(
        lambda value: json.dumps(value).encode()
    ),
)
cut = st.tuples(body, st.integers(0, 200), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
)


def make_dispatcher() -> Dispatcher:
    api = FakeNodeApi()
    api.release.set()
    registry = Registry((*METHODS, *SUBSCRIPTION_METHODS))
    return Dispatcher(api, registry, RpcConfig(calls_per_s_per_ip_max=0), RpcMetrics(api.metrics))


DISPATCHER = make_dispatcher()
CALLER = Caller("127.0.0.1")


def check_response(answer: Any) -> None:
    assert answer["jsonrpc"] == "2.0"
    assert set(answer) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    if "error" in answer:
        assert answer["error"]["code"] in STANDARD
        assert answer["error"]["code"] != RpcCode.INTERNAL_ERROR
        assert answer["error"]["message"]
        assert set(answer["error"]["data"]) == ERROR_DATA


@pytest.mark.slow
@CASES
@given(body | cut)
def test_any_bytes_get_a_response_by_the_book(data: bytes) -> None:
    text = asyncio.run(DISPATCHER.answer(data, CALLER))
    if text is None:
        found = json.loads(data)
        items = found if isinstance(found, list) else [found]
        assert all(isinstance(item, dict) and "id" not in item for item in items)
        return
    answer = json.loads(text)
    for item in answer if isinstance(answer, list) else [answer]:
        check_response(item)
    assert DISPATCHER.inflight_count == 0


@pytest.mark.slow
@CASES
@given(near_request)
def test_a_well_formed_request_is_answered_under_its_id(value: dict[str, Any]) -> None:
    text = asyncio.run(DISPATCHER.answer(json.dumps(value), CALLER))
    assert text is not None
    answer = json.loads(text)
    if answer.get("error", {}).get("code") != RpcCode.PARSE_ERROR:  # NaN is no JSON
        assert answer["id"] == value["id"]


@pytest.mark.slow
@CASES
@given(st.binary(max_size=300))
def test_base64url_is_inverted_and_only_it_is_read(data: bytes) -> None:
    assert bytes_of_text(text_of_bytes(data)) == data
    try:
        text = data.decode()
        decoded = bytes_of_text(text)
    except ValueError:
        return
    assert len(text_of_bytes(decoded)) == len(text)


@pytest.mark.slow
@SOCKET_CASES
@given(st.lists(body | cut | st.binary(max_size=400), min_size=1, max_size=8))
def test_any_bytes_on_a_connection_leave_the_server_serving(chunks: list[bytes]) -> None:
    """Raw bytes, bodies under a right head, and WebSocket frames; then a call that must work."""

    async def scenario() -> None:
        api = FakeNodeApi()
        api.release.set()
        server = RpcServer(api, RpcConfig(port=0, drain_ms=200))
        port = await server.start()
        try:
            for i, chunk in enumerate(chunks):
                head = (
                    b"",
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(chunk),
                    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                )[i % 3]
                await send(port, head + chunk)
            good = b'{"jsonrpc":"2.0","id":1,"method":"node_peers"}'
            found = await send(
                port,
                b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(good) + good,
                wait_s=10,
            )
            assert b"12D3" in found
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), 30))


async def send(port: int, data: bytes, wait_s: float = 0.02) -> bytes:
    """Send, and read what is answered until the server closes or time is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        writer.write(data)
        async with asyncio.timeout(wait_s):
            while chunk := await reader.read(65536):
                found += chunk
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return found
