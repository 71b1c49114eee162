"""js-libp2p speaks with our p2p process: Noise, Yamux, identify, ping, GossipSub, direct stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from p2p.config import CHANNEL_SYNC_RESPONSE, CHANNEL_TX
from tests.e2e.p2p_network import CHAIN_ID, TOPIC, network

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).parent / "js"
INSTALL_TIMEOUT_S = 240
NODE_MAJOR_MIN = 20


def installed() -> Path:
    """A folder outside the checkout with the script and its packages, made once for a manifest."""
    manifest = (HERE / "package.json").read_bytes()
    digest = hashlib.sha256(manifest).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "zynk-test-js"
    folder = cache / digest
    if not (folder / "node_modules").exists():
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=cache))
        (scratch / "package.json").write_bytes(manifest)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(scratch)
            pytest.skip(f"npm can not install js-libp2p here: {done.stderr[-300:]}")
        scratch.replace(folder)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


def need_node() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not on this machine")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.strip().lstrip("v").split(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"js-libp2p needs Node.js {NODE_MAJOR_MIN}, here is {version.stdout.strip()}")


@pytest.mark.timeout(400)
def test_a_js_libp2p_peer_identifies_pings_gossips_and_speaks_on_the_direct_stream() -> None:
    need_node()
    folder = installed()

    async def run() -> list[dict[str, object]]:
        async with network(1) as (node,):
            process = await asyncio.create_subprocess_exec(
                *("node", "interop.mjs", node.link.listen_addr, CHAIN_ID, TOPIC),
                cwd=folder,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(60):
                    while not node.up and process.returncode is None:
                        await asyncio.sleep(0.05)
                    (peer,) = node.up
                    assert node.up[peer] == 7, "the height of its hello"
                    node.link.send(peer, CHANNEL_SYNC_RESPONSE, b"from python, direct")
                    while process.returncode is None:
                        node.link.publish(TOPIC, b"from python, gossip")
                        await asyncio.sleep(0.5)
            finally:
                if process.returncode is None:
                    process.kill()
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode()[-2000:]
            assert (peer, CHANNEL_TX, b"from js, direct") in node.frames
            assert any(data.startswith(b"from js, gossip") for _, _, data in node.gossip)
            return [json.loads(line) for line in out.decode().splitlines()]

    steps = {str(step["step"]): step for step in asyncio.run(run())}
    assert list(steps) == ["dialled", "hello", "pinged", "identified", "frame", "heard"]
    protocols = steps["identified"]["protocols"]
    assert isinstance(protocols, list)
    assert {"/meshsub/1.1.0", "/ipfs/ping/1.0.0", "/zynk/direct/1"} <= set(protocols)
    assert steps["frame"]["text"] == "from python, direct"
    heard = steps["heard"]["heard"]
    assert isinstance(heard, list)
    assert "from python, gossip" in heard
