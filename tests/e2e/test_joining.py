"""A node that joins empty: made with `zynk init`, it syncs from its peers and follows."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from did.verify import verify_resolution
from node import config as cfg
from node.demo import Demo
from node.devnet import Devnet, DevnetNode, pick_ports
from node.home import write_synced
from rpc.client import RpcClient
from tests.e2e.network import (
    Load,
    genesis_of,
    height_of,
    running_devnet,
    until_height,
    until_higher,
    until_status,
    zynk,
)

pytestmark = pytest.mark.e2e


def add_full_node(devnet: Devnet) -> int:
    """Make a home with the CLI, on free ports; returns the node's index."""
    home = devnet.folder / "joiner"
    peers = [info["p2p"] for node in devnet.nodes if (info := node.ready_info())]
    made = zynk(
        *("init", "--home", str(home), "--moniker", "joiner", "--json"),
        *("--genesis", str(devnet.nodes[0].home / cfg.GENESIS_FILE)),
        *(word for peer in peers for word in ("--peer", peer)),
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["chain_id"] == devnet.chain_id
    p2p_port, rpc_port = pick_ports(2, prefer_default=False)
    path = home / cfg.CONFIG_FILE
    text = path.read_text().replace("port = 26657", f"port = {rpc_port}")
    write_synced(path, text.replace("port = 26656", f"port = {p2p_port}").encode())
    devnet.nodes.append(DevnetNode(index=len(devnet.nodes), home=home, rpc_port=rpc_port))
    return len(devnet.nodes) - 1


def test_a_new_full_node_syncs_follows_and_serves_the_same_proofs(tmp_path: Path) -> None:
    document = tmp_path / "paper.txt"
    document.write_text("what the network knows before the node joins")

    async def run() -> None:
        async with running_devnet() as devnet:
            genesis = genesis_of(devnet)
            report = await Demo(devnet, lambda _: None).run(document)
            load = Load(devnet, nodes=[0, 1, 2, 3])
            await load.start()
            await until_higher(devnet, 0, by=40)
            joiner = add_full_node(devnet)
            target = await height_of(devnet, 0)
            await devnet.start([joiner])
            await until_height(devnet, target + 5, [joiner])
            status = await until_status(
                devnet, joiner, "the node has synced", lambda s: not s["sync"]["syncing"]
            )
            await load.stop()
            assert load.failures == []
            assert not status["validator"]["voting"]
            assert "not in the validator set" in status["validator"]["reason"]
            assert "behind the network" in (devnet.nodes[joiner].home / "node.log").read_text()
            async with RpcClient(devnet.nodes[joiner].url) as client:
                answer = await client.call("did_resolve", did=report.data["did"])
            verdict = verify_resolution(
                answer,
                did=report.data["did"],
                trusted=genesis.validators,
                chain_id=genesis.chain_id,
                max_age_ms=None,
                now_ms=None,
            )
            assert verdict.height >= target
            assert await devnet.stop_node(joiner) == 0
            checked = zynk("inspect", "--home", str(devnet.nodes[joiner].home), "--json")
            assert checked.returncode == 0, checked.stderr
            assert json.loads(checked.stdout)["height"] >= target
            shutil.rmtree(devnet.nodes[joiner].home / cfg.DATA_FOLDER)

    asyncio.run(run())


def test_a_second_node_on_the_same_home_is_refused_and_harms_nothing() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            second = await asyncio.to_thread(zynk, "start", "--home", str(devnet.nodes[0].home))
            assert second.returncode == 2, second.stderr
            assert "another process" in second.stderr or "in use" in second.stderr
            load = Load(devnet, nodes=[0])
            await load.start()
            height = await height_of(devnet, 0)
            await until_height(devnet, height + 2)
            await load.stop()
            assert load.failures == []

    asyncio.run(run())
