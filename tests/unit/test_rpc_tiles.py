"""The log by GET: paths, bytes, headers, limits; a client that knows only C2SP tlog-tiles rebuilds
every root from what is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest

from audit.tiles import format_tile_path
from audit.tree_store import LogTree, commit_rows, entry_key
from ledger.chain_reader import ChainReader
from ledger.merkle import compute_leaf_hash, compute_node_hash, compute_root
from ledger.store import Batch, MemoryStore
from node.log_files import LogFiles
from rpc.config import RpcConfig
from rpc.errors import RpcError
from rpc.server import RpcServer
from rpc.tiles import BRIEFLY, FOREVER, TilePath
from tests.unit.test_rpc_fake import FakeNodeApi

SIZE = 256 * 256 + 700
NOTE = "origin\n1\nroot\n\n— name sig\n"


class Log:
    """A log of `size` entries and what serves it."""

    def __init__(self, size: int) -> None:
        self.store = MemoryStore()
        self.entries = [b"entry %d " % i + b"x" * (i % 9) for i in range(size)]
        batch = Batch()
        for key, value in commit_rows(self.store, 0, self.entries):
            batch.put(key, value)
        self.store.write(batch, sync=False)
        self.head = SimpleNamespace(audit_size=size)
        self.note: str | None = NOTE
        self.tree = LogTree(self.store)
        self.files = LogFiles(
            cast(ChainReader, SimpleNamespace(head=self.head)), self.tree, lambda: self.note
        )


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(SIZE)


@asynccontextmanager
async def serving(log: Log, config: RpcConfig | None = None) -> AsyncIterator[Client]:
    server = RpcServer(FakeNodeApi(), config or RpcConfig(port=0), audit_log=log.files)
    port = await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Client(session)
    finally:
        await server.stop()


class Client:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
        async with self.session.request(method, path) as response:
            return response.status, await response.read(), dict(response.headers)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tile/0/000", (0, 0, 256)),
        ("/tile/63/067.p/1", (63, 67, 1)),
        ("/tile/0/x001/x234/067", (0, 1_234_067, 256)),
        ("/tile/entries/x001/000.p/255", (None, 1000, 255)),
    ],
)
def test_tile_path_is_read_and_written_alike(
    path: str, expected: tuple[int | None, int, int]
) -> None:
    found = TilePath.parse(path)
    assert (found.level, found.number, found.width) == expected
    level = "entries" if found.level is None else found.level
    assert "/" + format_tile_path(level, found.number, found.width) == path


@pytest.mark.parametrize(
    "path",
    [
        "/tile/",
        "/tile/0",
        "/tile/00/000",
        "/tile/64/000",
        "/tile/-1/000",
        "/tile/data/000",
        "/tile/0/0",
        "/tile/0/1000",
        "/tile/0/x000/001",
        "/tile/0/001/000",
        "/tile/0/x001/x002",
        "/tile/0/000.p/0",
        "/tile/0/000.p/01",
        "/tile/0/000.p/256",
        "/tile/0/000.p/",
        "/tile/0/000/",
        "/tile/0/٠٠٠",
        "/tile/0/" + "x001/" * 7 + "001",
        "/tile/0/000\n",
    ],
)
def test_other_spelling_is_no_tile_path(path: str) -> None:
    with pytest.raises(RpcError, match="no path of a tile"):
        TilePath.parse(path)


@pytest.mark.slow
def test_client_of_the_specification_rebuilds_the_log(log: Log) -> None:
    """Partial and full tiles as tlog-tiles lays them out, for a size of each kind."""

    async def rebuild(client: Client, size: int) -> None:
        level, below = 0, list[bytes]()
        while size >> 8 * level:
            count = size >> 8 * level
            hashes: list[bytes] = []
            for number in range((count + 255) // 256):
                width = min(256, count - number * 256)
                status, tile, _ = await client.get("/" + format_tile_path(level, number, width))
                assert status == 200
                assert len(tile) == 32 * width
                hashes += [tile[i : i + 32] for i in range(0, len(tile), 32)]
            if level:
                full = [below[i : i + 256] for i in range(0, len(below) // 256 * 256, 256)]
                assert hashes == [_root_of_hashes(part) for part in full]
            else:
                await compare_entries(client, hashes)
            level, below = level + 1, hashes

    async def compare_entries(client: Client, hashes: list[bytes]) -> None:
        entries: list[bytes] = []
        for number in range((len(hashes) + 255) // 256):
            width = min(256, len(hashes) - number * 256)
            _, data, _ = await client.get("/" + format_tile_path("entries", number, width))
            while data:
                length = int.from_bytes(data[:2], "big")
                entries.append(data[2 : 2 + length])
                data = data[2 + length :]
        assert entries == log.entries[: len(hashes)]
        assert hashes == [compute_leaf_hash(entry) for entry in entries]

    async def main() -> None:
        async with serving(log, RpcConfig(port=0, calls_per_s_per_ip_max=0)) as client:
            for size in (1, 255, 256, 257, 600):
                await rebuild(client, size)
            status, tile, _ = await client.get("/tile/2/000.p/1")
            assert status == 200
            assert tile == compute_root([compute_leaf_hash(e) for e in log.entries[: 256 * 256]])

    asyncio.run(main())


def _root_of_hashes(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        hashes = [compute_node_hash(left, right) for left, right in pairs]
    return hashes[0]


def test_headers_tell_caches_what_changes(log: Log) -> None:
    async def main() -> None:
        async with serving(log) as client:
            for path in ("/tile/0/000", "/tile/0/258.p/188", "/tile/entries/000.p/7"):
                for method in ("GET", "HEAD"):
                    status, body, headers = await client.get(path, method)
                    assert status == 200
                    assert bool(body) == (method == "GET")
                    assert headers["Content-Type"] == "application/octet-stream"
                    assert headers["Cache-Control"] == FOREVER
                    assert headers["Access-Control-Allow-Origin"] == "*"
            status, body, headers = await client.get("/checkpoint")
            assert (status, body.decode()) == (200, NOTE)
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
            assert headers["Cache-Control"] == BRIEFLY

    asyncio.run(main())


def test_what_the_log_lacks_is_not_found_and_not_kept_by_caches(log: Log) -> None:
    async def main() -> None:
        async with serving(log) as client:
            for path in (
                "/tile/0/258",  # partial as yet
                "/tile/0/258.p/189",
                "/tile/0/259.p/1",
                "/tile/2/000.p/2",
                "/tile/3/000.p/1",
                "/tile/63/000",
                "/tile/0/x999/x999/x999/x999/x999/x999/999",
                "/tile/entries/258",
                "/tile/entries/258.p/189",
            ):
                status, _, headers = await client.get(path)
                assert (status, headers["Cache-Control"]) == (404, "no-store"), path
            for path in ("/tile/0/x000/001", "/tile/9x/000", "/tile/0/000.p/256", "/tile/"):
                status, _, headers = await client.get(path)
                assert (status, headers["Cache-Control"]) == (400, "no-store"), path
            status, _, headers = await client.get("/tile/0/000", "POST")
            assert (status, headers["Allow"]) == (405, "GET, HEAD")

    asyncio.run(main())


def test_entry_that_is_gone_makes_its_bundle_not_found() -> None:
    small = Log(300)
    batch = Batch()
    batch.delete(entry_key(7))
    small.store.write(batch, sync=False)
    assert small.files.entry_bundle(0, 7) is not None
    assert small.files.entry_bundle(0, 8) is None
    assert small.files.entry_bundle(1, 44) is not None


def test_no_checkpoint_yet_is_said_with_503() -> None:
    empty = Log(0)
    empty.note = None

    async def main() -> None:
        async with serving(empty) as client:
            status, body, headers = await client.get("/checkpoint")
            assert (status, headers["Cache-Control"]) == (503, "no-store")
            assert b"audit/no-checkpoint" in body

    asyncio.run(main())


def test_tiles_cost_their_caller_like_calls(log: Log) -> None:
    async def main() -> None:
        async with serving(log, RpcConfig(port=0, calls_per_s_per_ip_max=12)) as client:
            statuses = [(await client.get("/tile/entries/000"))[0] for _ in range(6)]
            assert statuses[:2] == [200, 200]
            assert 429 in statuses[2:]

    asyncio.run(main())


def test_server_without_a_log_has_no_tiles() -> None:
    async def main() -> None:
        server = RpcServer(FakeNodeApi(), RpcConfig(port=0))
        port = await server.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                status, _, _ = await Client(session).get("/checkpoint")
                assert status == 404
        finally:
            await server.stop()

    asyncio.run(main())
