"""`./dev bench light`: CPU of a light client that skips over 10,000 heights with 3 set changes.

Everything is "downloaded" before the clock starts. Judged are: the finality proof that a node
serves from genesis (`judge`), and bisection over light blocks without a node's help, each for sets
of which a tenth is replaced at every change, and for sets that share nobody, where a client has to
find each change. `--json` ends with one object.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from ledger.light import Bisection, Judgement, Reached, Verdict, judge
from node.cli_bench import machine
from tests.vectors.light_chain import LightChain, set_of

STAGES = (1_234, 3_210, 2_345, 3_211)
"""Heights of each set; changes in places that halving does not hit by chance."""
HEIGHTS = sum(STAGES)
CHANGES = len(STAGES) - 1


def measure(validators: int) -> dict[str, Any]:
    """Both ways over both chains, CPU in ms, with steps and blocks."""
    found: dict[str, Any] = {}
    for name, shift in (("a tenth replaced", max(1, validators // 10)), ("all", validators)):
        sets = [set_of(range(i * shift, i * shift + validators)) for i in range(CHANGES + 1)]
        plan = list(zip(sets, STAGES, strict=True))
        chain = LightChain(plan, seed=1, key_count=CHANGES * shift + validators)
        found[f"{validators} validators, {name}"] = _measure_chain(chain)
    return found


def _measure_chain(chain: LightChain) -> dict[str, Any]:
    now_ms = chain.header(HEIGHTS).time_ms
    proof = chain.finality(HEIGHTS, 0)
    data = proof.encode()
    began = time.process_time()
    judgement = judge(data, chain.trust(0), now_ms=now_ms)
    judge_s = time.process_time() - began
    assert judgement.verdict is Verdict.VALID, judgement.reason

    bisect_s, blocks = 0.0, 0
    step: Bisection | Reached | Judgement = Bisection.begin(chain.trust(0), HEIGHTS)
    while isinstance(step, Bisection):
        block = chain.light_block(step.wanted).encode()
        began = time.process_time()
        step = step.on_block(block, now_ms=now_ms)
        bisect_s += time.process_time() - began
        blocks += 1
    assert isinstance(step, Reached), step
    return {
        "judge_cpu_ms": round(judge_s * 1000, 1),
        "handoffs": len(proof.handoffs),
        "proof_bytes": len(data),
        "bisect_cpu_ms": round(bisect_s * 1000, 1),
        "bisect_blocks": blocks,
    }


def main() -> None:
    """Parse options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    result = {**measure(4), **measure(100), "machine": machine()}
    if arguments.as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
