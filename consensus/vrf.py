"""ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381, suite 0x03) on libsodium's group operations.

A validator's output for `alpha` is fixed by its key, nobody else can compute it, and everybody can
check it. An Ed25519 signature does not do that: a signer can make many valid ones.

    proof  = Gamma 32 B | c 16 B | s 32 B     80 B; integers little-endian, points as in RFC 8032
    output = SHA-512(03 03 | 8 * Gamma | 00)  64 B

Verdicts are those of the RFC (section 5.3, keys validated). It admits points of mixed order: a
prover may add a point of small order to Gamma, which sometimes verifies and never changes the
output. libsodium refuses to multiply such points, and which ones it refuses has changed (before
December 2025 it took those of order 2L for members of the subgroup), so a point from outside is
never multiplied itself. It is kept as P, 2P, 4P, 8P, and

    n * P = (n >> 3) * 8P + (n & 7) * P

where 8P is in the prime-order subgroup whatever P is.

Two stricter readings, of proofs that exist with probability 2^-128: a Gamma of small order and
s = 0 are refused at once.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import nacl.bindings as sodium
import nacl.exceptions

from ledger.codec import read_bytes
from ledger.ed25519 import PUBLIC_KEY_BYTES, KeyPair
from ledger.errors import InvalidInputError

POINT_BYTES = 32
CHALLENGE_BYTES = 16
SCALAR_BYTES = 32
PROOF_BYTES = POINT_BYTES + CHALLENGE_BYTES + SCALAR_BYTES
OUTPUT_BYTES = 64

_FIELD_PRIME = 2**255 - 19
_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
_IDENTITY = (1).to_bytes(POINT_BYTES, "little")
_COUNTER_MAX = 255
_KEYS_CACHED_MAX = 512

_HASH_TO_CURVE, _CHALLENGE, _OUTPUT = b"\x03\x01", b"\x03\x02", b"\x03\x03"
_END = b"\x00"

_Multiples = tuple[bytes, bytes, bytes, bytes]
"""P, 2P, 4P, 8P of a point P of the curve."""


def prove(seed: bytes, alpha: bytes) -> bytes:
    """The 80-byte proof for `alpha` by the 32-byte Ed25519 secret seed (section 5.1).

    Deterministic. What is secret stays in libsodium's constant-time operations.
    Raises UsageError for a seed of another length.
    """
    public_key = KeyPair.from_seed(seed).public_key
    expanded = hashlib.sha512(seed).digest()
    secret, nonce_key = _clamp(expanded[:32]), expanded[32:]
    h = _hash_to_curve(public_key, alpha)
    gamma = sodium.crypto_scalarmult_ed25519_noclamp(secret, h)
    nonce = sodium.crypto_core_ed25519_scalar_reduce(hashlib.sha512(nonce_key + h).digest())
    u = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce)
    v = sodium.crypto_scalarmult_ed25519_noclamp(nonce, h)
    c = _compute_challenge(public_key, h, gamma, u, v)
    product = sodium.crypto_core_ed25519_scalar_mul(
        c + bytes(SCALAR_BYTES - CHALLENGE_BYTES),
        sodium.crypto_core_ed25519_scalar_reduce(secret + bytes(32)),
    )
    return gamma + c + sodium.crypto_core_ed25519_scalar_add(nonce, product)


def verify(public_key: bytes, alpha: bytes, proof: bytes) -> bytes:
    """The 64-byte output that `proof` shows for `alpha` under `public_key` (section 5.3).

    Raises InvalidInputError, and nothing else, for a key or proof that is malformed or wrong.
    """
    key = _decode_key(public_key)
    gamma, c, s = _decode_proof(proof)
    h = _hash_to_curve(public_key, alpha)
    c_number = int.from_bytes(c, "little")
    u = sodium.crypto_core_ed25519_sub(
        sodium.crypto_scalarmult_ed25519_base_noclamp(s), _multiply(c_number, key)
    )
    v = sodium.crypto_core_ed25519_sub(
        sodium.crypto_scalarmult_ed25519_noclamp(s, h), _multiply(c_number, gamma)
    )
    if c != _compute_challenge(public_key, h, gamma[0], u, v):
        raise InvalidInputError("VRF proof does not verify")
    return _compute_output(gamma)


def proof_to_output(proof: bytes) -> bytes:
    """The 64-byte output of a proof that was verified or made here (section 5.2).

    Checks only the proof's form. Raises InvalidInputError.
    """
    gamma, _, _ = _decode_proof(proof)
    return _compute_output(gamma)


def verify_key(public_key: bytes) -> None:
    """Full validation of a key (section 5.4.5): a canonical point of the curve, not of small order.

    Raises InvalidInputError.
    """
    _decode_key(public_key)


# --- decoding ---


def _decode_key(public_key: bytes) -> _Multiples:
    return _decode_key_bytes(read_bytes(public_key, "VRF key", length=PUBLIC_KEY_BYTES))


@lru_cache(maxsize=_KEYS_CACHED_MAX)
def _decode_key_bytes(public_key: bytes) -> _Multiples:
    return _decode_large_order_point(public_key, "VRF key")


def _decode_proof(proof: bytes) -> tuple[_Multiples, bytes, bytes]:
    """Gamma, c and s (section 5.4.4)."""
    read_bytes(proof, "VRF proof", length=PROOF_BYTES)
    gamma = _decode_large_order_point(proof[:POINT_BYTES], "VRF proof's point")
    s = proof[-SCALAR_BYTES:]
    if not 0 < int.from_bytes(s, "little") < _GROUP_ORDER:
        raise InvalidInputError("VRF proof's scalar is out of range", expected="0 < s < L")
    return gamma, proof[POINT_BYTES:-SCALAR_BYTES], s


def _decode_large_order_point(data: bytes, what: str) -> _Multiples:
    multiples = _decode_point(data)
    if multiples is None:
        raise InvalidInputError(f"{what} is not a canonical point of edwards25519")
    if multiples[3] == _IDENTITY:
        raise InvalidInputError(f"{what} has a small order")
    return multiples


def _decode_point(data: bytes) -> _Multiples | None:
    """None unless `data` (32 B) encodes a point of the curve with y < p (RFC 8032 section 5.1.3).

    libsodium's addition refuses what is off the curve, but not y >= p. Nor does it refuse "-0" as
    x; those two points have a small order, for which every caller refuses them.
    """
    if int.from_bytes(data, "little") & (2**255 - 1) >= _FIELD_PRIME:
        return None
    try:
        double = sodium.crypto_core_ed25519_add(data, data)
    except nacl.exceptions.RuntimeError:
        return None
    quadruple = sodium.crypto_core_ed25519_add(double, double)
    return data, double, quadruple, sodium.crypto_core_ed25519_add(quadruple, quadruple)


# --- the parts of sections 5.2 and 5.4 ---


def _hash_to_curve(public_key: bytes, alpha: bytes) -> bytes:
    """Try and increment (section 5.4.1.1): a point of the prime-order subgroup, two tries on
    average. That all 256 fail has probability 2^-256."""
    for counter in range(_COUNTER_MAX + 1):
        parts = (_HASH_TO_CURVE, public_key, alpha, bytes([counter]), _END)
        multiples = _decode_point(hashlib.sha512(b"".join(parts)).digest()[:POINT_BYTES])
        if multiples is not None and multiples[3] != _IDENTITY:
            return multiples[3]
    raise InvalidInputError("VRF input hashes to no point")


def _compute_challenge(*points: bytes) -> bytes:
    """Section 5.4.3, over the key, H, Gamma, U, V."""
    parts = (_CHALLENGE, *points, _END)
    return hashlib.sha512(b"".join(parts)).digest()[:CHALLENGE_BYTES]


def _compute_output(gamma: _Multiples) -> bytes:
    return hashlib.sha512(_OUTPUT + gamma[3] + _END).digest()


def _multiply(factor: int, point: _Multiples) -> bytes:
    """factor * P, exactly, for a P of any order but a small one; factor < 2^128 is public."""
    result = _IDENTITY
    if factor >> 3:
        scalar = (factor >> 3).to_bytes(SCALAR_BYTES, "little")
        result = sodium.crypto_scalarmult_ed25519_noclamp(scalar, point[3])
    for bit in range(3):
        if factor >> bit & 1:
            result = sodium.crypto_core_ed25519_add(result, point[bit])
    return result


def _clamp(scalar: bytes) -> bytes:
    """RFC 8032 section 5.1.5, step 2."""
    return bytes([scalar[0] & 0xF8, *scalar[1:31], scalar[31] & 0x7F | 0x40])
