"""The VRF: RFC 9381's vectors, an independent model, and everything that must be refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest

from consensus import vrf
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from tests.unit import ecvrf_model as model
from tests.unit import edwards25519 as ed

VECTORS = Path(__file__).parents[1] / "vectors" / "ecvrf_rfc9381.json"
RFC_9381: list[dict[str, str]] = json.loads(VECTORS.read_text())["cases"]
SEED = bytes(range(32))
KEY = KeyPair.from_seed(SEED).public_key
ALPHA = b"alpha"
PROOF = vrf.prove(SEED, ALPHA)


def verdict(public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
    """The output, or None for a refusal; any other exception fails the test."""
    try:
        return vrf.verify(public_key, alpha, proof)
    except InvalidInputError:
        return None


@pytest.mark.parametrize("case", RFC_9381, ids=[case["name"] for case in RFC_9381])
def test_rfc_9381_vectors_prove_and_verify(case: dict[str, str]) -> None:
    fields = {name: bytes.fromhex(text) for name, text in case.items() if name != "name"}
    key, alpha, pi = fields["public_key"], fields["alpha"], fields["pi"]
    assert vrf.prove(fields["seed"], alpha) == pi
    assert vrf.verify(key, alpha, pi) == fields["beta"]
    assert vrf.proof_to_output(pi) == fields["beta"]
    assert ed.encode(model.encode_to_curve(key, alpha)) == fields["h"]
    assert model.prove(fields["seed"], alpha) == pi
    assert model.verify(key, alpha, pi) == fields["beta"]


@pytest.mark.slow
def test_random_keys_and_inputs_agree_with_the_model() -> None:
    rng = random.Random(9381)
    for _ in range(40):
        seed, alpha = rng.randbytes(32), rng.randbytes(rng.randrange(100))
        proof = vrf.prove(seed, alpha)
        assert proof == model.prove(seed, alpha), (seed.hex(), alpha.hex())
        assert vrf.verify(KeyPair.from_seed(seed).public_key, alpha, proof) == model.output(proof)


def test_the_model_accepts_what_we_prove() -> None:
    assert model.verify(KEY, ALPHA, PROOF) == vrf.verify(KEY, ALPHA, PROOF)


# --- what is refused ---


@pytest.mark.slow
def test_a_proof_with_any_bit_flipped_is_refused() -> None:
    for bit in range(8 * len(PROOF)):
        flipped = bytearray(PROOF)
        flipped[bit // 8] ^= 1 << bit % 8
        assert verdict(KEY, ALPHA, bytes(flipped)) is None, f"bit {bit}"


def test_another_input_or_key_is_refused() -> None:
    other = KeyPair.from_seed(bytes(32)).public_key
    for key, alpha in ((other, ALPHA), (KEY, b""), (KEY, ALPHA + b"\0"), (KEY, b"Alpha")):
        with pytest.raises(InvalidInputError, match="does not verify"):
            vrf.verify(key, alpha, PROOF)


@pytest.mark.parametrize("length", [*range(80), 81, 96, 160])
def test_proofs_of_another_length_are_refused(length: int) -> None:
    proof = (PROOF * 2)[:length]
    with pytest.raises(InvalidInputError, match="wrong length"):
        vrf.verify(KEY, ALPHA, proof)
    with pytest.raises(InvalidInputError, match="wrong length"):
        vrf.proof_to_output(proof)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_of_another_length_are_refused(length: int) -> None:
    key = (KEY * 2)[:length]
    with pytest.raises(InvalidInputError, match="wrong length"):
        vrf.verify_key(key)
    assert verdict(key, ALPHA, PROOF) is None


@pytest.mark.parametrize("value", [None, 7, "k" * 32, bytearray(32), [1] * 80])
def test_what_is_not_bytes_is_refused(value: object) -> None:
    wrong = cast(Any, value)
    assert verdict(wrong, ALPHA, PROOF) is None
    assert verdict(KEY, ALPHA, wrong) is None
    with pytest.raises(InvalidInputError):
        vrf.proof_to_output(wrong)
    with pytest.raises(InvalidInputError):
        vrf.verify_key(wrong)


def test_s_is_refused_unless_reduced() -> None:
    s = int.from_bytes(PROOF[48:], "little")
    others = [s + k * ed.L for k in range(1, (2**256 - s) // ed.L + 1)]
    for number in (*others, 0, ed.L, 2**256 - 1):
        proof = PROOF[:48] + number.to_bytes(32, "little")
        with pytest.raises(InvalidInputError, match="out of range"):
            vrf.verify(KEY, ALPHA, proof)


@pytest.mark.parametrize("c", [0, 1, 7, 8, 9, 2**128 - 1])
def test_extreme_challenges_are_refused_without_another_error(c: int) -> None:
    proof = PROOF[:32] + c.to_bytes(16, "little") + PROOF[48:]
    with pytest.raises(InvalidInputError, match="does not verify"):
        vrf.verify(KEY, ALPHA, proof)
    assert model.verify(KEY, ALPHA, proof) is None


def bad_points() -> dict[str, bytes]:
    """Each defect by itself: small order (all encodings), y >= p, off the curve."""
    found = {f"small order {i}": data for i, data in enumerate(ed.small_encodings())}
    for y in range(ed.P, 2**255):
        for sign in (0, 1):
            found[f"y = p + {y - ed.P}, sign {sign}"] = (y | sign << 255).to_bytes(32, "little")
    off = [y for y in range(2, 40) if ed.point_with_y(y) is None]
    for y in (*off, ed.P - off[0]):
        found[f"off the curve: {y}"] = y.to_bytes(32, "little")
    return found


@pytest.mark.parametrize("data", bad_points().values(), ids=bad_points().keys())
def test_points_of_small_order_off_the_curve_or_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"small order|not a canonical point"):
        vrf.verify_key(data)
    with pytest.raises(InvalidInputError, match=r"small order|not a canonical point"):
        vrf.proof_to_output(data + PROOF[32:])
    assert verdict(data, ALPHA, PROOF) is None
    assert verdict(KEY, ALPHA, data + PROOF[32:]) is None


def test_points_are_decoded_as_rfc_8032_says() -> None:
    rng = random.Random(8032)
    low = [y.to_bytes(32, "little") for y in range(200)]
    for data in (*low, *(rng.randbytes(32) for _ in range(300)), *bad_points().values()):
        point = model.decode_point(data)
        try:
            vrf.verify_key(data)
            accepted = True
        except InvalidInputError:
            accepted = False
        assert accepted == (point is not None and point not in ed.TORSION), data.hex()


def test_a_seed_of_another_length_is_our_own_mistake() -> None:
    for length in (0, 31, 33, 64):
        with pytest.raises(UsageError):
            vrf.prove(bytes(length), ALPHA)


# --- points of mixed order: the verdict is the RFC's, whatever libsodium thinks of them ---


def proof_with_torsion(on_gamma: int, on_key: int, *, cancels: bool) -> tuple[bytes, bytes]:
    """A key and a proof by a prover who adds points of small order, with a challenge that makes
    them vanish from U and V, or one that does not."""
    x = model.secret_scalar(SEED)
    key = ed.add(ed.multiply(x, ed.BASE), ed.TORSION[on_key])
    h = model.encode_to_curve(ed.encode(key), ALPHA)
    gamma = ed.add(ed.multiply(x, h), ed.TORSION[on_gamma])
    u, v = ed.BASE, h
    for k in range(1, 200):
        c = model.challenge(key, h, gamma, u, v)
        if (on_gamma * c % 8 == 0 and on_key * c % 8 == 0) == cancels:
            return ed.encode(key), model.proof_of(gamma, c, (k + c * x) % ed.L)
        u, v = ed.add(u, ed.BASE), ed.add(v, h)
    raise AssertionError("one in eight challenges does it")


MIXED = [(1, 0), (2, 0), (4, 0), (7, 0), (0, 1), (0, 2), (0, 4), (0, 5), (3, 6), (4, 4), (1, 7)]


@pytest.mark.parametrize(("on_gamma", "on_key"), MIXED)
def test_mixed_order_verifies_exactly_when_the_challenge_cancels_it(
    on_gamma: int, on_key: int
) -> None:
    for cancels in (True, False):
        key, proof = proof_with_torsion(on_gamma, on_key, cancels=cancels)
        found = verdict(key, ALPHA, proof)
        assert found == model.verify(key, ALPHA, proof)
        assert (found is not None) == cancels


def test_mixed_order_gives_a_prover_no_second_output() -> None:
    expected = vrf.verify(KEY, ALPHA, PROOF)
    for on_gamma in (0, 1, 2, 4):
        key, proof = proof_with_torsion(on_gamma, 0, cancels=True)
        assert (key, proof) != (KEY, PROOF)
        assert vrf.verify(key, ALPHA, proof) == expected
