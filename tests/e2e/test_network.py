"""A real network of four: the demo's steps, one validator lost and back, no quorum and back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node import config as cfg
from node.daemon import STORE_FOLDER
from node.devnet import Devnet
from node.keys import load_key
from rpc.client import RpcClient
from tests.e2e.network import (
    LIMIT_S,
    Load,
    height_of,
    public_key_of,
    running_devnet,
    until_height,
    until_higher,
    until_status,
    until_voting,
    zynk,
)
from tests.e2e.observer import Observer
from tests.e2e.signed import DiskReader

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
        timeout=LIMIT_S,
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
            await load.until_final(20)
            devnet.kill(3)
            await until_higher(devnet, 0, by=10)
            there = await height_of(devnet, 0)
            await devnet.start([3])
            await until_height(devnet, there, [3])
            await until_voting(devnet, 3)
            await load.until_final(100)
            await load.stop()
            assert load.failures == []

    asyncio.run(run())


def test_without_quorum_nothing_is_final_reads_go_on_and_the_chain_goes_on_with_it() -> None:
    """ "Goes on within 5 s" is measured from the moment when the restarted validators listen; what
    their start as processes takes before that (Python's imports, on shared cores) is printed."""

    async def run() -> None:
        async with running_devnet() as devnet:
            for index in (2, 3):
                assert await devnet.stop_node(index) == 0
            pids = [(await devnet.status(index))["p2p"]["pid"] for index in (0, 1)]
            load = Load(devnet, nodes=[0, 1])
            height = await height_of(devnet, 0)
            starting = asyncio.create_task(load.start())
            for index in (0, 1):
                status = await until_status(
                    devnet,
                    index,
                    "the node says that it is not ready",
                    lambda s: "no finality" in " ".join(s["reasons"]),
                )
                assert not status["ready"]
                assert status["height"] <= height + 1, "a block in work when they left may be final"
                await check_reads_without_quorum(devnet, index)
            stuck = [await height_of(devnet, index) for index in (0, 1)]
            began = time.monotonic()
            await devnet.start([2, 3])
            listening = time.monotonic()
            await until_height(devnet, max(stuck) + 1)
            went_on_s = time.monotonic() - listening
            print(
                f"2 processes started in {listening - began:.1f} s, final {went_on_s:.1f} s later"
            )
            assert went_on_s < 5
            await starting
            await load.until_final(10)
            await load.stop()
            assert load.failures == []
            for index, pid in enumerate(pids):
                status = await devnet.status(index)
                assert status["p2p"]["pid"] == pid, "no crash, of the p2p process either"
                assert status["failures"]["count"] == 0
                assert status["ready"], status["reasons"]

    asyncio.run(run())


async def check_reads_without_quorum(devnet: Devnet, index: int) -> None:
    """Live, not ready, and every kind of read is answered."""
    async with RpcClient(devnet.nodes[index].url) as client:
        code, body = await client.get("/ready")
        assert code == 503
        assert b"no finality" in body
        code, _ = await client.get("/health")
        assert code == 200
        code, body = await client.get("/metrics")
        assert code == 200
        assert b"consensus_height" in body
        head = await client.call("chain_head")
        assert head["height"] == await height_of(devnet, index)
        for method in ("chain_block", "chain_certificate"):
            assert (await client.call(method, block=head["height"]))["hash"] == head["hash"]
        assert (await client.call("chain_validators"))["total_power"]
        faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE).public_key.hex()
        assert int((await client.call("chain_account", account=faucet))["balance"]) > 0


def test_a_node_that_lost_its_store_resyncs_and_signs_nothing_at_or_below_its_guard() -> None:
    async def run() -> None:
        async with running_devnet() as devnet, Observer.of(devnet) as observer:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            home = devnet.nodes[3].home
            key = public_key_of(devnet, 3)
            await observer.until_heard([key], 10)
            devnet.kill(3)
            DiskReader(devnet, observer.book).read(3)
            shutil.rmtree(home / cfg.DATA_FOLDER / STORE_FOLDER)
            before = set(observer.book.of(key))
            highest = max((s.height, s.view) for s in before)
            target = await height_of(devnet, 0)
            await devnet.start([3])
            await until_height(devnet, target + 10, [3])
            await observer.until_heard([key], 5)
            signed = set(observer.book.of(key)) - before
            assert min((s.height, s.view) for s in signed) > highest, "above its guard"
            await load.stop()
            assert load.failures == []
            assert "older than the sign guard" in (home / "node.log").read_text()
            await devnet.stop_node(3)
            disk = DiskReader(devnet, observer.book)
            disk.read(3)
            assert disk.faults == []
            observer.check()

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
            damaged = None if damage == "missing" else guard.read_bytes()
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            await devnet.start([3])
            silent = public_key_of(devnet, 3)
            async with Observer.of(devnet) as observer:
                await observer.until_heard([public_key_of(devnet, i) for i in range(3)], 10)
                await until_higher(devnet, 0, by=5)
                await until_height(devnet, await height_of(devnet, 0), [3])
                assert observer.book.of(silent) == []
                observer.check()
            said = await asyncio.to_thread(zynk, "status", "--rpc", devnet.nodes[3].url)
            assert said.returncode == 0, said.stderr
            assert re.search(r"voting\s+no: .*sign guard", said.stdout), said.stdout
            assert (guard.read_bytes() if guard.exists() else None) == damaged, "left as it is"
            await load.stop()
            assert load.failures == []

    asyncio.run(run())


def test_a_frozen_validator_does_not_stop_the_others_and_comes_back() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            devnet.signal(3, signal.SIGSTOP)
            await until_higher(devnet, 0, by=10)
            there = await height_of(devnet, 0)
            devnet.signal(3, signal.SIGCONT)
            await until_height(devnet, there, [3])
            await until_voting(devnet, 3)
            await load.stop()
            assert load.failures == []

    asyncio.run(run())


def test_the_p2p_process_killed_under_load_comes_back() -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            load = Load(devnet, nodes=[0, 1, 2])
            await load.start()
            pid = int((await devnet.status(3))["p2p"]["pid"])
            os.kill(pid, signal.SIGKILL)
            await until_status(
                devnet,
                3,
                "another p2p process has all its peers",
                lambda s: s["p2p"]["pid"] not in (None, pid) and s["peers"] == 3,
            )
            await until_height(devnet, await height_of(devnet, 0) + 5, [3])
            await load.stop()
            assert load.failures == []

    asyncio.run(run())
