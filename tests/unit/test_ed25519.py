"""Ed25519 by libsodium: published vectors, and its verdicts on what verifiers disagree about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.errors import UsageError
from tests.unit import edwards25519 as ed
from tests.unit.ed25519_edge_cases import make_cases

VECTORS = Path(__file__).parents[1] / "vectors"
RFC_8032: list[dict[str, str]] = json.loads((VECTORS / "ed25519_rfc8032.json").read_text())["cases"]
EDGE_CASES: list[dict[str, Any]] = json.loads((VECTORS / "ed25519_edge_cases.json").read_text())
MESSAGE = b"message"
KEY = KeyPair.from_seed(bytes(range(32)))


@pytest.mark.parametrize("case", RFC_8032, ids=[case["name"] for case in RFC_8032])
def test_rfc_8032_vectors_sign_and_verify(case: dict[str, str]) -> None:
    key = KeyPair.from_seed(bytes.fromhex(case["seed"]))
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    assert key.public_key.hex() == case["public_key"]
    assert key.seed.hex() == case["seed"]
    assert key.sign(message) == signature
    assert is_valid_signature(key.public_key, message, signature)
    assert not is_valid_signature(key.public_key, message + b"x", signature)


def test_verdicts_on_the_edge_cases_are_those_that_were_frozen() -> None:
    for case in EDGE_CASES:
        fields = (bytes.fromhex(case[name]) for name in ("public_key", "message", "signature"))
        assert is_valid_signature(*fields) is case["valid"], case["name"]


def test_the_frozen_edge_cases_are_what_their_generator_makes() -> None:
    assert make_cases() == EDGE_CASES


def test_only_the_mixed_order_class_is_accepted() -> None:
    """As the paper's table 5 has it for libsodium; a verifier that accepts another of these, or
    refuses this one, would split consensus."""
    accepted = [case["name"] for case in EDGE_CASES if case["valid"]]
    assert accepted == ["class 3: A and R of mixed order, equation holds"]


def test_there_are_fourteen_small_order_encodings_of_eight_points() -> None:
    encodings = ed.small_encodings()
    assert len(set(encodings)) == 14
    assert all(ed.multiply(8, point) == ed.NEUTRAL for point in ed.TORSION)
    assert len(set(ed.TORSION)) == 8


def test_the_test_arithmetic_agrees_with_libsodium() -> None:
    case = RFC_8032[1]
    signature, key = bytes.fromhex(case["signature"]), bytes.fromhex(case["public_key"])
    h = ed.challenge(signature[:32], key, bytes.fromhex(case["message"]))
    points = []
    for data in (signature[:32], key):
        number = int.from_bytes(data, "little")
        point = ed.point_with_y(number % 2**255)
        assert point is not None
        points.append(ed.negate(point) if number >> 255 else point)
        assert ed.encode(points[-1]) == data
    right = ed.add(points[0], ed.multiply(h, points[1]))
    assert ed.multiply(int.from_bytes(signature[32:], "little"), ed.BASE) == right


def test_adding_the_group_order_to_s_never_verifies() -> None:
    signature = KEY.sign(MESSAGE)
    s = int.from_bytes(signature[32:], "little")
    for k in range(1, (2**256 - s) // ed.L + 1):
        other = signature[:32] + (s + k * ed.L).to_bytes(32, "little")
        assert not is_valid_signature(KEY.public_key, MESSAGE, other)


def test_every_single_bit_counts() -> None:
    signature = KEY.sign(MESSAGE)
    for bit in range(512):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not is_valid_signature(KEY.public_key, MESSAGE, bytes(flipped))
    for bit in range(256):
        other = bytearray(KEY.public_key)
        other[bit // 8] ^= 1 << bit % 8
        assert not is_valid_signature(bytes(other), MESSAGE, signature)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_is_not_valid_and_raises_nothing(length: int) -> None:
    assert not is_valid_signature(bytes(length), MESSAGE, KEY.sign(MESSAGE))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_not_valid_and_raises_nothing(length: int) -> None:
    assert not is_valid_signature(KEY.public_key, MESSAGE, (KEY.sign(MESSAGE) * 2)[:length])


def test_a_seed_has_32_bytes_and_is_never_printed() -> None:
    with pytest.raises(UsageError):
        KeyPair.from_seed(bytes(31))
    assert KEY.seed.hex() not in repr(KEY)
