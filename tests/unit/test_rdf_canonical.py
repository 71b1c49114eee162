"""RDFC-1.0: the W3C test suite, and poisoned datasets that end in a refusal."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from did.rdf_canonical import QUADS_MAX, Quad, canonicalize, encode_literal
from ledger.errors import InvalidInputError
from tests.vectors.nquads import parse

SUITE = json.loads((Path(__file__).parent.parent / "vectors" / "rdfc10.json").read_text())["cases"]
POISON_S_MAX = 5.0
"""Measured: 0.2 s; the rest is for loaded machines."""


@pytest.mark.parametrize("case", SUITE, ids=lambda case: case["name"])
def test_the_w3c_suite(case: dict[str, str]) -> None:
    assert canonicalize(parse(case["in"])) == case["out"]


@pytest.mark.parametrize("case", SUITE[::4], ids=lambda case: case["name"])
def test_order_and_labels_do_not_matter(case: dict[str, str]) -> None:
    generator = random.Random(case["name"])
    quads = parse(case["in"])
    generator.shuffle(quads)
    labels = sorted({part for quad in quads for part in quad if part.startswith("_:")})
    renamed = {label: f"_:z{n}" for n, label in enumerate(generator.sample(labels, len(labels)))}
    assert (
        canonicalize(Quad(*(renamed.get(part, part) for part in quad)) for quad in quads)
        == case["out"]
    )


def _clique(size: int) -> list[Quad]:
    return [
        Quad(f"_:e{i}", "<urn:p>", f"_:e{j}") for i in range(size) for j in range(size) if i != j
    ]


POISON = {
    "the suite's test074, a clique of 10": _clique(10),
    "a clique of 60": _clique(60),
    "a ring of 60": [Quad(f"_:e{i}", "<urn:p>", f"_:e{(i + 1) % 60}") for i in range(60)],
    "a ring of 4,000": [Quad(f"_:e{i}", "<urn:p>", f"_:e{(i + 1) % 4000}") for i in range(4000)],
    "one node with 4,000 unlabelled neighbours that know each other": [
        *(Quad("_:hub", "<urn:p>", f"_:e{i}") for i in range(2000)),
        *(Quad(f"_:e{i}", "<urn:q>", f"_:e{(i + 1) % 2000}") for i in range(2000)),
    ],
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_dataset_is_refused_in_bounded_time(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidInputError, match="poisoned"):
        canonicalize(POISON[name])
    assert time.monotonic() - began < POISON_S_MAX


def test_too_many_quads_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        canonicalize(Quad("<urn:s>", "<urn:p>", f"<urn:{i}>") for i in range(QUADS_MAX + 1))


def test_a_literal_can_not_leave_its_quotes() -> None:
    assert encode_literal('a" .\n<x>\\\x7f\x00\t') == '"a\\" .\\n<x>\\\\\\u007F\\u0000\\t"'
