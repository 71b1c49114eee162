"""`zynk audit monitor` on a real network, in front of which a node shows two logs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from audit.checkpoint import Checkpoint, compute_origin, log_note_key, sign_note
from bench.stream import make_stream
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from rpc.client import RpcClient
from tests.e2e.network import running_devnet, until, zynk
from tests.e2e.test_audit_log import Client, leaves_in_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.e2e


class TwoFaced:
    """A proxy with node 0's own log key: whoever is the victim gets another log's checkpoint."""

    def __init__(self, devnet: Devnet) -> None:
        self.url = ""
        self.shown = ""
        self.lies = False
        self._devnet = devnet
        self._key = load_key(devnet.nodes[0].home / cfg.LOG_KEY_FILE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TwoFaced]:
        app = web.Application(client_max_size=2**23)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                self._devnet.nodes[0].url + request.raw_path,
                data=await request.read(),
                headers={"Content-Type": request.headers.get("Content-Type", "")},
            ) as response,
        ):
            body = await response.read()
        if self.lies and request.path == "/checkpoint":
            body = self._lie(body.decode()).encode()
            self.shown = body.decode()
        return web.Response(status=response.status, body=body, content_type=response.content_type)

    def _lie(self, note: str) -> str:
        true = Checkpoint.decode(note.partition("\n\n")[0] + "\n")
        false = Checkpoint(
            origin=true.origin,
            tree_size=true.tree_size,
            root_hash=hashlib.sha256(true.root_hash).digest(),
        )
        return sign_note(false.body(), compute_origin(self._devnet.chain_id), self._key)

    @property
    def vkey(self) -> str:
        return log_note_key(self._devnet.chain_id, self._key.public_key).vkey


def events(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_monitor_tells_what_is_logged_and_proves_who_shows_two_logs(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_devnet() as devnet, TwoFaced(devnet).running() as liar:
            stream = await make_stream(devnet, [0])
            client = Client(devnet, 0, stream, random.Random(1))
            await until("leaves are taken", lambda: client.groups >= 5)
            await client.stop()
            while await leaves_in_log(devnet, 1, stream) < len(client.taken):
                await asyncio.sleep(0.1)
            await signed(devnet, stream)
            genesis = str(devnet.nodes[0].home / cfg.GENESIS_FILE)
            owner = await owner_of(devnet, stream)

            async def monitor(*more: str, home: str = "m1") -> tuple[int, str, str]:
                urls = [liar.url, devnet.nodes[1].url]
                done = await asyncio.to_thread(
                    zynk, "audit", "monitor", *urls, "--trust", genesis,
                    "--home", str(tmp_path / home), "--once", "--json", *more,
                )  # fmt: skip
                return done.returncode, done.stdout, done.stderr

            code, out, err = await monitor("--did", owner)
            assert code == 0, out + err
            told = events(out)
            assert told[0]["event"] == "head"
            anchored = [event for event in told if event["event"] == "anchored"]
            assert {event["stream"] for event in anchored} == {stream}
            assert {event["owner"] for event in anchored} == {owner}
            assert sum(int(str(event["count"])) for event in anchored) >= len(client.taken)

            code, out, _ = await monitor("--did", "did:zynk:zNobody", home="m2")
            assert code == 0
            assert [event["event"] for event in events(out)] == ["head"]

            liar.lies = True
            code, out, _ = await monitor()
            assert code == 1
            [found] = [event for event in events(out) if event["event"] == "split-view"]
            assert found["key"] == liar.vkey
            assert found["source"] == liar.url
            check_proof(Path(str(found["proof"])), genesis, liar.vkey, devnet)

            # The other way: the monitor sees the true log, and somebody brings what they saw.
            liar.lies = False
            shown = tmp_path / "shown.txt"
            shown.write_text(liar.shown)
            code, out, err = await monitor("--checkpoint", str(shown), liar.vkey, home="m3")
            assert code == 1, out + err
            assert [event["event"] for event in events(out)][-1] == "split-view"

    asyncio.run(run())


async def signed(devnet: Devnet, stream: str) -> None:
    """Until the node has published a checkpoint of the whole log."""
    async with RpcClient(devnet.nodes[0].url) as client:
        while True:
            answer = await client.call("audit_checkpoint")
            published = answer["published"]
            if published is not None and published["tree_size"] == answer["tree_size"]:
                return
            await asyncio.sleep(0.2)


async def owner_of(devnet: Devnet, stream: str) -> str:
    async with RpcClient(devnet.nodes[0].url) as client:
        return str((await client.call("audit_stream", stream=stream))["owner"])


def check_proof(path: Path, genesis: str, vkey: str, devnet: Devnet) -> None:
    """Anybody can, with the genesis file alone; an altered one proves nothing."""
    done = zynk("audit", "split-view", str(path), "--trust", genesis, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["key"] == vkey
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    altered = path.with_suffix(".altered")
    altered.write_bytes(bytes(data))
    done = zynk("audit", "split-view", str(altered), "--trust", genesis)
    assert done.returncode == 1, done.stdout
