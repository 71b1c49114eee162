"""Measure the state tree on LevelDB: build, updates, roots, proofs, history, disk, RAM, restart.

    python -m bench.state [--keys 100000 1000000] [--json]

Rows go to a temporary folder. A line of text a figure, or with --json one JSON object as the last
line, the figures of each number of keys under `results`. Times are wall clock, but for those named
cpu (of the committing thread): run it on a quiet machine, or compare the latter.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import psutil

from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.bulk import bulk_load
from ledger.store import Batch, LevelStore

KEYS = (100_000, 1_000_000)
VALUE_BYTES = 100
BLOCKS_SMALL = 40
BLOCKS_BIG = 180
PROOFS = 20_000
PROOFS_HISTORY = 300
TREE_PREFIXES = (b"s/h", b"s/m", b"s/c")

Figures = dict[str, float | int]


def key_at(index: int) -> bytes:
    """The raw key of account `index`."""
    return state_key("account", index.to_bytes(32, "big"))


def main() -> None:
    """Run the benchmark for each number of keys asked for."""
    options = parse_options()
    results = {}
    for keys in options.keys:
        with tempfile.TemporaryDirectory(prefix="zynk-bench-") as folder:
            results[str(keys)] = measure(os.path.join(folder, "db"), keys, options.levels)
        for name, figure in results[str(keys)].items():
            print(f"{keys:>9} keys  {name:<28} {figure}", file=sys.stderr)
    if options.json:
        print(json.dumps({"bench": "state", "results": results}))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options given, by default on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--keys", type=int, nargs="+", default=list(KEYS))
    parser.add_argument("--levels", type=int, default=None, help="levels in RAM")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def measure(folder: str, keys: int, levels: int | None) -> Figures:
    """All figures for a tree of `keys` keys in LevelDB under `folder`."""
    rng = random.Random(1)
    figures: Figures = {}
    store = LevelStore.open(folder)
    rows = ((key_at(i), i.to_bytes(4, "big") * (VALUE_BYTES // 4)) for i in range(keys))
    figures["build_s"] = timed(lambda: bulk_load(store, rows, height=1, time_ms=1000))
    store.compact()
    figures["tree_bytes_per_key"] = round(tree_bytes(store) / keys, 1)
    figures["disk_bytes_per_key"] = round(store.size_bytes() / keys, 1)
    store.close()

    gc.collect()
    before = psutil.Process().memory_info().rss
    opened: list[StateTree] = []
    store = LevelStore.open(folder)
    figures["restart_s"] = timed(lambda: opened.append(StateTree.open(store, top_levels=levels)))
    gc.freeze()
    tree = opened.pop()
    used = psutil.Process().memory_info().rss - before
    figures["rss_mb"] = round(used / 1e6, 1)
    figures["rss_mb_per_1e6_keys"] = round(used / keys, 1)

    for count, blocks in ((2, BLOCKS_SMALL), (100, BLOCKS_SMALL), (1000, BLOCKS_BIG)):
        figures |= measure_blocks(store, tree, rng, keys, count, blocks)
    figures |= measure_proofs(tree, rng, keys)
    figures |= measure_history(tree, rng, keys)
    store.close()
    return figures


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return round(time.perf_counter() - start, 3)


def tree_bytes(store: LevelStore) -> int:
    """Bytes of the tree's own rows (not the values) as written, keys included."""
    return sum(
        len(key) + len(value)
        for prefix in TREE_PREFIXES
        for key, value in store.iterate(prefix=prefix)
    )


def measure_blocks(
    store: LevelStore, tree: StateTree, rng: random.Random, keys: int, count: int, blocks: int
) -> Figures:
    """Blocks of `count` updates (one in ten a new key): compute alone, and the whole commit."""
    compute_ms: list[float] = []
    commit_ms: list[float] = []
    cpu_ms: list[float] = []
    written = 0
    for _ in range(blocks):
        writes: dict[bytes, bytes | None] = {
            key_at(rng.randrange(keys + keys // 10)): rng.randbytes(VALUE_BYTES)
            for _ in range(count)
        }
        cpu_start, start = time.thread_time(), time.perf_counter()
        overlay = tree.compute(writes)
        computed = time.perf_counter()
        batch = Batch()
        tree.add_rows(overlay, batch, height=tree.height + 1, time_ms=tree.time_ms + 1000)
        store.write(batch, sync=True)
        tree.adopt(overlay)
        commit_ms.append((time.perf_counter() - start) * 1000)
        cpu_ms.append((time.thread_time() - cpu_start) * 1000)
        compute_ms.append((computed - start) * 1000)
        written += sum(len(key) + len(value or b"") for key, value in batch)
    total_s = sum(commit_ms) / 1000
    return {
        f"root_ms_k{count}": round(median(compute_ms), 3),
        f"root_ms_max_k{count}": round(max(compute_ms), 3),
        f"commit_ms_k{count}": round(median(commit_ms), 3),
        f"commit_cpu_ms_k{count}": round(median(cpu_ms), 3),
        f"updates_per_s_k{count}": round(count * blocks / total_s),
        f"written_bytes_per_update_k{count}": round(written / (count * blocks)),
    }


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def measure_proofs(tree: StateTree, rng: random.Random, keys: int) -> Figures:
    """Proofs at the tip, half of them of absent keys; each is verified outside the clock."""
    wanted = [key_at(rng.randrange(2 * keys)) for _ in range(PROOFS)]
    answers: list[tuple[bytes | None, bytes]] = []
    elapsed = timed(lambda: answers.extend([tree.prove(key) for key in wanted]))
    verify_s = timed(lambda: verify_all(tree.root, wanted, answers))
    sizes = [len(proof) for _, proof in answers]
    return {
        "proofs_per_s": round(PROOFS / elapsed),
        "verifications_per_s": round(PROOFS / verify_s),
        "proof_bytes_mean": round(sum(sizes) / len(sizes), 1),
        "proof_bytes_max": max(sizes),
    }


def verify_all(root: bytes, keys: list[bytes], answers: list[tuple[bytes | None, bytes]]) -> None:
    """Verify each answer."""
    for key, (value, proof) in zip(keys, answers, strict=True):
        verify_state_proof(root, key, value, proof)


def measure_history(tree: StateTree, rng: random.Random, keys: int) -> Figures:
    """Proofs at the oldest height kept, and at random ones."""
    figures: Figures = {"history_heights": tree.height - tree.lowest_height}
    oldest: list[float] = []
    mixed: list[float] = []
    for _ in range(PROOFS_HISTORY):
        for height, times in (
            (tree.lowest_height, oldest),
            (rng.randint(tree.lowest_height, tree.height), mixed),
        ):
            key = key_at(rng.randrange(2 * keys))
            start = time.perf_counter()
            value, proof, root = tree.prove_at(height, key)
            times.append((time.perf_counter() - start) * 1000)
            verify_state_proof(root, key, value, proof)
    figures["history_oldest_ms_mean"] = round(sum(oldest) / len(oldest), 3)
    figures["history_oldest_ms_max"] = round(max(oldest), 3)
    figures["history_ms_mean"] = round(sum(mixed) / len(mixed), 3)
    return figures


if __name__ == "__main__":
    main()
