"""Round trips through the whole p2p path: node, link, p2p process, libp2p, and back.

Four links (so eight processes if the nodes were apart; here the node ends share one loop), each
in turn broadcasts a frame and every other one echoes it: the time from `broadcast` to each echo.

    python -m bench.p2p --rounds 100 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import tempfile
import time
from pathlib import Path

import psutil

from p2p.link import P2PConfig, P2PLink

NODES = 4
ROUND_TIMEOUT_S = 10.0


class Echo:
    """A node that echoes what it did not ask for, and times the echoes of what it did."""

    def __init__(self) -> None:
        self.link: P2PLink | None = None
        self.peers: set[str] = set()
        self.sent_s = 0.0
        self.waiting = 0
        self.times_ms: list[float] = []
        self.done = asyncio.Event()
        self.connected = asyncio.Event()

    def on_peer_up(self, peer: str, height: int) -> None:
        self.peers.add(peer)
        if len(self.peers) == NODES - 1:
            self.connected.set()

    def on_peer_down(self, peer: str) -> None:
        self.peers.discard(peer)

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        assert self.link is not None
        if channel == 0:
            self.link.send(peer, 1, payload)
            return
        self.times_ms.append((time.perf_counter() - self.sent_s) * 1000.0)
        self.waiting -= 1
        if self.waiting == 0:
            self.done.set()

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        return

    def on_restarted(self) -> None:
        return

    async def round(self, payload: bytes) -> None:
        """Broadcast once and wait for every echo."""
        assert self.link is not None
        self.waiting, self.done = len(self.peers), asyncio.Event()
        self.sent_s = time.perf_counter()
        self.link.broadcast(0, payload)
        await asyncio.wait_for(self.done.wait(), ROUND_TIMEOUT_S)


async def start_nodes(folder: Path) -> list[Echo]:
    """Four connected links."""
    nodes: list[Echo] = []
    addresses: list[str] = []
    for number in range(NODES):
        home = folder / str(number)
        home.mkdir()
        node = Echo()
        node.link = P2PLink(
            P2PConfig(
                identity_seed=bytes([number + 1]) * 32,
                listen_host="127.0.0.1",
                listen_port=0,
                chain_id="bench",
                genesis_hash=bytes(32),
                protocol_version=1,
                home=home,
                peers=tuple(addresses),
            ),
            node,
        )
        await node.link.start()
        addresses.append(node.link.listen_addr)
        nodes.append(node)
    for node in nodes:
        await asyncio.wait_for(node.connected.wait(), ROUND_TIMEOUT_S)
    return nodes


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2)


async def measure(rounds: int, pause_s: float, idle_s: float) -> dict[str, object]:
    """Run the bench; returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        nodes = await start_nodes(Path(folder))
        result: dict[str, object] = {"start_s": round(time.perf_counter() - start, 2)}
        for name, size in (("1KB", 1_000), ("30KB", 30_000)):
            payload = bytes(size)
            for number in range(-NODES, rounds):
                node = nodes[number % NODES]
                await node.round(payload)
                if number < 0:
                    node.times_ms.clear()
                await asyncio.sleep(pause_s)
            times = [ms for node in nodes for ms in node.times_ms]
            result[name] = {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
            for node in nodes:
                node.times_ms.clear()
        processes = [psutil.Process(node.link.pid) for node in nodes if node.link is not None]
        before = [sum(process.cpu_times()[:2]) for process in processes]
        await asyncio.sleep(idle_s)
        after = [sum(process.cpu_times()[:2]) for process in processes]
        busy = [b - a for a, b in zip(before, after, strict=True)]
        result["idle_cpu_percent"] = round(100.0 * max(busy) / idle_s, 2)
        result["rss_mib"] = max(process.memory_info().rss for process in processes) >> 20
        result["machine"] = f"{psutil.cpu_count()} cores, Python {platform.python_version()}"
        for node in nodes:
            if node.link is not None:
                await node.link.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--pause-ms", type=float, default=20.0)
    parser.add_argument("--idle-s", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    result = asyncio.run(measure(options.rounds, options.pause_ms / 1000.0, options.idle_s))
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
