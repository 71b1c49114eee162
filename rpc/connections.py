"""TCP connections of the server: how many, from whom, and for how long without progress.

aiohttp's low-level server tells of each connection when it opens and closes; limits hook in there,
before a byte is parsed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from rpc.config import RpcConfig
from rpc.dispatch import error_text
from rpc.errors import RpcCode, RpcError
from rpc.limits import ConnectionCounter, Reservation
from rpc.metrics import RpcMetrics

SWEEP_INTERVAL_S = 1.0
LINGER_S = 2.0
"""How long the rest of a refused body is read and dropped, so that the refusal gets read."""
HEADER_BYTES_MAX = 8190

# The server handles its own bugs; what aiohttp would log here is strangers' bytes, at their pace.
_QUIET = logging.getLogger("zynk.rpc.http")
_QUIET.setLevel(logging.CRITICAL + 1)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _refusal() -> bytes:
    error = RpcError(RpcCode.RATE_LIMITED, "too many connections; close some or try later")
    body = error_text(None, error).encode("ascii")
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


_REFUSAL = _refusal()


class HeldResponse(web.Response):
    """An answer whose bytes are held until the peer has taken them."""

    def __init__(
        self, held: Reservation, *, body: bytes, headers: dict[str, str], status: int = 200
    ) -> None:
        headers = {"Content-Type": "application/json", **headers}
        super().__init__(status=status, body=body, headers=headers)
        self._held = held

    async def write_eof(self, data: bytes = b"") -> None:
        """aiohttp returns from it once what waits in the socket is below a few KiB."""
        try:
            await super().write_eof(data)
        finally:
            self._held.release()


class _Connection(RequestHandler):
    """Refuses what is no HTTP request with a typed error, and mirrors none of its bytes."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        error = RpcError(
            RpcCode.INVALID_REQUEST,
            "not an HTTP request that is taken here",
            expected=f"HTTP/1.1, and at most {HEADER_BYTES_MAX} bytes of URL and of each header",
        )
        response = web.Response(
            status=status,
            body=error_text(None, error).encode("ascii"),
            headers={"Content-Type": "application/json", "Access-Control-Allow-Origin": "*"},
        )
        response.force_close()
        return response


class LimitedServer(web.Server):
    """Refuses connections over a limit, and aborts those that stand still: without a request, or
    with an answer that nobody reads."""

    def __init__(self, handler: Handler, config: RpcConfig, metrics: RpcMetrics) -> None:
        super().__init__(
            handler,
            keepalive_timeout=config.keepalive_ms / 1000,
            lingering_time=LINGER_S,
            access_log=None,
            logger=_QUIET,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        self._counter = ConnectionCounter(config.connections_max, config.connections_per_ip_max)
        self._keepalive_s = config.keepalive_ms / 1000
        self._metrics = metrics
        self._ip_by_handler: dict[RequestHandler, str] = {}
        self._idle_since_s: dict[RequestHandler, float] = {}
        self._held_by_handler: dict[RequestHandler, Reservation] = {}

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = transport.get_extra_info("peername")
        ip = str(peer[0]) if peer else ""
        if self._counter.is_full(ip):
            self._metrics.connections_refused.inc()
            transport.write(_REFUSAL)
            transport.close()
            return
        self._counter.add(ip)
        self._ip_by_handler[handler] = ip
        self._idle_since_s[handler] = time.monotonic()
        self._metrics.connections.set(self._counter.count)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._idle_since_s.pop(handler, None)
        held = self._held_by_handler.pop(handler, None)
        if held is not None:
            held.release()
        ip = self._ip_by_handler.pop(handler, None)
        if ip is not None:
            self._counter.remove(ip)
            self._metrics.connections.set(self._counter.count)

    def on_request(self, handler: RequestHandler) -> None:
        """The handler has work; it is not idle however long that takes."""
        self._idle_since_s.pop(handler, None)

    def on_response(self, handler: RequestHandler) -> None:
        """An answer begins to go out; from now on the peer has to move."""
        if handler in self._ip_by_handler:
            self._idle_since_s[handler] = time.monotonic()

    def release_with(self, handler: RequestHandler, held: Reservation) -> None:
        """If the connection is lost before the answer is written, `held` is released then."""
        if handler in self._ip_by_handler:
            self._held_by_handler[handler] = held
        else:
            held.release()

    async def sweep(self) -> None:
        """Abort connections that stand still; runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            oldest = time.monotonic() - self._keepalive_s
            for handler, since in list(self._idle_since_s.items()):
                if since < oldest and handler.transport is not None:
                    handler.transport.abort()
