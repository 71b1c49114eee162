"""A real network of four: the demo's steps, one validator lost and back, no quorum and back."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node import config as cfg
from node.daemon import STORE_FOLDER
from node.guard import GuardFile
from node.keys import load_key
from rpc.client import RpcClient
from tests.e2e.network import Load, running_devnet
from tests.e2e.observer import Observer

pytestmark = pytest.mark.e2e


def test_the_demo_holds_each_step_and_ends_cleanly(tmp_path: Path) -> None:
    document = tmp_path / "paper.txt"
    document.write_bytes(b"to be anchored\n" * 100_000)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "node", "demo", "--exit", "--json"),
            *("--file", str(document), "--folder", str(tmp_path / "net")),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["did"].startswith("did:zynk:z")
    assert Path(report["receipt"]).stat().st_size == report["receipt_bytes"]
    for node in report["nodes"]:
        assert not Path(node["home"], cfg.READY_FILE).exists()


def test_a_killed_validator_catches_up_and_votes_again() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            await asyncio.sleep(2)
            devnet.kill(3)
            height = int((await devnet.status(0))["height"])
            await asyncio.sleep(5)
            there = int((await devnet.status(0))["height"])
            assert there > height + 5, "three of four go on"
            await devnet.start([3])
            await devnet.wait_height(there, [3])
            for _ in range(100):
                status = await devnet.status(3)
                if status["validator"]["voting"]:
                    break
                await asyncio.sleep(0.1)
            assert status["validator"]["voting"], status
            await load.stop()
            assert load.failures == []
            assert len(load.final) > 100

    asyncio.run(run())


def test_without_quorum_nothing_is_final_and_reads_go_on() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            for index in (2, 3):
                assert await devnet.stop_node(index) == 0
            load = Load(devnet, nodes=[0, 1])
            height = int((await devnet.status(0))["height"])
            async with RpcClient(devnet.nodes[0].url) as client:
                starting = asyncio.create_task(load.start())
                await asyncio.sleep(7)
                status = await client.call("node_status")
                assert status["height"] <= height + 1
                assert not status["ready"]
                assert "no finality" in " ".join(status["reasons"])
                code, _ = await client.get("/ready")
                assert code == 503
                code, _ = await client.get("/health")
                assert code == 200
                header = await client.call("chain_head")
                assert header["height"] == status["height"]
            await devnet.start([2, 3])
            began = time.monotonic()
            await devnet.wait_height(status["height"] + 1)
            assert time.monotonic() - began < 5
            await starting
            await load.stop()

    asyncio.run(run())


def test_a_node_that_lost_its_store_resyncs_and_signs_nothing_at_or_below_its_guard() -> None:
    async def run() -> None:
        async with (
            running_devnet() as devnet,
            Observer(devnet, devnet.folder / "observer") as observer,
        ):
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            await asyncio.sleep(2)
            home = devnet.nodes[3].home
            key = load_key(home / cfg.VALIDATOR_KEY_FILE).public_key
            devnet.kill(3)
            await asyncio.sleep(0.5)  # what it sent before it died arrives
            shutil.rmtree(home / cfg.DATA_FOLDER / STORE_FOLDER)
            with GuardFile.open(home / cfg.GUARD_FILE, devnet.chain_id, key) as guard:
                highest = guard.highest()
            before = set(observer.statements[key])
            assert before
            assert max(before) <= highest, "a vote was sent that the guard does not hold"
            target = int((await devnet.status(0))["height"])
            await devnet.start([3])
            await devnet.wait_height(target + 10, [3])
            for _ in range(100):
                signed = set(observer.statements[key]) - before
                if signed:
                    break
                await asyncio.sleep(0.1)
            assert signed, "it votes again, above its guard"
            assert min(signed) > highest
            assert observer.conflicts == []
            await load.stop()
            assert "older than the sign guard" in (home / "node.log").read_text()

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_node_without_a_whole_guard_follows_but_does_not_vote(damage: str) -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            await devnet.stop_node(3)
            guard = devnet.nodes[3].home / cfg.GUARD_FILE
            if damage == "missing":
                guard.unlink()
            else:
                guard.write_bytes(guard.read_bytes()[:-3])
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            await devnet.start([3])
            await devnet.wait_height(int((await devnet.status(0))["height"]), [3])
            key = bytes.fromhex((await devnet.status(3))["validator"]["public_key"])
            async with Observer(devnet, devnet.folder / "observer") as observer:
                await asyncio.sleep(3)
                assert observer.count > 20, "the others vote"
                assert not observer.statements[key]
            status = await devnet.status(3)
            assert not status["validator"]["voting"]
            assert "guard" in status["validator"]["reason"]
            await load.stop()

    asyncio.run(run())


def test_a_frozen_validator_does_not_stop_the_others_and_comes_back() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            devnet.signal(3, signal.SIGSTOP)
            height = int((await devnet.status(0))["height"])
            await asyncio.sleep(4)
            there = int((await devnet.status(0))["height"])
            assert there > height + 5
            devnet.signal(3, signal.SIGCONT)
            await devnet.wait_height(there, [3])
            await load.stop()
            assert load.failures == []

    asyncio.run(run())


def test_the_p2p_process_killed_under_load_comes_back() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            pid = int((await devnet.status(3))["p2p"]["pid"])
            subprocess.run(["kill", "-9", str(pid)], check=True)
            await asyncio.sleep(3)
            status = await devnet.status(3)
            assert status["p2p"]["pid"] != pid
            assert status["peers"] == 3
            await devnet.wait_height(int((await devnet.status(0))["height"]), [3])
            await load.stop()
            assert load.failures == []

    asyncio.run(run())
