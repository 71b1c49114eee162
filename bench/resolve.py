"""`./dev bench resolve`: resolves a second of one node with very many DIDs.

A chain of one validator gets the DIDs by `bench.did_chain`; a real node then serves it, in default
settings but for the limit of requests of one IP address, and the load generator shares its machine.
`--dids` may be given several times: the chain grows from the least size to the largest and is
measured at each. `--home` keeps it, so that a later run loads only what is missing.

`--json` ends with one line: {"plain_per_s", "with_proof_per_s", "p50_ms", "p99_ms", "dids", ...} of
the least size, and "larger": [the same of each other size, with "plain_slowdown" and
"with_proof_slowdown", the least size's rate divided by its own].
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.did_chain import load_dids
from genesis.document import GenesisDocument
from ledger.errors import UsageError
from node import config as cfg
from node.bench_resolve import Target, measure_resolve
from node.cli_bench import machine
from node.devnet import Devnet
from node.event_loop import run

DISK_BYTES_PER_DID = 4096
"""About 2 KB stay; as much again is under way while the store is compacted."""


async def measure(network: Devnet, dids: list[str], seconds: float) -> dict[str, Any]:
    """Start the node, measure, stop it."""
    node = network.nodes[0]
    genesis = GenesisDocument.parse((node.home / cfg.GENESIS_FILE).read_bytes()).to_state()
    began = time.perf_counter()
    try:
        await network.start()
        start_s = time.perf_counter() - began
        target = Target(
            url=node.url, dids=dids, chain_id=genesis.chain_id, trusted=genesis.validators
        )
        found = await measure_resolve(target, seconds=seconds, progress=lambda share: None)
        assert node.process is not None
        rss_mib = _read_rss_mib(node.process.pid)
    finally:
        await network.stop()
    return {**found, "start_s": round(start_s, 2), "node_rss_mib": rss_mib}


def measure_sizes(network: Devnet, sizes: list[int], seconds: float) -> dict[str, Any]:
    """Load and measure each size, ascending; the line of the module docstring."""
    home = network.nodes[0].home
    results: list[dict[str, Any]] = []
    for size in sizes:
        _require_disk(home, size)
        began = time.perf_counter()
        dids = load_dids(home, size, progress=_say)
        load_s = round(time.perf_counter() - began, 1)
        results.append(
            {
                **run(measure(network, dids, seconds)),
                "load_s": load_s,
                "disk_mib": _count_bytes(home / cfg.DATA_FOLDER) >> 20,
            }
        )
    least = results[0]
    for result in results[1:]:
        for name in ("plain", "with_proof"):
            result[f"{name}_slowdown"] = round(least[f"{name}_per_s"] / result[f"{name}_per_s"], 2)
    larger = {"larger": results[1:]} if results[1:] else {}
    return {**least, **larger, "machine": machine()}


def main() -> None:
    """Parse options, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--dids", type=int, action="append", help="once for each size")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--home", type=Path, help="folder of the network, kept and grown")
    arguments = parser.parse_args()
    sizes = sorted(set(arguments.dids or [100_000]))
    if sizes[0] < 1:
        parser.error("--dids has to be 1 or more")
    folder: Path = arguments.home or Path(tempfile.mkdtemp(prefix="zynk-bench-"))
    try:
        result = measure_sizes(_open_network(folder), sizes, arguments.seconds)
    except UsageError as error:
        sys.exit(f"[bench] {error}")
    finally:
        if arguments.home is None:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:18} {value}")


def _open_network(folder: Path) -> Devnet:
    if folder.exists() and any(folder.iterdir()):
        return Devnet.open(folder)
    return Devnet.create(folder, validators=1, chain_id="zynk-bench")


def _require_disk(home: Path, dids: int) -> None:
    """Raises UsageError unless the DIDs that are missing have room."""
    have = _count_bytes(home / cfg.DATA_FOLDER)
    needed = max(0, dids * DISK_BYTES_PER_DID - have)
    free = shutil.disk_usage(home).free
    if free < needed:
        raise UsageError(
            f"too little room for {dids} DIDs; --home may name a folder on another disk",
            expected=f"{needed >> 20} MiB free",
            got=f"{free >> 20} MiB at {home}",
        )


def _count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read_rss_mib(pid: int) -> int:
    """Resident memory of a process; 0 where the kernel does not tell."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text().split()
    except OSError:
        return 0
    return int(fields[fields.index("VmRSS:") + 1]) >> 10


def _say(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r[bench] loading {100 * share:.0f}%", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
