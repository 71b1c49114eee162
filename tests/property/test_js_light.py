"""The light clients in Python and in JavaScript take the same way and end at the same place: over
true chains and chains of which one light block was changed, is missing or was signed again."""

from __future__ import annotations

import dataclasses
import os
from random import Random
from typing import Any

import pytest

from ledger.block import PROTOCOL_VERSION
from ledger.errors import InvalidInputError
from ledger.light import (
    Attack,
    Bisection,
    Judgement,
    LightBlock,
    Reached,
    TrustPoint,
    compare,
    verify_sequential,
)
from tests.property.campaign import examples
from tests.property.light_bundles import Bundle, make_bundles
from tests.property.test_light_bundles import run_js
from tests.vectors.light_chain import LightChain, key_of, set_of, sign

SEED = int(os.environ.get("ZYNK_SEED", "1"))
COUNT = examples(60, 1000)
KEY_COUNT = 16
CHAINS = 8


def make_chain(number: int, fork_from: int = 0) -> LightChain:
    random = Random(f"way {number}")
    numbers = random.sample(range(KEY_COUNT), random.choice((1, 3, 4, 7)))
    plan = []
    for _ in range(random.randint(1, 6)):
        plan.append((set_of(numbers), random.randint(1, 12)))
        share_that_leaves = random.choice((0.3, 0.9))
        for at in range(len(numbers)):
            if random.random() < share_that_leaves:
                numbers[at] = random.choice([n for n in range(KEY_COUNT) if n not in numbers])
    seed = number + CHAINS * (fork_from > 0)
    return LightChain(plan, seed=seed, key_count=KEY_COUNT, fork_from=fork_from)


CHAIN_BY_NUMBER = [make_chain(number) for number in range(CHAINS)]


@dataclasses.dataclass(kw_only=True)
class Way:
    """From a trust point to a height, with the light blocks (wire bytes) that there are."""

    trust: TrustPoint
    target: int
    blocks: dict[int, bytes]
    now_ms: int

    def to_json(self, kind: str) -> dict[str, Any]:
        bundle = Bundle(
            name=kind,
            trust=self.trust,
            proof=b"",
            now_ms=self.now_ms,
            max_age_ms=None,
            expected=None,
        )
        blocks = {str(height): data.hex() for height, data in self.blocks.items()}
        return {**bundle.to_json(), "kind": kind, "target": str(self.target), "blocks": blocks}


def make_way(random: Random) -> Way:
    chain = random.choice(CHAIN_BY_NUMBER)
    start = random.randrange(chain.height)
    target = random.randint(start + 1, chain.height)
    blocks = {h: chain.light_block(h).encode() for h in range(start + 1, target + 1)}
    way = Way(
        trust=chain.trust(start),
        target=target,
        blocks=blocks,
        now_ms=chain.header(target).time_ms + random.choice((0, 0, 0, -11_000, 15 * 86_400_000)),
    )
    height = random.choice((target, random.randint(start + 1, target)))
    kind = random.randrange(8)
    if kind == 0:
        del blocks[height]
    elif kind == 1:
        raw = bytearray(blocks[height])
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
        blocks[height] = bytes(raw)
    elif kind == 2:
        blocks[height] = chain.light_block(random.randint(1, chain.height)).encode()
    elif kind == 3:
        blocks[height] = resigned(chain, height, random)
    elif kind == 4:
        way.trust = dataclasses.replace(way.trust, validators=set_of(range(random.randint(1, 16))))
    return way


def resigned(chain: LightChain, height: int, random: Random) -> bytes:
    """Another header of that height, signed by its whole set."""
    block = chain.light_block(height)
    name, value = random.choice(
        [
            ("parent_hash", random.randbytes(32)),
            ("state_root", random.randbytes(32)),
            ("time_ms", random.choice((0, 2**63))),
            ("protocol_version", PROTOCOL_VERSION + 1),
            ("chain_id", "another"),
        ]
    )
    changes: dict[str, Any] = {name: value}
    header = dataclasses.replace(block.header, **changes)
    number_of = {key_of(n).public_key: n for n in range(KEY_COUNT)}
    signers = [key_of(number_of[v.public_key]) for v in block.validators.validators]
    certificate = sign(header, block.validators, signers)
    return LightBlock.encode(dataclasses.replace(block, header=header, certificate=certificate))


def place(trust: TrustPoint) -> str:
    return f"{trust.height} {trust.header_hash.hex()} {trust.validators.hash.hex()}"


def bisect(way: Way) -> str:
    step: Bisection | Reached | Judgement = Bisection.begin(way.trust, way.target)
    asked = []
    while isinstance(step, Bisection):
        asked.append(str(step.wanted))
        step = step.on_block(way.blocks.get(step.wanted, b""), now_ms=way.now_ms)
    end = place(step.trust) if isinstance(step, Reached) else step.verdict.value
    return f"{','.join(asked)} {end}"


def follow(way: Way) -> str:
    try:
        blocks = [LightBlock.decode(data) for data in way.blocks.values()]
        return place(verify_sequential(blocks, way.trust, now_ms=way.now_ms))
    except InvalidInputError:
        return "refused"


@pytest.mark.slow
def test_both_take_the_same_way_by_halves_and_height_by_height() -> None:
    random = Random(SEED)
    ways = [make_way(random) for _ in range(COUNT)]
    items = [way.to_json(kind) for way in ways for kind in ("bisection", "sequential")]
    expected = [found for way in ways for found in (bisect(way), follow(way))]
    for number, (ours, theirs) in enumerate(zip(expected, run_js(items), strict=True)):
        assert ours == theirs, (SEED, number // 2, items[number]["kind"])
    ends = {found.split(" ", 1)[1] if " " in found else found for found in expected}
    assert {"wrong", "cannot-tell", "refused"} <= ends, ends
    assert any(len(found) > 64 for found in expected), "some arrive"
    assert any(found.count(",") > 2 for found in expected), "some have to go by halves"


@pytest.mark.slow
def test_both_tell_a_witness_that_agrees_from_an_attack() -> None:
    items, expected = [], []
    for number, chain in enumerate(CHAIN_BY_NUMBER):
        height = chain.height
        trust, now_ms = chain.trust(0), chain.header(height).time_ms
        first = chain.finality(height, 0)
        for other in (chain, make_chain(number, fork_from=height)):
            for at in (height, max(1, height - 1)):
                second = other.finality(at, 0).encode()
                found = compare(first, second, trust, now_ms=now_ms)
                expected.append("attack" if isinstance(found, Attack) else found.verdict.value)
                bundle = Bundle(
                    name="witness",
                    trust=trust,
                    proof=second,
                    now_ms=now_ms,
                    max_age_ms=None,
                    expected=None,
                )
                items.append({**bundle.to_json(), "kind": "witness", "first": first.encode().hex()})
    assert run_js(items) == expected
    assert set(expected) == {"attack", "valid", "cannot-tell"}


def test_the_bundles_hold_steps_that_skip_nothing() -> None:
    names = {bundle.name for bundle in make_bundles(100, 1)}
    assert {"other_parent", "skip_to_the_next_height"} <= names
