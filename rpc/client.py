"""The Python client: JSON-RPC over one kept-alive HTTP session, and subscriptions over WebSocket.

    async with RpcClient("http://127.0.0.1:26657") as client:
        head = await client.call("chain_head")
        outcome = await client.tx_submit(tx.encoded, wait="finalized")
        async with client.subscribe("blocks") as blocks:
            async for block in blocks: ...

An error answer is raised as `RpcError`; no answer at all as `RpcConnectionError`. Nothing is
retried here: `error.retry` tells the caller whether that makes sense.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp

from rpc.api import Wait
from rpc.errors import RpcConnectionError, RpcError
from rpc.params import text_of_bytes

TIMEOUT_S = 75.0
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
WAIT_MS_DEFAULT = 10_000

Result = Any
"""JSON as the server's OpenRPC document describes it."""
Call = tuple[str, Mapping[str, object]]
"""(method, params by name)."""


class RpcClient:
    """One server. Safe for concurrent calls from one event loop."""

    def __init__(
        self, url: str, *, timeout_s: float = TIMEOUT_S, connections_max: int = 16
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._connections_max = connections_max
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client can be used again after that."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(self, method: str, **params: object) -> Result:
        """One call, with parameters by name; None values are left out. Raises RpcError or
        RpcConnectionError."""
        request_id = next(self._ids)
        answer = await self._post(_request(request_id, method, params))
        return _read_answer(answer, request_id)

    async def batch(self, calls: Sequence[Call]) -> list[Result | RpcError]:
        """Many calls in one request; results and errors in the order of `calls`. Raises RpcError
        if the batch as a whole was refused, or RpcConnectionError."""
        if not calls:
            return []
        ids = [next(self._ids) for _ in calls]
        answer = await self._post(
            [_request(i, name, params) for i, (name, params) in zip(ids, calls, strict=True)]
        )
        if not isinstance(answer, list):
            _read_answer(answer, None)
            raise RpcConnectionError("the server did not answer a batch with an array")
        answer_by_id = {item.get("id"): item for item in answer if isinstance(item, dict)}
        found: list[Result | RpcError] = []
        for request_id in ids:
            try:
                found.append(_read_answer(answer_by_id.get(request_id), request_id))
            except RpcError as error:
                found.append(error)
        return found

    async def tx_submit(
        self, tx: bytes, *, wait: Wait = "accepted", timeout_ms: int = WAIT_MS_DEFAULT
    ) -> Result:
        """Submit wire bytes: {tx_id, status, ...}."""
        return await self.call("tx_submit", tx=text_of_bytes(tx), wait=wait, timeout_ms=timeout_ms)

    async def tx_submit_batch(
        self, txs: Iterable[bytes], *, wait: Wait = "accepted", timeout_ms: int = WAIT_MS_DEFAULT
    ) -> list[Result]:
        """One outcome a tx; a refused one has `status` refused and `error`."""
        answer = await self.call(
            "tx_submitBatch",
            txs=[text_of_bytes(tx) for tx in txs],
            wait=wait,
            timeout_ms=timeout_ms,
        )
        outcomes: list[Result] = answer["outcomes"]
        return outcomes

    async def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """(status, body) of a GET such as /ready. Raises RpcConnectionError."""
        try:
            async with self._http().get(self.url + path, headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._no_answer(error) from error

    @asynccontextmanager
    async def subscribe(
        self, topic: str, tx_id: bytes | None = None, *, after: str | None = None
    ) -> AsyncIterator[Subscription]:
        """Listen on a WebSocket of its own until the block is left. `after` resumes the topic
        `operations` at a cursor."""
        try:
            socket = await self._http().ws_connect(
                self.url + "/ws", max_msg_size=RESPONSE_BYTES_MAX, heartbeat=30
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._no_answer(error) from error
        try:
            subscription = Subscription(socket)
            await subscription.start(topic, tx_id, after, self._timeout_s)
            yield subscription
        finally:
            await socket.close()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=self._connections_max),
            )
        return self._session

    async def _post(self, request: object) -> object:
        body = json.dumps(request, separators=(",", ":")).encode("ascii")
        try:
            async with self._http().post(
                self.url + "/", data=body, headers={"Content-Type": "application/json"}
            ) as response:
                length = response.content_length
                if length is not None and length > RESPONSE_BYTES_MAX:
                    raise RpcConnectionError("the answer is too large", got=f"{length} bytes")
                text = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._no_answer(error) from error
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise RpcConnectionError(
                f"{self.url} does not speak JSON-RPC", expected="JSON", got=f"HTTP {status}"
            ) from None

    def _no_answer(self, error: BaseException) -> RpcConnectionError:
        return RpcConnectionError(
            f"no answer from {self.url}", got=str(error) or type(error).__name__
        )


class Subscription:
    """An asynchronous iterator over a topic's messages. `current` is the state at the start
    (for `status`, and for a tx that is final already)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._early: list[Result] = []
        self.current: Result = None

    async def start(
        self, topic: str, tx_id: bytes | None, after: str | None, timeout_s: float
    ) -> None:
        """Send `subscribe` and wait for its answer. Raises RpcError or RpcConnectionError."""
        params = {
            "topic": topic,
            "tx_id": None if tx_id is None else tx_id.hex(),
            "after": after,
        }
        await self._socket.send_json(_request(1, "subscribe", params))
        try:
            async with asyncio.timeout(timeout_s):
                while (message := await self._next_message()).get("id") != 1:
                    self._early.append(message["params"]["result"])
        except TimeoutError:
            raise RpcConnectionError("the server did not answer subscribe") from None
        self.current = _read_answer(message, 1)["current"]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """The next message. Raises RpcConnectionError when the server closes, with its code."""
        if self._early:
            return self._early.pop(0)
        return (await self._next_message())["params"]["result"]

    async def _next_message(self) -> dict[str, Any]:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            found: dict[str, Any] = json.loads(message.data)
            return found
        raise RpcConnectionError(
            "the WebSocket was closed", got=f"{self._socket.close_code} {message.extra or ''}"
        )


class SyncRpcClient:
    """The same for code without an event loop, such as the CLI."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._runner = asyncio.Runner()
        self._client = RpcClient(url, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections for good."""
        self._runner.run(self._client.close())
        self._runner.close()

    def call(self, method: str, **params: object) -> Result:
        """As RpcClient.call."""
        return self._runner.run(self._client.call(method, **params))

    def batch(self, calls: Sequence[Call]) -> list[Result | RpcError]:
        """As RpcClient.batch."""
        return self._runner.run(self._client.batch(calls))

    def tx_submit(
        self, tx: bytes, *, wait: Wait = "accepted", timeout_ms: int = WAIT_MS_DEFAULT
    ) -> Result:
        """As RpcClient.tx_submit."""
        return self._runner.run(self._client.tx_submit(tx, wait=wait, timeout_ms=timeout_ms))

    def get(self, path: str) -> tuple[int, bytes]:
        """As RpcClient.get."""
        return self._runner.run(self._client.get(path))


def _request(request_id: int, method: str, params: Mapping[str, object]) -> dict[str, object]:
    given = {name: value for name, value in params.items() if value is not None}
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": given}


def _read_answer(answer: object, request_id: int | None) -> Result:
    """The result, or raise the error. An answer to another request is no answer."""
    if isinstance(answer, dict) and answer.get("jsonrpc") == "2.0":
        error = answer.get("error")
        if isinstance(error, dict):
            raise _error(error)
        if "result" in answer and answer.get("id") == request_id:
            return answer["result"]
    raise RpcConnectionError("the server's answer is not a JSON-RPC response")


def _error(error: Mapping[str, Any]) -> RpcError:
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    code = error.get("code")
    return RpcError(
        code if isinstance(code, int) else 0,
        str(error.get("message", "")),
        reason=str(data.get("reason", "")),
        expected=str(data.get("expected", "")),
        got=str(data.get("got", "")),
        retry=bool(data.get("retry", False)),
    )
