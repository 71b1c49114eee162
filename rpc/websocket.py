"""One WebSocket: requests in, answers and subscription messages out.

Writing is bounded: messages wait in a queue, and a subscriber whose queue is full is closed with
code 4001 rather than held in memory or waited for; an answer waits for room in it. Reading is
bounded: beyond `ws_calls_inflight_max` calls, or while half the queue's bytes wait, nothing more is
read. Requests count against the server's budget of bodies until they are answered, answers against
that of unread answers until they are written.

Close codes: 1001 the node is stopping, 1003 a binary frame, 1007 and 1009 (by aiohttp) text that is
not UTF-8 or too long, 4001 slow consumer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from rpc.config import RpcConfig
from rpc.dispatch import Caller, Dispatcher, error_text
from rpc.errors import RpcError
from rpc.limits import ByteBudget, Reservation
from rpc.metrics import RpcMetrics
from rpc.subscriptions import Hub

CLOSE_SLOW_CONSUMER = 4001
CLOSE_TIMEOUT_S = 2.0


class WebSocketSession:
    """A `rpc.subscriptions.Subscriber`. `run` lasts as long as the connection."""

    def __init__(
        self,
        *,
        ip: str,
        dispatcher: Dispatcher,
        hub: Hub,
        config: RpcConfig,
        metrics: RpcMetrics,
        bodies: ByteBudget,
        answers: ByteBudget,
    ) -> None:
        self.topics: set[str] = set()
        self._hub = hub
        self._config = config
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._bodies = bodies
        self._answers = answers
        self._caller = Caller(ip, hub.calls_for(self))
        self._queue: deque[tuple[bytes, Reservation | None]] = deque()
        self._queue_bytes = 0
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._written = asyncio.Event()
        self._slots = asyncio.Semaphore(config.ws_calls_inflight_max)
        self._calls: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._socket = web.WebSocketResponse(
            heartbeat=config.ws_ping_ms / 1000,
            max_msg_size=min(config.ws_text_bytes_max, config.body_bytes_max),
            compress=False,
            timeout=CLOSE_TIMEOUT_S,
        )
        self._request: web.BaseRequest | None = None

    async def run(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """Serve until either side closes."""
        await self._socket.prepare(request)
        self._request = request
        self._metrics.subscribers.inc()
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        over = asyncio.create_task(self._over.wait())  # the reader may be waiting for room
        try:
            await asyncio.wait((reader, writer, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await self._end((reader, writer, over))
            finally:
                self._metrics.subscribers.dec()
        return self._socket

    async def _end(self, tasks: tuple[asyncio.Task[Any], ...]) -> None:
        """Everything that runs for this connection, and all it holds, is gone on return."""
        self._hub.forget(self)
        running = (*tasks, *self._calls)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for _, held in self._queue:
            if held is not None:
                held.release()
        if self._closing is not None:
            await asyncio.gather(self._closing, return_exceptions=True)

    def offer(self, message: bytes) -> None:
        """Queue a subscription's message, or give the subscriber up."""
        is_full = (
            len(self._queue) >= self._config.ws_queue_max
            or self._queue_bytes + len(message) > self._config.ws_queue_bytes_max
        )
        if is_full and self._queue:
            self._metrics.subscribers_dropped.inc()
            self._hub.forget(self)
            self.close(CLOSE_SLOW_CONSUMER, b"slow consumer: read faster or subscribe to less")
            return
        self._enqueue(message)

    def close(self, code: int, why: bytes) -> None:
        """Begin closing; what is queued is dropped if the peer does not take it in time."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, why))

    async def closed(self) -> None:
        """Wait until a close that has begun is over."""
        if self._closing is not None:
            await asyncio.gather(self._closing, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            await self._slots.acquire()
            await self._drained.wait()
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT:
                body = message.data.encode()
                del message
                task = asyncio.create_task(self._answer(body))
                del body
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                continue
            if message.type is WSMsgType.BINARY:
                self.close(WSCloseCode.UNSUPPORTED_DATA, b"send text frames")
            return

    async def _answer(self, body: bytes) -> None:
        held = self._answers.hold(self._caller.ip)
        is_queued = False
        try:
            with self._bodies.hold(self._caller.ip) as body_held:
                body_held.add(len(body))
                work = self._dispatcher.answer(body, self._caller, held)
                del body
                answer = await work
            if answer is not None:
                held.settle(len(answer))
                await self._enqueue_answer(answer.encode("ascii"), held)
                is_queued = True
        except RpcError as error:
            self._enqueue(error_text(None, error).encode("ascii"))
        finally:
            if not is_queued:
                held.release()
            self._slots.release()

    async def _enqueue_answer(self, message: bytes, held: Reservation) -> None:
        while self._queue and self._queue_bytes + len(message) > self._config.ws_queue_bytes_max:
            self._written.clear()
            await self._written.wait()
        self._enqueue(message, held)

    def _enqueue(self, message: bytes, held: Reservation | None = None) -> None:
        if self._closing is not None and self._closing.done():
            if held is not None:
                held.release()
            return
        self._queue.append((message, held))
        self._queue_bytes += len(message)
        if self._queue_bytes * 2 > self._config.ws_queue_bytes_max:
            self._drained.clear()
        self._changed.set()

    async def _write(self) -> None:
        timeout_s = self._config.ws_write_timeout_ms / 1000
        try:
            while True:
                if not self._queue:
                    self._changed.clear()
                    await self._changed.wait()
                async with asyncio.timeout(timeout_s):
                    await self._socket.send_frame(self._queue[0][0], WSMsgType.TEXT)
                message, held = self._queue.popleft()
                self._queue_bytes -= len(message)
                del message
                if held is not None:
                    held.release()
                self._written.set()
                if self._queue_bytes * 2 <= self._config.ws_queue_bytes_max:
                    self._drained.set()
        except TimeoutError:
            self._metrics.subscribers_dropped.inc()
            self._hub.forget(self)
            self.close(CLOSE_SLOW_CONSUMER, b"slow consumer: nothing was read")
        except (ConnectionError, RuntimeError):
            self._abort()

    async def _close(self, code: int, why: bytes) -> None:
        """The close frame goes out behind what the socket already holds; a peer that does not
        read loses the connection after CLOSE_TIMEOUT_S."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close(code=code, message=why)
        except (Exception, asyncio.CancelledError):
            # aiohttp's writers wait on one future: the time limit of another write, which cancels
            # it, comes out here as a cancellation. Either way the peer does not take the frame.
            self._abort()
        finally:
            self._over.set()

    def _abort(self) -> None:
        self._over.set()
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()
