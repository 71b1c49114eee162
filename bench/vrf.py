"""`./dev bench vrf`: microseconds to prove and to verify, over random inputs.

Medians of single calls, on one thread; "new key" decodes and validates the key as well, which
`verify` otherwise remembers. `--json` ends with one object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

from consensus import vrf
from ledger.ed25519 import KeyPair
from node.cli_bench import machine

Case = tuple[bytes, bytes, bytes, bytes]  # seed, public key, alpha, proof


def measure(count: int) -> dict[str, int]:
    """Medians in microseconds over `count` calls each."""
    rng = random.Random(9381)
    one_key = [_case(bytes(32), rng.randbytes(60)) for _ in range(count)]
    new_keys = [_case(rng.randbytes(32), rng.randbytes(60)) for _ in range(count)]
    return {
        "prove_us": _median_us(one_key, lambda case: vrf.prove(case[0], case[2])),
        "verify_us": _median_us(one_key, lambda case: vrf.verify(*case[1:])),
        "verify_new_key_us": _median_us(new_keys, lambda case: vrf.verify(*case[1:])),
        "proof_to_output_us": _median_us(one_key, lambda case: vrf.proof_to_output(case[3])),
    }


def _case(seed: bytes, alpha: bytes) -> Case:
    return seed, KeyPair.from_seed(seed).public_key, alpha, vrf.prove(seed, alpha)


def _median_us(cases: list[Case], action: Callable[[Case], object]) -> int:
    took = []
    for case in cases:
        began = time.perf_counter()
        action(case)
        took.append(time.perf_counter() - began)
    return round(statistics.median(took) * 1e6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.count)
    for name, figure in figures.items():
        print(f"{name:<20} {figure}")
    if options.json:
        print(json.dumps({"bench": "vrf", "machine": machine(), **figures}))


if __name__ == "__main__":
    main()
