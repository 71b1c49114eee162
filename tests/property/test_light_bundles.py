"""Two verifiers, in Python and in JavaScript, give the same verdict on every generated bundle."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ledger.light import Judgement, Verdict, judge
from tests.property.campaign import examples, is_soak
from tests.property.light_bundles import Bundle, make_bundles

SCRIPT = Path(__file__).with_name("judge_bundles.mjs")
EDGE_CASES = Path(__file__).parents[1] / "vectors" / "ed25519_edge_cases.json"
SEED = int(os.environ.get("ZYNK_SEED", "1"))
COUNT = examples(500, 2000)
NODE_MAJOR_MIN = 18
VERIFIER = Path(__file__).parents[2] / "verifier" / "js"


def judge_in_python(bundle: Bundle) -> Judgement:
    return judge(bundle.proof, bundle.trust, now_ms=bundle.now_ms, max_age_ms=bundle.max_age_ms)


def run_js(items: list[dict[str, Any]]) -> list[str]:
    """One line of output an item. Skips if there is no Node.js that can verify Ed25519; fails where
    there has to be one."""
    node = shutil.which("node")
    if node is None:
        if is_soak() or "CI" in os.environ:
            pytest.fail("Node.js is not on this machine")
        pytest.skip("Node.js is not on this machine")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").partition(".")[0]) < NODE_MAJOR_MIN:
        pytest.skip(f"WebCrypto needs Node.js {NODE_MAJOR_MIN}, here is {version.stdout.strip()}")
    done = subprocess.run(
        [node, str(SCRIPT)],
        input="".join(json.dumps(item) + "\n" for item in items),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def bundles() -> list[Bundle]:
    return make_bundles(COUNT, SEED)


@pytest.mark.slow
def test_generated_bundles_get_the_verdicts_that_their_changes_call_for(
    bundles: list[Bundle],
) -> None:
    seen: Counter[Verdict] = Counter()
    for number, bundle in enumerate(bundles):
        found = judge_in_python(bundle)
        seen[found.verdict] += 1
        if bundle.expected is not None:
            assert found.verdict is bundle.expected, (SEED, number, bundle.name, found.reason)
    assert set(seen) == set(Verdict), seen
    assert seen[Verdict.VALID] > COUNT // 10


@pytest.mark.slow
def test_python_and_javascript_agree_on_every_bundle(bundles: list[Bundle]) -> None:
    expected = []
    for bundle in bundles:
        found = judge_in_python(bundle)
        expected.append(f"{found.verdict} {'-' if found.header is None else found.header.height}")
    verdicts = run_js([bundle.to_json() for bundle in bundles])
    assert len(verdicts) == len(bundles)
    for number, (ours, theirs) in enumerate(zip(expected, verdicts, strict=True)):
        assert ours == theirs, (SEED, number, bundles[number].name)


@pytest.mark.slow
def test_javascript_judges_the_frozen_ed25519_edge_cases_as_libsodium_does() -> None:
    cases = json.loads(EDGE_CASES.read_text())
    assert run_js(cases) == [str(case["valid"]).lower() for case in cases]


def test_the_javascript_verifier_has_no_imports_but_its_own() -> None:
    for path in VERIFIER.glob("*.mjs"):
        imports = [line for line in path.read_text().splitlines() if ' from "' in line]
        assert all('from "./' in line for line in imports), path.name


def test_chain_did_and_receipt_with_all_they_import_are_at_most_900_lines() -> None:
    """What an integrator takes who wants these three. Other questions (older versions, parts of a
    document, batches, histories, following a chain) are judged by modules that rest on them."""
    taken: dict[str, list[str]] = {}
    wanted = ["chain.mjs", "did.mjs", "receipt.mjs"]
    while wanted:
        name = wanted.pop()
        text = (VERIFIER / name).read_text()
        taken[name] = text.splitlines()
        wanted += set(re.findall(r'from "\./([a-z_]+\.mjs)"', text)) - taken.keys()
    assert taken.keys() == {"chain.mjs", "codec.mjs", "did.mjs", "receipt.mjs"}
    assert 0 < sum(map(len, taken.values())) <= 900
    assert max(len(line) for lines in taken.values() for line in lines) <= 132
