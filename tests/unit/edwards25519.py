"""edwards25519 in plain integers, to make signatures that no signer makes. Slow, for tests only.

RFC 8032 section 5.1; affine points (x, y).
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    """The group law."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def multiply(scalar: int, point: Point) -> Point:
    """Double and add."""
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def negate(point: Point) -> Point:
    return -point[0] % P, point[1]


def encode(point: Point) -> bytes:
    """32 bytes: y little-endian, the top bit is the lowest bit of x."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def point_with_y(y: int) -> Point | None:
    """The point with even x and this y, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (x if x % 2 == 0 else P - x), y


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    """h = SHA-512(R || A || M) mod L."""
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def _base() -> Point:
    point = point_with_y(4 * pow(5, -1, P) % P)
    assert point is not None
    return point


def _torsion() -> tuple[Point, ...]:
    """All 8 points of the small subgroup: the multiples of one of order 8."""
    for y in range(2, 100):
        point = point_with_y(y)
        if point is None:
            continue
        small = multiply(L, point)
        if multiply(4, small) != NEUTRAL:
            return tuple(multiply(k, small) for k in range(8))
    raise AssertionError("a quarter of all points give one")


BASE = _base()
TORSION = _torsion()
"""TORSION[k] = k * T, T of order 8; TORSION[0] is the neutral element."""


def small_encodings() -> list[bytes]:
    """The 14 encodings of the 8 small-order points: canonical ones first, then y + p or a sign bit
    on x = 0 (the set that ZIP 215 enumerates)."""
    found = [encode(point) for point in TORSION]
    for x, y in TORSION:
        for value in (y, y + P):
            for sign in (0, 1):
                fits = value < 2**255 and (x == 0 or x & 1 == sign)
                data = (value | sign << 255).to_bytes(32, "little") if fits else found[0]
                if data not in found:
                    found.append(data)
    return found
