"""js-libp2p speaks with our p2p process: Noise, Yamux, identify, ping, gossipsub, direct stream.

js-libp2p and `js/direct.mjs`, which is written from docs/protocol.md, share no code with us. Who
dials and who opens the direct stream are both crossed over, since each side has its own code.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from p2p.config import CHANNEL_SYNC_RESPONSE, CHANNEL_TX
from p2p.frame import Hello, Pong, decode_control
from p2p.identity import split_multiaddr
from tests.e2e.p2p_network import CHAIN_ID, TOPIC, Node, network, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

HERE = Path(__file__).parent / "js"
MANIFESTS = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 240
STEP_TIMEOUT_S = 20
NODE_MAJOR_MIN = 20
DIRECT_PROTOCOL = "/zynk/direct/1"  # not imported: what others speak must not change with us
GOSSIP_PROTOCOL = "/meshsub/1.1.0"
NODE_HEIGHT = 11
JS_HELLO_HEIGHT = 7
JS_PONG_HEIGHT = 200
JS_PING_NONCE = 99
GOSSIP_COUNT = 5
BIG = bytes(number % 251 for number in range(1 << 20))  # four times a stream's first window

# npm's codes for "no registry to be had"; any other failure is a fault of our manifest.
NO_REGISTRY = re.compile(
    r"npm error code (EAI_AGAIN|ENOTFOUND|ECONN\w+|ENETUNREACH|EHOSTUNREACH"
    r"|ETIMEDOUT|ERR_SOCKET_TIMEOUT|ENOTCACHED|E40[137]|E5\d\d)\b"
)


@pytest.fixture(scope="module")
def js_folder() -> Path:
    """A folder outside the checkout with the locked packages, made once for a manifest."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not on this machine")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"js-libp2p needs Node.js {NODE_MAJOR_MIN}, here is {version.stdout.strip()}")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in MANIFESTS))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zynk-test-js"
    folder = cache / digest.hexdigest()[:16]
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as scratch:
            _install(Path(scratch))
            try:
                (Path(scratch) / "ready").rename(folder)
            except OSError:  # another run was quicker
                assert folder.exists()
    return folder


def _install(scratch: Path) -> None:
    """Put the packages in `scratch`/ready, or skip if there is no registry."""
    ready = scratch / "ready"
    ready.mkdir()
    for name in MANIFESTS:
        shutil.copy(HERE / name, ready)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=ready, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install js-libp2p in {INSTALL_TIMEOUT_S} s")
    if done.returncode and NO_REGISTRY.search(done.stderr):
        pytest.skip(f"npm can not reach its registry: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-2000:]


class JsPeer:
    """The script's process; `step` gives its next line, which must be of that step."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def step(self, name: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), STEP_TIMEOUT_S)
        if not line:
            assert self._process.stderr is not None
            error = await asyncio.wait_for(self._process.stderr.read(), STEP_TIMEOUT_S)
            pytest.fail(f"js ended before {name!r}: {error.decode()[-2000:]}")
        value: dict[str, Any] = json.loads(line)
        assert value["step"] == name
        return value

    async def leave(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        value = await self.step("stopped")
        assert await asyncio.wait_for(self._process.wait(), STEP_TIMEOUT_S) == 0
        return value


@asynccontextmanager
async def js_peer(folder: Path, **arguments: Any) -> AsyncIterator[JsPeer]:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Packages are found beside the script, and each run has the scripts of its own checkout.
        for script in HERE.glob("*.mjs"):
            shutil.copy(script, scratch)
        (Path(scratch) / "node_modules").symlink_to(folder / "node_modules")
        process = await asyncio.create_subprocess_exec(
            *("node", "interop.mjs", json.dumps(arguments)),
            cwd=scratch,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield JsPeer(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _meet(node: Node, js: JsPeer, *, js_dials: bool, js_opens: bool) -> str:
    """Connect and shake hands; return the js peer's id."""
    ready = await js.step("ready")
    peer: str = ready["peer"]
    assert (peer < node.peer) == js_opens
    if not js_dials:
        node.link.add_peer(next(a for a in ready["addresses"] if "/127.0.0.1/" in a))
    connected = await js.step("connected")
    assert connected == {
        "step": "connected",
        "peer": node.peer,
        "direction": "outbound" if js_dials else "inbound",
        "encryption": "/noise",
        "multiplexer": "/yamux/1.0.0",
    }
    hello = await js.step("hello")
    assert hello["direction"] == ("outbound" if js_opens else "inbound")
    assert decode_control(bytes.fromhex(hello["hex"])) == Hello(
        chain_id=CHAIN_ID,
        genesis_hash=bytes(32),
        protocol_version=1,
        height=NODE_HEIGHT,
        listen_port=int(split_multiaddr(node.link.listen_addr)[1].rpartition("/")[2]),
    )
    await until(lambda: node.up)
    assert node.up == {peer: JS_HELLO_HEIGHT}
    assert [info.inbound for info in node.link.peers()] == [js_dials]
    return peer


async def _identify_and_ping(node: Node, js: JsPeer, peer: str) -> None:
    pinged = await js.step("pinged")
    assert len(pinged["rttsMs"]) == 3
    assert all(0 <= rtt_ms < 5000 for rtt_ms in pinged["rttsMs"])
    identified = await js.step("identified")
    assert identified["peer"] == node.peer
    wanted = {DIRECT_PROTOCOL, GOSSIP_PROTOCOL, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"}
    assert wanted <= set(identified["protocols"])
    listen_address = node.link.listen_addr.partition("/p2p/")[0]
    assert any(a.startswith(listen_address) for a in identified["listenAddrs"])

    alive = await js.step("alive")  # the direct stream's own ping, which also tells heights
    assert decode_control(bytes.fromhex(alive["hex"])) == Pong(
        nonce=JS_PING_NONCE, height=NODE_HEIGHT
    )
    await until(lambda: [info.height for info in node.link.peers()] == [JS_PONG_HEIGHT])
    (info,) = node.link.peers()
    assert info.peer == peer
    assert info.rtt_ms > 0


async def _exchange_frames(node: Node, js: JsPeer, peer: str) -> None:
    assert node.link.send(peer, CHANNEL_SYNC_RESPONSE, BIG)
    assert (await js.step("framed"))["bytes"] == len(BIG)
    await until(lambda: len(node.frames) == 2)
    assert node.frames == [(peer, CHANNEL_TX, b"from js"), (peer, CHANNEL_TX, BIG)]


async def _gossip(node: Node, js: JsPeer, peer: str) -> None:
    """From js first: once that is here, so is its place in our mesh (one stream, in order)."""
    streams = (await js.step("published"))["streams"]
    assert {DIRECT_PROTOCOL, GOSSIP_PROTOCOL} <= set(streams)
    assert not {s for s in streams if s.startswith("/meshsub/")} - {GOSSIP_PROTOCOL}
    expected = [(peer, TOPIC, b"from js %d" % number) for number in range(GOSSIP_COUNT)]
    await until(lambda: len(node.gossip) == GOSSIP_COUNT)
    assert sorted(node.gossip) == expected

    for number in range(GOSSIP_COUNT):
        node.link.publish(TOPIC, b"from python %d" % number)
    heard = (await js.step("heard"))["heard"]
    assert sorted(heard, key=lambda message: str(message["text"])) == [
        # "signed": js has checked the signature of the node's key on it
        {"topic": TOPIC, "text": f"from python {number}", "from": node.peer, "type": "signed"}
        for number in range(GOSSIP_COUNT)
    ]


@pytest.mark.parametrize("js_opens", [True, False], ids=["js-opens", "node-opens"])
@pytest.mark.parametrize("js_dials", [True, False], ids=["js-dials", "node-dials"])
def test_a_js_libp2p_peer_identifies_pings_gossips_and_speaks_on_the_direct_stream(
    js_folder: Path, js_dials: bool, js_opens: bool
) -> None:
    async def scenario() -> None:
        async with network(1, ping_interval_s=0.5) as (node,):
            node.link.set_height(NODE_HEIGHT)
            address = node.link.listen_addr if js_dials else None
            async with js_peer(
                js_folder,
                address=address,
                nodePeer=node.peer,
                opens=js_opens,
                chainId=CHAIN_ID,
                topic=TOPIC,
            ) as js:
                peer = await _meet(node, js, js_dials=js_dials, js_opens=js_opens)
                await _identify_and_ping(node, js, peer)
                await _exchange_frames(node, js, peer)
                await _gossip(node, js, peer)
                assert node.downs == []
                stopped = await js.leave()
                assert stopped["heardCount"] == GOSSIP_COUNT
                assert stopped["messageCount"] == 1
                await until(lambda: node.downs == [peer])

            assert len(node.gossip) == GOSSIP_COUNT, "each message once"
            assert len(node.frames) == 2
            assert node.restarts == 0
            await until(lambda: node.link.stats().get("peers_lost", 0) == 1)  # the newest report
            stats = node.link.stats()
            assert stats["gossip_in"] == GOSSIP_COUNT
            faults = ("peers_at_fault", "gossip_faults", "handler_errors", "drops_gossip_invalid")
            assert {name: stats.get(name, 0) for name in faults} == dict.fromkeys(faults, 0)

    asyncio.run(scenario())
