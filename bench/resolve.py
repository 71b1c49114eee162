"""`./dev bench resolve`: resolves a second of one node with very many DIDs.

A chain of one validator gets the DIDs by `bench.did_chain`; a real node then serves it, in default
settings but for the limit of requests of one IP address, and the load generator shares its machine.
`--json` ends with one line: {"plain_per_s", "with_proof_per_s", "p50_ms", "p99_ms", "dids", ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.did_chain import load_dids
from genesis.document import GenesisDocument
from node import config as cfg
from node.bench_resolve import Target, measure_resolve
from node.cli_bench import machine
from node.devnet import Devnet
from node.event_loop import run


async def measure(network: Devnet, dids: list[str], seconds: float) -> dict[str, Any]:
    """Start the node, measure, stop it."""
    node = network.nodes[0]
    genesis = GenesisDocument.parse((node.home / cfg.GENESIS_FILE).read_bytes()).to_state()
    target = Target(url=node.url, dids=dids, chain_id=genesis.chain_id, trusted=genesis.validators)
    began = time.perf_counter()
    try:
        await network.start()
        start_s = time.perf_counter() - began
        found = await measure_resolve(target, seconds=seconds, progress=lambda share: None)
    finally:
        await network.stop()
    return {**found, "start_s": round(start_s, 2), "machine": machine()}


def main() -> None:
    """Parse options, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--dids", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    arguments = parser.parse_args()
    network = Devnet.create(
        Path(tempfile.mkdtemp(prefix="zynk-bench-")), validators=1, chain_id="zynk-bench"
    )
    try:
        began = time.perf_counter()
        dids = load_dids(network.nodes[0].home, arguments.dids, progress=_say)
        load_s = round(time.perf_counter() - began, 1)
        result = {**run(measure(network, dids, arguments.seconds)), "load_s": load_s}
    finally:
        network.remove()
    if arguments.as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:18} {value}")


def _say(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r[bench] loading {100 * share:.0f}%", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
