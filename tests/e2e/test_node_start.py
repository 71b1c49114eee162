"""How a node and the demo start when something is in the way, and how Ctrl-C ends them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ledger.errors import UsageError
from ledger.store import LevelStore
from node import config as cfg
from node.daemon import AUDIT_FOLDER, STORE_FOLDER, Node
from node.devnet import RPC_PORT_FIRST, Devnet
from node.guard import GuardFile
from node.keys import load_key

pytestmark = pytest.mark.e2e
NODE = (sys.executable, "-m", "node")


@contextmanager
def holding(port: int) -> Iterator[int]:
    """Somebody else listens on a port (if nobody does already)."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(1)
        except OSError:
            assert port == RPC_PORT_FIRST, "a port that the test picked was free"
        yield port


def test_a_node_whose_rpc_port_is_taken_stops_what_it_started(tmp_path: Path) -> None:
    devnet = Devnet.create(tmp_path / "net", validators=1)
    (node,) = devnet.nodes
    config = cfg.load_config(node.home)

    async def start() -> None:
        children = set(psutil.Process().children())
        with holding(node.rpc_port), pytest.raises(UsageError, match=str(node.rpc_port)) as caught:
            await Node(config).start()
        assert "rpc.port" in caught.value.expected
        assert set(psutil.Process().children()) <= children, "the p2p process is gone"

    asyncio.run(start())
    for folder in (STORE_FOLDER, AUDIT_FOLDER):
        LevelStore.open(node.home / cfg.DATA_FOLDER / folder).close()
    key = load_key(node.home / cfg.VALIDATOR_KEY_FILE).public_key
    GuardFile.open(node.home / cfg.GUARD_FILE, devnet.chain_id, key).close()
    assert not (node.home / cfg.READY_FILE).exists()


def test_a_taken_rpc_port_is_one_clear_line_and_not_a_traceback(tmp_path: Path) -> None:
    devnet = Devnet.create(tmp_path / "net", validators=1)
    (node,) = devnet.nodes
    with holding(node.rpc_port) as port:
        done = subprocess.run(
            [*NODE, "start", "--home", str(node.home)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"zynk: the RPC address 127.0.0.1:{port} can not be used")
    assert "rpc.port" in last


def test_start_with_json_says_where_it_listens_and_logs_json_lines(tmp_path: Path) -> None:
    devnet = Devnet.create(tmp_path / "net", validators=1)
    (node,) = devnet.nodes
    with subprocess.Popen(
        [*NODE, "start", "--home", str(node.home), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready == json.loads((node.home / cfg.READY_FILE).read_text())
        assert (ready["pid"], ready["rpc"]) == (process.pid, node.url)
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest == ""
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert "node is up" in events
    assert events[-1] == "node stopped"
    assert not psutil.pid_exists(ready["p2p_pid"])


def test_ports_that_were_taken_after_they_were_picked_are_replaced(tmp_path: Path) -> None:
    async def run() -> None:
        devnet = Devnet.create(tmp_path / "net")
        p2p_port = cfg.load_config(devnet.nodes[1].home).p2p.port
        with holding(devnet.nodes[0].rpc_port) as rpc_port, holding(p2p_port):
            try:
                await devnet.start()
                await devnet.wait_height(2)
            finally:
                codes = await devnet.stop()
        assert codes == [0] * 4
        assert devnet.nodes[0].rpc_port != rpc_port
        assert cfg.load_config(devnet.nodes[1].home).p2p.port != p2p_port
        assert not any(f"/tcp/{p2p_port}/" in peer for peer in peers(devnet))

    asyncio.run(run())


def test_a_node_that_ends_for_another_reason_is_not_started_again(tmp_path: Path) -> None:
    async def run() -> None:
        devnet = Devnet.create(tmp_path / "net", validators=1)
        (devnet.nodes[0].home / cfg.GENESIS_FILE).write_text("{")
        with pytest.raises(Exception, match="did not start"):
            await devnet.start()
        assert devnet.nodes[0].log_tail().count("zynk: ") == 1

    asyncio.run(run())


def test_the_demo_anchors_FILE_takes_free_ports_and_ctrl_c_ends_every_process(
    tmp_path: Path,
) -> None:
    document = tmp_path / "paper.txt"
    document.write_bytes(b"to be anchored\n")
    with (
        holding(RPC_PORT_FIRST),
        subprocess.Popen(
            [*NODE, "demo", "--json", "--folder", str(tmp_path / "net")],
            env={**os.environ, "FILE": str(document)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        family = psutil.Process(process.pid).children(recursive=True)
        homes = [Path(node["home"]) for node in report["nodes"]]
        ready = [json.loads((home / cfg.READY_FILE).read_text()) for home in homes]
        assert {info["pid"] for info in ready} | {info["p2p_pid"] for info in ready} <= {
            child.pid for child in family
        }
        assert Path(report["receipt"]).name == "paper.txt.zreceipt"
        assert f"http://127.0.0.1:{RPC_PORT_FIRST}" not in {info["rpc"] for info in ready}
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest, remarks = process.communicate(timeout=60)
    assert process.returncode == 0, remarks
    assert rest == ""
    assert "Traceback" not in remarks
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    for home in homes:
        log = (home / "node.log").read_text()
        assert "Traceback" not in log
        assert "node stopped" in log


def peers(devnet: Devnet) -> list[str]:
    """Every peer's address in every configuration."""
    return [peer for node in devnet.nodes for peer in cfg.load_config(node.home).p2p.peers]
