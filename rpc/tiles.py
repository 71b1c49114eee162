"""The audit log by GET, as other people's log tools read it (C2SP tlog-tiles):

    /checkpoint                     the newest signed checkpoint, a note           text/plain
    /tile/<L>/<N>[.p/<W>]           hashes of level L: 256, or the first W         octet-stream
    /tile/entries/<N>[.p/<W>]       entries 256 N and on, each u16 length | bytes  octet-stream

`<N>` is written in groups of three digits, all but the last after an `x`: 1234067 is
`x001/x234/067`. Levels are 0..63, widths 1..255, without leading zeros; every number has one
spelling, and any other is 400. What the log does not have (yet) is 404.

A full tile never changes and a partial one is a prefix of it, so both may be kept for ever; a
checkpoint is good for a second. Anybody's page may read all of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from rpc.dispatch import Caller, Dispatcher
from rpc.errors import RpcCode, RpcError, not_found
from rpc.rest import CORS, preflight, require_method

CHECKPOINT_PATH: Final = "/checkpoint"
TILE_PREFIX: Final = "/tile/"
ENTRIES: Final = "entries"
LEVEL_MAX = 63
FULL_WIDTH = 256
TILE_COST = 1
ENTRIES_COST = 5
"""A bundle is read row by row."""
FOREVER = "public, max-age=31536000, immutable"
BRIEFLY = "public, max-age=1"
TILE_TYPE = "application/octet-stream"
NOTE_TYPE = "text/plain; charset=utf-8"

_PATH = re.compile(
    r"/tile/(?P<level>entries|0|[1-9][0-9]?)/"
    r"(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class LogSource(Protocol):
    """The log as a node has it. Calls return at once."""

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint. Raises RpcError NOT_READY."""

    def tile(self, level: int, number: int, width: int) -> bytes | None:
        """The first `width` hashes of a tile; None unless the log has so many."""

    def entry_bundle(self, number: int, width: int) -> bytes | None:
        """The first `width` entries of a bundle, with their lengths; None unless all are here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePath:
    """`level` None: a bundle of entries."""

    level: int | None
    number: int
    width: int

    @classmethod
    def parse(cls, path: str) -> TilePath:
        """Raises RpcError INVALID_PARAMS for what is no path of a tile."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise _malformed(path)
        level = None if found["level"] == ENTRIES else int(found["level"])
        width = FULL_WIDTH if found["width"] is None else int(found["width"])
        groups = found["number"].replace("x", "").split("/")
        is_padded = len(groups) > 1 and groups[0] == "000"
        is_partial = found["width"] is not None
        if is_padded or (level or 0) > LEVEL_MAX or (is_partial and width >= FULL_WIDTH):
            raise _malformed(path)
        return cls(level=level, number=int("".join(groups)), width=width)


class TileRoutes:
    """Serves /checkpoint and what is under /tile/."""

    def __init__(
        self,
        source: LogSource,
        dispatcher: Dispatcher,
        respond: Callable[[web.BaseRequest, int, bytes, dict[str, str]], web.Response],
    ) -> None:
        self._source = source
        self._dispatcher = dispatcher
        self._respond = respond

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Raises RpcError."""
        if request.method == "OPTIONS":
            return preflight("GET, HEAD", "Accept")
        require_method(request, "GET", "HEAD")
        caller = Caller(request.remote or "")
        if request.path == CHECKPOINT_PATH:
            note = await self._dispatcher.read("checkpoint", 1, caller, self._source.checkpoint)
            return self._answer(request, note, NOTE_TYPE, BRIEFLY)
        path = TilePath.parse(request.rel_url.raw_path)
        data = await self._read(path, caller)
        if data is None:
            raise not_found("tile", got=request.path[:80])
        return self._answer(request, data, TILE_TYPE, FOREVER)

    async def _read(self, path: TilePath, caller: Caller) -> bytes | None:
        source, level = self._source, path.level
        if level is None:
            return await self._dispatcher.read(
                "entries",
                ENTRIES_COST,
                caller,
                lambda: source.entry_bundle(path.number, path.width),
            )
        return await self._dispatcher.read(
            "tile", TILE_COST, caller, lambda: source.tile(level, path.number, path.width)
        )

    def _answer(
        self, request: web.BaseRequest, body: bytes, content_type: str, cache: str
    ) -> web.Response:
        headers = {**CORS, "Content-Type": content_type, "Cache-Control": cache}
        return self._respond(request, 200, body, headers)


def _malformed(path: str) -> RpcError:
    return RpcError(
        RpcCode.INVALID_PARAMS,
        "no path of a tile",
        expected="/tile/<0..63 or entries>/<N as x001/x234/067>[.p/<1..255>]",
        got=path[:80],
    )
