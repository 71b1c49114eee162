"""The page for people: its files, read once, served from memory.

`/` is rpc/page/index.html; /page/* are the files beside it; /verifier/* are verifier/js, the same
modules that integrators take. A node that has its genesis document at hand serves that too, as
/genesis.json, so that a person can see and pin what the page would otherwise take on first use.

Nothing is built or rewritten, names are fixed, so browsers ask again each time (`no-cache`) and get
304 as long as the ETag holds. The policy lets the page run its own scripts, talk to its own node
and nothing else; it is never framed and leaks no referrer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from aiohttp import web

GENESIS_PATH: Final = "/genesis.json"
GENESIS_BYTES_MAX = 8 * 1024 * 1024
"""A larger genesis (hundred thousands of accounts) is got elsewhere."""

_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OPEN_TO_ALL = {"Access-Control-Allow-Origin": "*"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """A file's bytes with its media type; `etag` is of the bytes."""

    body: bytes
    media_type: str
    etag: str
    headers: Mapping[str, str]

    @classmethod
    def of(cls, name: str, body: bytes, headers: Mapping[str, str]) -> PageFile:
        return cls(
            body=body,
            media_type=_MEDIA_TYPES["." + name.rpartition(".")[2]],
            etag=hashlib.sha256(body).hexdigest()[:32],
            headers=headers,
        )

    def to_response(self, if_none_match: str) -> web.Response:
        """The file, or 304 if a tag of `if_none_match` (the header's text) is its own."""
        headers = {**_HEADERS, **self.headers, "ETag": f'"{self.etag}"'}
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        if f'"{self.etag}"' in tags or tags == ["*"]:
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=self.body, content_type=self.media_type, charset="utf-8", headers=headers
        )


def load_page_files(genesis: bytes | None = None) -> dict[str, PageFile]:
    """Everything the page needs, by path; with `genesis` (the document's bytes) if it is small."""
    found = {"/page/" + name: PageFile.of(name, body, {}) for name, body in _read("rpc", "page")}
    found["/"] = found.pop("/page/index.html")
    for name, body in _read("verifier", "js"):
        found["/verifier/" + name] = PageFile.of(name, body, _OPEN_TO_ALL)
    if genesis is not None and len(genesis) <= GENESIS_BYTES_MAX:
        found[GENESIS_PATH] = PageFile.of(GENESIS_PATH, genesis, _OPEN_TO_ALL)
    return found


def _read(package: str, folder: str) -> Iterator[tuple[str, bytes]]:
    for item in (files(package) / folder).iterdir():
        if "." + item.name.rpartition(".")[2] in _MEDIA_TYPES:
            yield item.name, item.read_bytes()
