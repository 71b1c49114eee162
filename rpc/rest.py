"""The REST routes under /1.0/, and what they share: CORS, bodies, HEAD.

Any web page may read here: nothing of it acts for the node or its operator. Registration is for
listed origins alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from rpc.dispatch import Caller, Dispatcher, encode_json, error_text
from rpc.errors import RpcCode, RpcError, WrongMethodError, http_status_of
from rpc.registrar import BODY_BYTES_MAX, KIND_BY_PATH, Registrar
from rpc.resolver import (
    NEVER,
    OPTIONS_BYTES_MAX,
    PATH_PREFIX,
    ResolverRequest,
    ResolverResponse,
    answer_resolver,
    refuse,
)

PREFIX = "/1.0/"
OPERATIONS_PATH = "/1.0/operations"
LINES_TYPE = "application/jsonl"
EXPOSED = "ETag, Location, Retry-After"
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}

ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
"""(request, the most bytes it may have) -> body. Raises RpcError."""


class RestRoutes:
    """Serves every path under /1.0/."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        read_body: ReadBody,
        check_origin: Callable[[web.BaseRequest], dict[str, str]],
        respond: Callable[[web.BaseRequest, int, bytes, dict[str, str]], web.Response],
        *,
        registrar_wait_ms: int,
    ) -> None:
        self._registrar = Registrar(dispatcher, final_wait_ms=registrar_wait_ms)
        self._check_origin = check_origin
        self._respond = respond
        self._dispatcher = dispatcher
        self._read_body = read_body

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Raises RpcError for what is no route, or a wrong method."""
        if _is_resolver(request):
            return await self._serve_identifiers(request)
        if request.path == OPERATIONS_PATH:
            return await self._serve_operations(request)
        if request.path in KIND_BY_PATH:
            return await self._serve_registrar(request)
        raise RpcError(
            RpcCode.NOT_FOUND,
            "no such path",
            expected=f"{PATH_PREFIX}<DID or DID URL>, {OPERATIONS_PATH}, "
            + ", ".join(KIND_BY_PATH),
            got=request.path[:80],
        )

    def refuse(self, request: web.BaseRequest, error: RpcError) -> web.Response:
        """The answer where `serve` raised `error`: to a resolver's caller a result."""
        if _is_resolver(request):
            response = refuse(_accept_of(request), error)
            status, body, headers = response.status, response.body, _headers_of(response)
        else:
            status, body = http_status_of(error), error_text(None, error).encode("ascii")
            headers = {**CORS, "Content-Type": "application/json"}
        if isinstance(error, WrongMethodError):
            headers["Allow"] = error.allowed
        return web.Response(status=status, body=body, headers=headers)

    async def _serve_identifiers(self, request: web.BaseRequest) -> web.Response:
        if request.method == "OPTIONS":
            return preflight("GET, HEAD, POST", "Accept, Content-Type, If-None-Match")
        require_method(request, "GET", "HEAD", "POST")
        response = await answer_resolver(
            self._dispatcher,
            Caller(request.remote or ""),
            ResolverRequest(
                target=request.rel_url.raw_path[len(PATH_PREFIX) :],
                query=request.rel_url.raw_query_string,
                has_fragment="#" in request.raw_path,
                body=await self._read_options(request) if request.method == "POST" else None,
                accept=_accept_of(request),
                if_none_match=", ".join(request.headers.getall("If-None-Match", ())),
            ),
        )
        headers = _headers_of(response)
        if request.method == "POST":  # a cache knows the URL, not the options in the body
            headers["Cache-Control"] = NEVER
        if not response.body:
            return web.Response(status=response.status, headers=headers)
        return self._respond(request, response.status, response.body, headers)

    async def _read_options(self, request: web.BaseRequest) -> bytes | RpcError:
        """An error is for the resolver to judge, in its turn."""
        try:
            return await self._read_body(request, OPTIONS_BYTES_MAX)
        except RpcError as error:
            return error

    async def _serve_operations(self, request: web.BaseRequest) -> web.Response:
        """`did_export` as JSON lines."""
        if request.method == "OPTIONS":
            return preflight("GET, HEAD", "Accept")
        require_method(request, "GET", "HEAD")
        query = request.query
        if len(set(query)) != len(query):
            raise RpcError(RpcCode.INVALID_PARAMS, "a parameter is given twice")
        params: dict[str, object] = dict(query)
        limit = query.get("limit", "")
        if limit.isascii() and limit.isdigit() and len(limit) < 10:
            params["limit"] = int(limit)
        page = await self._export(params, request)
        lines = "".join([encode_json(line) + "\n" for line in page["operations"]])
        headers = {**CORS, "Cache-Control": "no-store", "Content-Type": LINES_TYPE}
        return self._respond(request, 200, lines.encode("ascii"), headers)

    async def _export(
        self, params: dict[str, object], request: web.BaseRequest
    ) -> Mapping[str, Any]:
        """The next page that has lines: here a page without any says that there are no more."""
        while True:
            page = await self._dispatcher.invoke("did_export", params, Caller(request.remote or ""))
            assert isinstance(page, Mapping)
            if page["operations"] or page["nextCursor"] is None:
                return page
            params["after"] = page["nextCursor"]

    async def _serve_registrar(self, request: web.BaseRequest) -> web.Response:
        """A page may register only from an allowed origin, as it may call JSON-RPC."""
        headers = self._check_origin(request)
        if request.method == "OPTIONS":
            return web.Response(
                status=204,
                headers={
                    **headers,
                    "Access-Control-Allow-Methods": "POST",
                    "Access-Control-Allow-Headers": "Content-Type",
                },
            )
        require_method(request, "POST")
        data = await self._read_body(request, BODY_BYTES_MAX)
        kind = KIND_BY_PATH[request.path]
        status, body = await self._registrar.answer(kind, data, Caller(request.remote or ""))
        headers = {**headers, "Content-Type": "application/json", "Cache-Control": "no-store"}
        return self._respond(request, status, encode_json(body).encode("ascii"), headers)


def require_method(request: web.BaseRequest, *allowed: str) -> None:
    """Raises WrongMethodError."""
    if request.method not in allowed:
        raise WrongMethodError(allowed, request.method)


def preflight(methods: str, headers: str) -> web.Response:
    """The answer to OPTIONS, a browser's or anybody's."""
    return web.Response(
        status=204,
        headers={
            **CORS,
            "Allow": methods,
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": headers,
            "Access-Control-Max-Age": "600",
        },
    )


def _is_resolver(request: web.BaseRequest) -> bool:
    """By the path as it was sent: what is behind the prefix is decoded once, and not here."""
    return request.rel_url.raw_path.startswith(PATH_PREFIX)


def _accept_of(request: web.BaseRequest) -> str:
    return ", ".join(request.headers.getall("Accept", ()))


def _headers_of(response: ResolverResponse) -> dict[str, str]:
    headers = {**CORS, **response.headers, "Vary": "Accept"}
    if response.content_type:
        headers["Content-Type"] = response.content_type
    return headers
