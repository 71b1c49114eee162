"""A proxy in front of a node's resolver that may change what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

Lie = Callable[[bytes], bytes]
"""The body that the node answered -> the body that the caller gets."""


def tell_truth(body: bytes) -> bytes:
    return body


class Liar:
    """Set `lie` to what the next callers are to hear."""

    def __init__(self, node_url: str, http: aiohttp.ClientSession) -> None:
        self.lie: Lie = tell_truth
        self.url = ""
        self._node_url = node_url
        self._http = http

    async def serve(self, request: web.Request) -> web.Response:
        url = URL(self._node_url + request.raw_path, encoded=True)
        async with self._http.get(url, headers={"Accept": "*/*"}) as answer:
            body = self.lie(await answer.read())
            return web.Response(
                status=answer.status, body=body, content_type="application/did-resolution"
            )


@asynccontextmanager
async def running_liar(node_url: str) -> AsyncIterator[Liar]:
    """On a free port of this machine."""
    async with aiohttp.ClientSession() as http:
        liar = Liar(node_url, http)
        app = web.Application()
        app.router.add_get("/{path:.*}", liar.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            liar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield liar
        finally:
            await runner.cleanup()
