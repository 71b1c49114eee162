"""`./dev bench audit`: the audit log alone, and on a new network of four.

Alone: append (frontier and tiles, in heights of 1,000 entries, each one synced batch), proofs at
the full size, reopening to the first proof, and bytes of tiles an entry. On the network: leaves
accepted durably by HTTP in groups of 1,000, and the time until they have receipts. `--json` ends
with one object: {"leaves_per_s", "receipt_p99_ms", "proofs_per_s", "append_per_s", ...}.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from audit.frontier import FrontierLog
from audit.rows import TILE
from audit.tree_store import LogTree, commit_rows
from bench.stream import make_stream
from genesis.document import GenesisDocument
from ledger.merkle import compute_leaf_hash, verify_inclusion_proof
from ledger.store import Batch, LevelStore
from node import config as cfg
from node.bench_audit import AuditTarget, measure_audit
from node.cli_bench import machine
from node.devnet import Devnet
from node.event_loop import run

BLOCK_ENTRIES = 1000
PROOFS = 4000


def measure(entries: int) -> dict[str, Any]:
    """Everything on a new store of `entries` log entries of 120 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="zynk-bench-audit-"))
    try:
        store = LevelStore.open(folder / "store")
        log, frontier = FrontierLog(), b""
        tree_s = append_s = 0.0
        for start in range(0, entries, BLOCK_ENTRIES):
            block = [_entry(i) for i in range(start, min(start + BLOCK_ENTRIES, entries))]
            began = time.perf_counter()
            frontier = log.append(frontier, block)
            rows = list(commit_rows(store, start, block))
            tree_s += time.perf_counter() - began
            batch = Batch()
            for key, value in rows:
                batch.put(key, value)
            store.write(batch, sync=True)
            append_s += time.perf_counter() - began
        size, root = log.size_and_root(frontier)
        tile_bytes = sum(len(k) + len(v) for k, v in store.iterate(prefix=TILE))
        store.close()
        began = time.perf_counter()
        store = LevelStore.open(folder / "store")
        LogTree(store).inclusion_proof(size // 2, size)
        reopen_s = time.perf_counter() - began
        proofs_s = _measure_proofs(LogTree(store), size, root)
        store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "entries": size,
        "append_per_s": round(size / tree_s),
        "append_synced_per_s": round(size / append_s),
        "proofs_per_s": round(PROOFS / proofs_s),
        "reopen_ms": round(reopen_s * 1000, 1),
        "tile_bytes_per_entry": round(tile_bytes / size, 1),
        "machine": machine(),
    }


async def measure_network(leaves_per_s: float, seconds: float) -> dict[str, Any]:
    """`measure_audit` on four new validators, each of which anchors."""
    folder = Path(tempfile.mkdtemp(prefix="zynk-bench-"))
    network = Devnet.create(folder, chain_id="zynk-bench")
    try:
        await network.start()
        await network.wait_height(1)
        genesis = GenesisDocument.parse(
            (network.nodes[0].home / cfg.GENESIS_FILE).read_bytes()
        ).to_state()
        target = AuditTarget(
            urls=[node.url for node in network.nodes],
            stream=await make_stream(network, range(len(network.nodes)), quota=2**40),
            chain_id=genesis.chain_id,
            trusted=genesis.validators,
        )
        return await measure_audit(
            target, leaves_per_s=leaves_per_s, seconds=seconds, progress=lambda share: None
        )
    finally:
        await network.stop()
        network.remove()


def _entry(index: int) -> bytes:
    return index.to_bytes(8, "big") * 15


def _measure_proofs(tree: LogTree, size: int, root: bytes) -> float:
    """Seconds for PROOFS inclusion proofs at random places; 1% of them are verified."""
    rng = random.Random(1)
    places = [rng.randrange(size) for _ in range(PROOFS)]
    began = time.perf_counter()
    proofs = [tree.inclusion_proof(place, size) for place in places]
    took = time.perf_counter() - began
    for place, path in list(zip(places, proofs, strict=True))[::100]:
        verify_inclusion_proof(root, size, place, compute_leaf_hash(_entry(place)), path)
    return took


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=20_000, help="leaves a second offered")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--alone", action="store_true", help="without the network")
    arguments = parser.parse_args()
    result = {} if arguments.alone else run(measure_network(arguments.rate, arguments.seconds))
    result |= measure(arguments.entries)
    if arguments.as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
