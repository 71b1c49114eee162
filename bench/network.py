"""`./dev bench`: a fresh network of four; start time, idle cost, finality, throughput.

One set of default parameters for every figure. `--json` ends with one line:
{"finality": {...}, "throughput": {...}, "idle": {...}, "start_s", "machine"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from node import config as cfg
from node.bench import Network, measure_finality, measure_throughput
from node.cli_bench import machine
from node.devnet import Devnet
from node.event_loop import run
from node.keys import load_key

SETTLE_S = 5.0


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything on a new network and stop it."""
    folder = Path(tempfile.mkdtemp(prefix="zynk-bench-"))
    network = Devnet.create(folder, chain_id="zynk-bench")
    try:
        began = time.perf_counter()
        await network.start()
        await network.wait_height(1)
        start_s = time.perf_counter() - began
        await asyncio.sleep(SETTLE_S)
        idle = await _measure_idle(network, arguments.idle_seconds)
        load = Network(
            urls=[node.url for node in network.nodes],
            key=load_key(network.nodes[0].home / cfg.FAUCET_KEY_FILE),
        )
        finality = await measure_finality(
            load, rate_tx_s=20.0, seconds=arguments.seconds, progress=_say("finality")
        )
        throughput = await measure_throughput(
            load,
            seconds=arguments.seconds,
            payload_bytes=300,
            accounts=1000,
            progress=_say("throughput"),
        )
    finally:
        await network.stop()
        network.remove()
    return {
        "finality": finality,
        "throughput": throughput,
        "idle": idle,
        "start_s": round(start_s, 2),
        "machine": machine(),
    }


async def _measure_idle(network: Devnet, seconds: float) -> dict[str, float]:
    """CPU and memory of one node (its consensus and p2p processes), the mean of all."""
    processes = [
        process
        for node in network.nodes
        if node.process is not None
        for parent in [psutil.Process(node.process.pid)]
        for process in [parent, *parent.children(recursive=True)]
    ]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    await asyncio.sleep(seconds)
    used = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    resident = sum(process.memory_info().rss for process in processes)
    nodes = len(network.nodes)
    return {
        "cpu_percent": round(100 * used / seconds / nodes, 2),
        "rss_mib": round(resident / nodes / 2**20, 1),
    }


def _say(name: str) -> Any:
    said: set[int] = set()

    def progress(share: float) -> None:
        tenth = int(share * 10)
        if tenth not in said:
            said.add(tenth)
            print(f"[bench] {name} {tenth * 10}%", file=sys.stderr)

    return progress


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--idle-seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    result = run(measure(arguments))
    if arguments.as_json:
        print(json.dumps(result))
        return
    table = Table("what", "measured", "target", box=None, header_style="dim")
    finality, throughput, idle = result["finality"], result["throughput"], result["idle"]
    table.add_row("finality p50, 20 tx/s", f"{finality['p50_ms']} ms", "<= 50 ms")
    table.add_row("finality p90", f"{finality['p90_ms']} ms", "")
    table.add_row("finality p99", f"{finality['p99_ms']} ms", "<= 200 ms")
    table.add_row("throughput, 300 B payload", f"{throughput['tx_s']} tx/s", ">= 800 tx/s")
    table.add_row("nullified views", str(throughput["missed_heights"]), "0")
    table.add_row("idle node, CPU of a core", f"{idle['cpu_percent']} %", "<= 8 %")
    table.add_row("idle node, memory", f"{idle['rss_mib']} MiB", "<= 220 MB")
    table.add_row("start to first final block", f"{result['start_s']} s", "<= 8 s")
    console = Console(highlight=False)
    console.print(table)
    console.print(result["machine"], style="dim")


if __name__ == "__main__":
    main()
