"""A real browser on the real page: Debian's Chromium, driven by Playwright.

Nothing is downloaded: `./dev test` installs Chromium with apt where it may; without it the tests
skip and say so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from aiohttp import ClientSession, web
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    async_playwright,
)

T = TypeVar("T")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOREIGN_HOST = "page.test"
"""A name that leads to this machine, but that browsers do not take for it: no secure context."""
WAIT_MS = 15_000

Change = Callable[[str, dict[str, str], str], str]
"""(path, query, the node's text) -> what the browser gets."""


def find_browser() -> str:
    """Path of a Chromium. Skips if there is none."""
    for name in NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no Chromium here: apt-get install chromium (./dev test does, when it may)")


class Chromium:
    """The browser, on a loop of its own that lives as long as the tests of a module."""

    def __init__(self) -> None:
        self._path = find_browser()
        self._runner = asyncio.Runner()
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def start(self) -> None:
        self._playwright = await async_playwright().start()
        arguments = [f"--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--no-sandbox")
        self._browser = await self._playwright.chromium.launch(
            executable_path=self._path, args=arguments
        )

    async def stop(self) -> None:
        if self._browser is not None:
            await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()

    def close(self) -> None:
        self._runner.close()

    async def visit(self, test: Callable[[Page], Awaitable[None]], **context: Any) -> None:
        """Run `test` on a new page with storage of its own. Fails on any script error, or request
        to another place than the page's own node."""
        assert self._browser is not None
        settings = {"viewport": {"width": 1200, "height": 900}, "locale": "en-GB", **context}
        made = await self._browser.new_context(**settings)
        try:
            made.set_default_timeout(WAIT_MS)
            page = await made.new_page()
            errors: list[str] = []

            def on_request(request: Request) -> None:
                home, asked = page.url.split("/")[2:3], request.url.split("/")[2:3]
                if not request.is_navigation_request() and asked != home:
                    errors.append(f"request to elsewhere: {request.url}")

            def on_console(message: ConsoleMessage) -> None:
                if "Content Security Policy" in message.text:
                    errors.append(message.text)

            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", on_console)
            page.on("request", on_request)
            await test(page)
            assert errors == []
        finally:
            await made.close()


class Proxy:
    """Between the browser and a node; `change` may rewrite what the node says."""

    def __init__(self, url: str, change: Change) -> None:
        self._upstream = url
        self.change = change
        self.url = ""

    async def __aenter__(self) -> Proxy:
        self._session = ClientSession()
        self._web = web.AppRunner(self._application())
        await self._web.setup()
        site = web.TCPSite(self._web, "127.0.0.1", 0)
        await site.start()
        host, port = self._web.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._web.cleanup()
        await self._session.close()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._forward)
        return application

    async def _forward(self, request: web.Request) -> web.Response:
        async with self._session.get(self._upstream + request.path_qs) as answer:
            text = await answer.text()
            shown = self.change(request.path, dict(request.query), text)
            return web.Response(text=shown, status=answer.status, content_type=answer.content_type)
