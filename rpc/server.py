"""The HTTP side: routes, limits, CORS, start and graceful stop.

Routes: POST / (JSON-RPC), GET /ws, /health, /ready, /metrics, /1.0/... (rpc.rest), /read/{method},
/checkpoint and /tile/... (rpc.tiles); GET / and what it refers to is the page for people
(rpc.page_files).

A request that reaches JSON-RPC is answered 200 (204 if there is nothing to say), whatever the
answer; what is refused before that has its HTTP status and a JSON-RPC error as body. Requests with
an Origin header come from a web page: POST and /ws take only listed origins, so that no page can
drive a node on its visitor's machine; resolution is open to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog
from aiohttp import WSCloseCode, web

from rpc.api import BlockEvent, NodeApi
from rpc.config import RpcConfig
from rpc.connections import HeldResponse, LimitedServer
from rpc.dispatch import Caller, Dispatcher, encode_json, error_text
from rpc.errors import (
    RpcCode,
    RpcError,
    WrongContentTypeError,
    WrongMethodError,
    http_status_of,
)
from rpc.limits import ByteBudget, Reservation
from rpc.methods import METHODS
from rpc.metrics import CONTENT_TYPE, RpcMetrics
from rpc.openrpc import openrpc_document
from rpc.page_files import load_page_files
from rpc.reads import PATH_PREFIX as READ_PREFIX
from rpc.reads import read_over_http
from rpc.registry import Method, Registry
from rpc.rest import CORS, RestRoutes
from rpc.rest import PREFIX as REST_PREFIX
from rpc.results import ANY_OBJECT
from rpc.subscriptions import SUBSCRIPTION_METHODS, Hub
from rpc.tiles import CHECKPOINT_PATH, TILE_PREFIX, LogSource, TileRoutes
from rpc.websocket import WebSocketSession

JSON_TYPES = ("application/json", "application/json-rpc", "application/jsonrequest")

log = structlog.get_logger("rpc")


class RpcServer:
    """Serves one node. `extra_methods` are further JSON-RPC methods (a devnet's faucet); `genesis`
    is the genesis document's bytes, for the page; without an `audit_log` there are no tiles."""

    def __init__(
        self,
        api: NodeApi,
        config: RpcConfig,
        extra_methods: Iterable[Method] = (),
        *,
        genesis: bytes | None = None,
        audit_log: LogSource | None = None,
    ) -> None:
        self.metrics = RpcMetrics(api.metrics)
        document: dict[str, object] = {}
        self.registry = Registry(
            (*METHODS, *extra_methods, *SUBSCRIPTION_METHODS, _discover(document))
        )
        document.update(openrpc_document(self.registry))
        self._api = api
        self._config = config
        self._dispatcher = Dispatcher(api, self.registry, config, self.metrics)
        self._hub = Hub(
            api,
            topics_max=config.ws_topics_max,
            status_interval_ms=config.status_interval_ms,
        )
        self._bodies = ByteBudget(
            "large requests", config.bodies_bytes_max, config.bodies_bytes_per_ip_max
        )
        self._answers = ByteBudget(
            "unread answers", config.answers_bytes_max, config.answers_bytes_per_ip_max
        )
        self._rest = RestRoutes(
            self._dispatcher,
            self._read_json_body,
            self._origin_headers,
            self._respond,
            registrar_wait_ms=config.registrar_wait_ms,
        )
        self._tiles = (
            None if audit_log is None else TileRoutes(audit_log, self._dispatcher, self._respond)
        )
        self._page = load_page_files(genesis)
        self._sessions: set[WebSocketSession] = set()
        self._http: LimitedServer | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Listen; returns the port. Raises OSError if it is taken."""
        assert self._http is None
        self._http = LimitedServer(self._handle, self._config, self.metrics)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._http, self._config.host, self._config.port, backlog=512
        )
        self._tasks = [
            asyncio.create_task(self._hub.watch_status()),
            asyncio.create_task(self._http.sweep()),
        ]
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening, let calls in flight end within `drain_ms`, then close everything."""
        if self._http is None or self._listener is None:
            return
        http, self._http = self._http, None
        deadline = time.monotonic() + self._config.drain_ms / 1000
        self._listener.close()
        self._dispatcher.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_ms / 1000):
                await self._dispatcher.idle.wait()
        sessions = list(self._sessions)
        for session in sessions:
            session.close(WSCloseCode.GOING_AWAY, b"the node is stopping")
        await asyncio.gather(*(session.closed() for session in sessions))
        http.pre_shutdown()
        await http.shutdown(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._listener.wait_closed()

    def publish_block(self, event: BlockEvent) -> None:
        """Tell subscribers of a block that is final and durable. Never raises or blocks."""
        try:
            self._hub.publish_block(event)
        except Exception:
            log.exception("a block could not be published", height=event.height)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        http = self._http
        if http is not None:
            http.on_request(request.protocol)
        try:
            return await self._route(request)
        except RpcError as error:
            return self._refuse(request, error)
        except ConnectionError:  # the peer is gone; what is returned is not read by anyone
            return web.Response(status=499)
        except Exception:
            log.exception("a request failed with a bug", path=request.path[:200])
            bug = RpcError(RpcCode.INTERNAL_ERROR, "internal error; see the node's log")
            return self._refuse(request, bug)
        finally:
            if http is not None:
                http.on_response(request.protocol)

    def _refuse(self, request: web.BaseRequest, error: RpcError) -> web.Response:
        if request.path.startswith(REST_PREFIX):
            return self._rest.refuse(request, error)
        headers = {"Allow": error.allowed} if isinstance(error, WrongMethodError) else {}
        if request.path == CHECKPOINT_PATH or request.path.startswith(TILE_PREFIX):
            headers |= {**CORS, "Cache-Control": "no-store"}  # a tile that is not there may come
        return _error_response(http_status_of(error), error, headers)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.path
        if path == "/" and method == "POST":
            return await self._serve_rpc(request)
        if path.startswith(REST_PREFIX):
            return await self._rest.serve(request)
        if path.startswith(READ_PREFIX):
            return await self._serve_read(request)
        if self._tiles is not None and (path == CHECKPOINT_PATH or path.startswith(TILE_PREFIX)):
            return await self._tiles.serve(request)
        if method == "OPTIONS" and path == "/":
            return self._preflight(request)
        if (file := self._page.get(path)) is not None:
            if method not in ("GET", "HEAD"):
                raise WrongMethodError(("GET", "POST") if path == "/" else ("GET",), method)
            return file.to_response(request.headers.get("If-None-Match", ""))
        if path in ("/ws", "/health", "/ready", "/metrics"):
            if method not in (("GET",) if path == "/ws" else ("GET", "HEAD")):
                raise WrongMethodError(("GET",), method)
            match path:
                case "/ws":
                    return await self._serve_websocket(request)
                case "/health":
                    return _json_response(200, {"status": "ok"})
                case "/ready":
                    return self._serve_ready()
                case _:
                    return web.Response(
                        body=self.metrics.render(), headers={"Content-Type": CONTENT_TYPE}
                    )
        error = RpcError(
            RpcCode.NOT_FOUND,
            "no such path",
            expected=f"POST /, GET / /ws /health /ready /metrics {REST_PREFIX}identifiers/<did> "
            f"{READ_PREFIX}<method> {CHECKPOINT_PATH} {TILE_PREFIX}...",
            got=path[:80],
        )
        return _error_response(404, error)

    async def _serve_rpc(self, request: web.BaseRequest) -> web.Response:
        headers = self._origin_headers(request)
        body_bytes_max = self._config.body_bytes_max
        self._check_body(request, body_bytes_max)
        length = request.content_length
        ip = request.remote or ""
        with contextlib.ExitStack() as unsent:
            held = unsent.enter_context(self._answers.hold(ip))
            with self._bodies.hold(ip) as body_held:
                body_held.add(body_bytes_max if length is None else length)
                answer = await self._dispatcher.answer(
                    await self._read_body(request, body_bytes_max), Caller(ip), held
                )
            if answer is None:
                return web.Response(status=204, headers=headers)
            unsent.pop_all()
        return self._respond(request, 200, answer.encode("ascii"), headers, held)

    def _check_body(
        self, request: web.BaseRequest, bytes_max: int, *, needs_type: bool = True
    ) -> None:
        """Raise RpcError if the headers announce a body that is not taken."""
        is_bare = "Content-Type" not in request.headers and not needs_type
        if not (is_bare or request.content_type in JSON_TYPES) or _is_encoded(request):
            raise WrongContentTypeError(
                RpcCode.INVALID_REQUEST,
                "the content type is wrong",
                expected="Content-Type: application/json, UTF-8, no Content-Encoding",
                got=request.headers.get("Content-Type", "none")[:80],
            )
        length = request.content_length
        if length is not None and length > bytes_max:
            raise _body_too_large(bytes_max, str(length))

    async def _read_json_body(self, request: web.BaseRequest, bytes_max: int) -> bytes:
        """A body outside JSON-RPC; there may be none, and it is JSON where nothing else is said.
        Raises RpcError."""
        if not request.can_read_body:
            return b""
        self._check_body(request, bytes_max, needs_type=False)
        with self._bodies.hold(request.remote or "") as held:
            held.add(bytes_max if request.content_length is None else request.content_length)
            body = await self._read_body(request, bytes_max)
        await self._dispatcher.admit(Caller(request.remote or ""), len(body))
        return body

    async def _read_body(self, request: web.BaseRequest, bytes_max: int) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.body_timeout_ms / 1000):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > bytes_max:
                        raise _body_too_large(bytes_max, "more")
        except TimeoutError:
            raise RpcError(
                RpcCode.TIMED_OUT,
                "the body did not arrive in time",
                expected=f"within {self._config.body_timeout_ms} ms",
            ) from None
        return bytes(body)

    async def _serve_websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        self._origin_headers(request)
        if len(self._sessions) >= self._config.ws_count_max or self._dispatcher.stopping:
            raise RpcError(RpcCode.RATE_LIMITED, "too many WebSockets")
        session = WebSocketSession(
            ip=request.remote or "",
            dispatcher=self._dispatcher,
            hub=self._hub,
            config=self._config,
            metrics=self.metrics,
            bodies=self._bodies,
            answers=self._answers,
        )
        self._sessions.add(session)
        try:
            return await session.run(request)
        except web.HTTPException as error:
            refusal = RpcError(
                RpcCode.INVALID_REQUEST,
                "not a WebSocket handshake",
                expected="Upgrade: websocket, version 13",
            )
            return _error_response(error.status, refusal)
        finally:
            self._sessions.discard(session)

    def _serve_ready(self) -> web.Response:
        readiness = self._api.readiness()
        ready, reasons = readiness.ready, list(readiness.reasons)
        if self._dispatcher.stopping:
            ready, reasons = False, ["the node is stopping", *reasons]
        return _json_response(200 if ready else 503, {"ready": ready, "reasons": reasons})

    async def _serve_read(self, request: web.BaseRequest) -> web.Response:
        headers = self._origin_headers(request)
        if request.method not in ("GET", "HEAD"):
            raise WrongMethodError(("GET",), request.method)
        caller = Caller(request.remote or "")
        name = request.path[len(READ_PREFIX) :]
        answer = await read_over_http(
            self._dispatcher, self.registry, caller, name, request.query.items()
        )
        headers["Cache-Control"] = "no-store"
        return self._respond(request, 200, answer.encode("ascii"), headers)

    def _respond(
        self,
        request: web.BaseRequest,
        status: int,
        body: bytes,
        headers: dict[str, str],
        held: Reservation | None = None,
    ) -> web.Response:
        """An answer within the budget for what peers have not read yet: its bytes are held until
        this one has, or is gone. `held`: room that was taken for them already. Raises RpcError."""
        if held is None:
            held = self._answers.hold(request.remote or "")
            held.add(len(body))
        else:
            held.settle(len(body))
        if self._http is not None:
            self._http.release_with(request.protocol, held)
        return HeldResponse(held, status=status, body=body, headers=headers)

    def _preflight(self, request: web.BaseRequest) -> web.Response:
        headers = self._origin_headers(request)
        if headers:
            headers["Access-Control-Allow-Methods"] = "POST"
            headers["Access-Control-Allow-Headers"] = "Content-Type"
            headers["Access-Control-Max-Age"] = "600"
        return web.Response(status=204, headers=headers)

    def _origin_headers(self, request: web.BaseRequest) -> dict[str, str]:
        """CORS headers for a page's request. Raises RpcError FORBIDDEN for other origins."""
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        allowed = self._config.origins_allowed
        if origin not in allowed and "*" not in allowed:
            raise RpcError(
                RpcCode.FORBIDDEN,
                "this web origin is not allowed",
                expected="an origin from the node's origins_allowed",
                got=origin[:120],
            )
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _discover(document: dict[str, object]) -> Method:
    """`document` is filled in once the registry, which holds this method too, exists."""

    async def call() -> object:
        return document

    return Method(
        name="rpc.discover",
        summary="This document: every method with its parameters, answers and errors (OpenRPC).",
        bind=lambda _: call,
        result=ANY_OBJECT,
    )


def _is_encoded(request: web.BaseRequest) -> bool:
    charset = (request.charset or "utf-8").lower()
    return charset not in ("utf-8", "utf8") or "Content-Encoding" in request.headers


def _body_too_large(bytes_max: int, got: str) -> RpcError:
    return RpcError(
        RpcCode.TOO_LARGE, "the body is too large", expected=f"at most {bytes_max} bytes", got=got
    )


def _json_response(status: int, value: object) -> web.Response:
    return web.Response(
        status=status, body=encode_json(value).encode("ascii"), content_type="application/json"
    )


def _error_response(
    status: int, error: RpcError, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=error_text(None, error).encode("ascii"),
        content_type="application/json",
        headers=headers,
    )
