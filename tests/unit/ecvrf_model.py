"""ECVRF-EDWARDS25519-SHA512-TAI from the text of RFC 9381, in plain integers. Slow, for tests only.

It shares nothing with `consensus.vrf` but SHA-512, and takes every point of the curve, so that the
two can be compared on points of mixed order too.
"""

from __future__ import annotations

import hashlib

from tests.unit import edwards25519 as ed

SUITE = b"\x03"


def decode_point(data: bytes) -> ed.Point | None:
    """RFC 8032 section 5.1.3."""
    number = int.from_bytes(data, "little")
    y, sign = number % 2**255, number >> 255
    point = ed.point_with_y(y) if y < ed.P else None
    if point is None or (point[0] == 0 and sign == 1):
        return None
    return ed.negate(point) if sign == 1 else point


def secret_scalar(seed: bytes) -> int:
    """RFC 8032 section 5.1.5: the scalar x of a seed."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return number & ((1 << 254) - 8) | 1 << 254


def encode_to_curve(salt: bytes, alpha: bytes) -> ed.Point:
    """Section 5.4.1.1."""
    for counter in range(256):
        text = SUITE + b"\x01" + salt + alpha + bytes([counter]) + b"\x00"
        point = decode_point(hashlib.sha512(text).digest()[:32])
        if point is not None:
            point = ed.multiply(8, point)
            if point != ed.NEUTRAL:
                return point
    raise AssertionError("no point in 256 tries")


def challenge(*points: ed.Point) -> int:
    """Section 5.4.3."""
    text = SUITE + b"\x02" + b"".join(ed.encode(point) for point in points) + b"\x00"
    return int.from_bytes(hashlib.sha512(text).digest()[:16], "little")


def proof_of(gamma: ed.Point, c: int, s: int) -> bytes:
    return ed.encode(gamma) + c.to_bytes(16, "little") + s.to_bytes(32, "little")


def prove(seed: bytes, alpha: bytes) -> bytes:
    """Section 5.1."""
    x = secret_scalar(seed)
    key = ed.multiply(x, ed.BASE)
    h = encode_to_curve(ed.encode(key), alpha)
    gamma = ed.multiply(x, h)
    nonce_key = hashlib.sha512(seed).digest()[32:]
    k = int.from_bytes(hashlib.sha512(nonce_key + ed.encode(h)).digest(), "little") % ed.L
    c = challenge(key, h, gamma, ed.multiply(k, ed.BASE), ed.multiply(k, h))
    return proof_of(gamma, c, (k + c * x) % ed.L)


def output(proof: bytes) -> bytes:
    """Section 5.2."""
    gamma = decode_point(proof[:32])
    assert gamma is not None
    text = SUITE + b"\x03" + ed.encode(ed.multiply(8, gamma)) + b"\x00"
    return hashlib.sha512(text).digest()


def verify(public_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
    """Section 5.3, keys validated. None stands for "INVALID"."""
    key, gamma = decode_point(public_key), decode_point(proof[:32])
    c, s = int.from_bytes(proof[32:48], "little"), int.from_bytes(proof[48:], "little")
    if len(proof) != 80 or key is None or gamma is None or s >= ed.L:
        return None
    if ed.multiply(8, key) == ed.NEUTRAL:
        return None
    h = encode_to_curve(public_key, alpha)
    u = ed.add(ed.multiply(s, ed.BASE), ed.negate(ed.multiply(c, key)))
    v = ed.add(ed.multiply(s, h), ed.negate(ed.multiply(c, gamma)))
    return output(proof) if challenge(key, h, gamma, u, v) == c else None
