"""A local network of real node processes, one home folder each.

Used by `zynk devnet`, `zynk demo`, the benchmarks and the end-to-end tests, so that all of them
start nodes the same way: `python -m node start --home HOME`, stdout and stderr in HOME/node.log.
Processes are ended by process id; nothing is matched by name.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genesis.document import GenesisDocument
from ledger.errors import UsageError, ZynkError
from ledger.params import ChainParams
from node.config import (
    CONFIG_FILE,
    GENESIS_FILE,
    READY_FILE,
    ConsensusSettings,
    NodeConfig,
    P2PSettings,
    RpcSettings,
    load_config,
    render_config,
)
from node.home import create_network_homes, write_synced
from p2p.identity import peer_id_of_seed
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError, RpcError

P2P_PORT_FIRST = 26656
RPC_PORT_FIRST = 26657
PORT_STEP = 10
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
MOVES_MAX = 3
"""How often a node gets other ports because they were taken after they were picked."""
LOG_TAIL_BYTES = 4000


@dataclass(slots=True, kw_only=True)
class DevnetNode:
    """One validator: its home, addresses and, while it runs, its process."""

    index: int
    home: Path
    rpc_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rpc_port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self) -> str:
        """The end of the node's log."""
        try:
            data = (self.home / "node.log").read_bytes()
        except OSError:
            return ""
        return data[-LOG_TAIL_BYTES:].decode(errors="replace")

    def ready_info(self) -> dict[str, Any] | None:
        """What the node wrote once it listened; None until then."""
        try:
            info: dict[str, Any] = json.loads((self.home / READY_FILE).read_text())
        except (OSError, ValueError):
            return None
        return info if self.process is not None and info["pid"] == self.process.pid else None


class Devnet:
    """Start, stop, kill and watch a set of validators."""

    def __init__(self, folder: Path, nodes: list[DevnetNode], chain_id: str) -> None:
        self.folder = folder
        self.nodes = nodes
        self.chain_id = chain_id

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        validators: int = 4,
        chain_id: str = "zynk-devnet",
        prefer_default_ports: bool = False,
        consensus: ConsensusSettings | None = None,
        extra_accounts: Iterable[tuple[bytes, int]] = (),
        params: ChainParams | None = None,
        powers: tuple[int, ...] | None = None,
    ) -> Devnet:
        """Generate genesis, keys and configurations below `folder`, which must be empty or new.

        `extra_accounts` are (public key, balance in uzynk) funded at genesis.
        """
        if folder.exists() and any(folder.iterdir()):
            raise UsageError("folder is not empty", expected="a new folder", got=str(folder))
        ports = pick_ports(2 * validators, prefer_default=prefer_default_ports)

        def config(index: int, home: Path, p2p_seeds: list[bytes]) -> NodeConfig:
            peers = tuple(
                f"/ip4/127.0.0.1/tcp/{ports[2 * other]}/p2p/{peer_id_of_seed(seed)}"
                for other, seed in enumerate(p2p_seeds)
                if other != index
            )
            return NodeConfig(
                home=home,
                moniker=f"validator-{index}",
                rpc=RpcSettings(port=ports[2 * index + 1]),
                p2p=P2PSettings(port=ports[2 * index], peers=peers),
                consensus=consensus or ConsensusSettings(),
            )

        homes = create_network_homes(
            folder,
            validators=validators,
            chain_id=chain_id,
            entropy=os.urandom(32),
            genesis_time_ms=int(time.time() * 1000),
            config=config,
            extra_accounts=tuple(extra_accounts),
            params=params,
            powers=powers,
        )
        nodes = [
            DevnetNode(index=i, home=home, rpc_port=ports[2 * i + 1])
            for i, home in enumerate(homes)
        ]
        return cls(folder, nodes, chain_id)

    @classmethod
    def open(cls, folder: Path) -> Devnet:
        """The network that `create` made there, with the ports of its configurations. Raises
        UsageError if there is none."""
        homes = sorted(
            (path.parent for path in folder.glob(f"*/{CONFIG_FILE}")),
            key=lambda home: (len(home.name), home.name),
        )
        if not homes:
            raise UsageError("no network in that folder", got=str(folder))
        nodes = [
            DevnetNode(index=i, home=home, rpc_port=load_config(home).rpc.port)
            for i, home in enumerate(homes)
        ]
        genesis = GenesisDocument.parse((homes[0] / GENESIS_FILE).read_bytes())
        return cls(folder, nodes, genesis.to_state().chain_id)

    # --- processes ---

    def launch(self, index: int) -> None:
        """Start a node's process without waiting."""
        node = self.nodes[index]
        if node.is_running:
            raise UsageError("node runs already", got=f"validator-{index}")
        (node.home / READY_FILE).unlink(missing_ok=True)
        with (node.home / "node.log").open("ab") as log_file:
            node.process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-m", "node", "start", "--home", str(node.home)],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )

    async def start(self, indexes: Iterable[int] | None = None) -> None:
        """Start nodes and wait until each listens. Raises ZynkError with a node's last words."""
        chosen = list(range(len(self.nodes)) if indexes is None else indexes)
        for index in chosen:
            self.launch(index)
        for index in chosen:
            for moves_left in reversed(range(MOVES_MAX + 1)):
                try:
                    await self.wait_listening(index)
                    break
                except ZynkError:
                    if not (moves_left and self._move_if_taken(index)):
                        raise
                    self.launch(index)

    async def wait_listening(self, index: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until the node's RPC listens. Raises ZynkError if it ended or takes too long."""
        node = self.nodes[index]
        deadline = time.monotonic() + timeout_s
        while node.ready_info() is None:
            if not node.is_running or time.monotonic() > deadline:
                raise ZynkError(
                    f"validator-{index} did not start", got=f"its log ends:\n{node.log_tail()}"
                )
            await asyncio.sleep(POLL_S)

    def _move_if_taken(self, index: int) -> bool:
        """Give a node that ended other ports for those that somebody took since they were picked;
        False if none was. The others learn its new p2p port at their next start: until then it
        dials them."""
        node = self.nodes[index]
        if node.is_running:
            return False
        config = load_config(node.home)
        rpc_port, p2p_port = (_free_port(port) for port in (config.rpc.port, config.p2p.port))
        if (rpc_port, p2p_port) == (config.rpc.port, config.p2p.port):
            return False
        for other in self.nodes:
            theirs = load_config(other.home)
            peers = tuple(
                peer.replace(f"/tcp/{config.p2p.port}/", f"/tcp/{p2p_port}/")
                for peer in theirs.p2p.peers
            )
            _write_config(replace(theirs, p2p=replace(theirs.p2p, peers=peers)))
        own = load_config(node.home)
        _write_config(
            replace(own, rpc=replace(own.rpc, port=rpc_port), p2p=replace(own.p2p, port=p2p_port))
        )
        node.rpc_port = rpc_port
        return True

    def signal(self, index: int, number: int) -> None:
        """Send a signal to the node process alone (SIGKILL, SIGSTOP, SIGCONT, ...)."""
        process = self.nodes[index].process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def kill(self, index: int) -> None:
        """kill -9 and reap."""
        self.signal(index, signal.SIGKILL)
        process = self.nodes[index].process
        if process is not None:
            process.wait()

    async def stop_node(self, index: int) -> int:
        """Clean stop; SIGKILL if it takes too long. Returns the exit code."""
        process = self.nodes[index].process
        if process is None:
            return 0
        self.signal(index, signal.SIGCONT)
        self.signal(index, signal.SIGTERM)
        for _ in range(int(STOP_TIMEOUT_S / POLL_S)):
            if process.poll() is not None:
                break
            await asyncio.sleep(POLL_S)
        else:
            process.kill()
        return process.wait()

    async def stop(self) -> list[int]:
        """Stop all nodes; their exit codes."""
        return list(await asyncio.gather(*(self.stop_node(node.index) for node in self.nodes)))

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- watching ---

    async def status(self, index: int) -> dict[str, Any]:
        """node_status of one node. Raises RpcError, RpcConnectionError."""
        async with RpcClient(self.nodes[index].url) as client:
            result: dict[str, Any] = await client.call("node_status")
            return result

    async def wait_height(
        self, height: int, indexes: Iterable[int] | None = None, timeout_s: float = 30.0
    ) -> None:
        """Until each node has finalised `height`. Raises ZynkError naming who has not."""
        chosen = list(range(len(self.nodes)) if indexes is None else indexes)
        deadline = time.monotonic() + timeout_s
        for index in chosen:
            got = -1
            while got < height:
                try:
                    got = int((await self.status(index))["height"])
                except (RpcError, RpcConnectionError) as error:
                    if not self.nodes[index].is_running:
                        raise ZynkError(
                            f"validator-{index} ended", got=self.nodes[index].log_tail()
                        ) from error
                if got < height:
                    if time.monotonic() > deadline:
                        raise ZynkError(
                            f"validator-{index} is not there yet",
                            expected=f"height {height} within {timeout_s} s",
                            got=f"height {got}; its log ends:\n{self.nodes[index].log_tail()}",
                        )
                    await asyncio.sleep(POLL_S)


def pick_ports(count: int, *, prefer_default: bool) -> list[int]:
    """Free TCP ports on 127.0.0.1; the documented ones first if asked and free."""
    wanted: list[int] = []
    if prefer_default:
        for node in range(count // 2):
            wanted += [P2P_PORT_FIRST + PORT_STEP * node, RPC_PORT_FIRST + PORT_STEP * node]
    wanted += [0] * (count - len(wanted))
    held: list[socket.socket] = []
    try:
        held += [_bind(port) or _bind(0) or _no_port() for port in wanted]
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def _free_port(port: int) -> int:
    """`port` if it is free, else another."""
    sock = _bind(port) or _bind(0) or _no_port()
    with sock:
        found: int = sock.getsockname()[1]
        return found


def _write_config(config: NodeConfig) -> None:
    write_synced(config.home / CONFIG_FILE, render_config(config).encode())


def _bind(port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen(1)
    except OSError:
        sock.close()
        return None
    return sock


def _no_port() -> socket.socket:
    raise UsageError("no free TCP port on 127.0.0.1", retry=True)
