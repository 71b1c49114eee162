"""Makes the edge cases that Ed25519 verifiers disagree on, one of each published class.

Classes 0-11: "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020), table 5: A and R of
small, mixed or prime order; S out of range; encodings that are not canonical, hashed as they are
or reduced. The keys and messages are our own; what the classes mean is the paper's.
Class "zip215": all 196 pairs (A, R) of the 14 small-order encodings with S = 0 (ZIP 215, "Test
vectors").

Frozen in tests/vectors/ed25519_edge_cases.json with libsodium's verdicts; `make_cases` gives the
same bytes again. Run this module to print them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypedDict

from ledger.codec import hash_tagged
from ledger.ed25519 import is_valid_signature
from tests.unit import edwards25519 as ed

TRIES_MAX = 1000


class Case(TypedDict):
    """Hex strings, and whether the node takes the signature."""

    name: str
    public_key: str
    message: str
    signature: str
    valid: bool


def make_cases() -> list[Case]:
    """All cases, in order."""
    found = [
        _case(f"class {number}: {text}", *make()) for number, (text, make) in enumerate(_CLASSES)
    ]
    small = ed.small_encodings()
    found += [
        _case(f"zip215: A {i}, R {j}", a, b"Zcash", r + bytes(32))
        for i, a in enumerate(small)
        for j, r in enumerate(small)
    ]
    return found


_Triple = tuple[bytes, bytes, bytes]  # public key, message, signature

_A_SECRET = int.from_bytes(hash_tagged("edge-case", b"secret"), "little") % ed.L
_R_SECRET = int.from_bytes(hash_tagged("edge-case", b"nonce"), "little") % ed.L
_A_PRIME = ed.multiply(_A_SECRET, ed.BASE)
_R_PRIME = ed.multiply(_R_SECRET, ed.BASE)
_T = ed.TORSION


def _search(
    a: tuple[int, int],
    r: tuple[int, int],
    is_wanted: Callable[[int], bool],
    *,
    secret: int = 0,
    nonce: int = 0,
    a_sent: bytes | None = None,
    r_sent: bytes | None = None,
    hash_sent: bool = False,
) -> _Triple:
    """Try messages until the challenge h is wanted; S = nonce + h * secret.

    `a_sent` and `r_sent` are non-canonical encodings to send; `hash_sent`: h is of those.
    """
    a_bytes, r_bytes = ed.encode(a), ed.encode(r)
    for number in range(TRIES_MAX):
        message = hash_tagged("edge-case", number.to_bytes(4, "big"))
        if hash_sent:
            h = ed.challenge(r_sent or r_bytes, a_sent or a_bytes, message)
        else:
            h = ed.challenge(r_bytes, a_bytes, message)
        if is_wanted(h):
            s = (nonce + h * secret) % ed.L
            return a_sent or a_bytes, message, (r_sent or r_bytes) + s.to_bytes(32, "little")
    raise AssertionError("an eighth of all messages fit")


# With A = aB + iT and R = rB + jT the equation without cofactor holds if j + h * i = 0 mod 8.


def _torsions_cancel(i: int, j: int) -> Callable[[int], bool]:
    return lambda h: (j + h * i) % 8 == 0


def _torsions_differ(i: int, j: int) -> Callable[[int], bool]:
    return lambda h: (j + h * i) % 8 != 0


def _small_a_and_r() -> _Triple:
    return _search(_T[1], _T[3], _torsions_cancel(1, 3))


def _small_a() -> _Triple:
    r = ed.add(_R_PRIME, _T[3])
    return _search(_T[1], r, _torsions_cancel(1, 3), nonce=_R_SECRET)


def _small_r() -> _Triple:
    a = ed.add(_A_PRIME, _T[1])
    return _search(a, _T[3], _torsions_cancel(1, 3), secret=_A_SECRET)


def _mixed(wanted: Callable[[int], bool], j: int) -> _Triple:
    a, r = ed.add(_A_PRIME, _T[1]), ed.add(_R_PRIME, _T[j])
    return _search(a, r, wanted, secret=_A_SECRET, nonce=_R_SECRET)


def _with_high_s(extra: int) -> _Triple:
    a, message, signature = _search(
        _A_PRIME, _R_PRIME, lambda _h: True, secret=_A_SECRET, nonce=_R_SECRET
    )
    s = int.from_bytes(signature[32:], "little") + extra
    return a, message, signature[:32] + s.to_bytes(32, "little")


# y = -1 has x = 0; with the sign bit set its encoding is not canonical.
_MINUS_ONE = (0, ed.P - 1)
_MINUS_ONE_SENT = (ed.P - 1 | 1 << 255).to_bytes(32, "little")


def _odd_r(*, hash_sent: bool) -> _Triple:
    """A = aB + T4 (order 2), R = (0, -1) = T4."""
    a = ed.add(_A_PRIME, _T[4])
    return _search(
        a,
        _MINUS_ONE,
        _torsions_cancel(4, 4),
        secret=_A_SECRET,
        r_sent=_MINUS_ONE_SENT,
        hash_sent=hash_sent,
    )


def _odd_a(*, hash_sent: bool) -> _Triple:
    r = ed.add(_R_PRIME, _T[4])
    return _search(
        _MINUS_ONE,
        r,
        _torsions_cancel(4, 4),
        nonce=_R_SECRET,
        a_sent=_MINUS_ONE_SENT,
        hash_sent=hash_sent,
    )


_CLASSES: tuple[tuple[str, Callable[[], _Triple]], ...] = (
    ("A and R of small order, S = 0", _small_a_and_r),
    ("A of small order", _small_a),
    ("R of small order", _small_r),
    ("A and R of mixed order, equation holds", lambda: _mixed(_torsions_cancel(1, 3), 3)),
    ("A and R of mixed order, holds with cofactor only", lambda: _mixed(_torsions_differ(1, 3), 3)),
    ("A of mixed order, holds with cofactor only", lambda: _mixed(_torsions_differ(1, 0), 0)),
    ("S + L", lambda: _with_high_s(ed.L)),
    ("S + 15 L, beyond the top bits that lax verifiers test", lambda: _with_high_s(15 * ed.L)),
    ("R not canonical, hashed reduced", lambda: _odd_r(hash_sent=False)),
    ("R not canonical, hashed as sent", lambda: _odd_r(hash_sent=True)),
    ("A not canonical, hashed reduced", lambda: _odd_a(hash_sent=False)),
    ("A not canonical, hashed as sent", lambda: _odd_a(hash_sent=True)),
)


def _case(name: str, public_key: bytes, message: bytes, signature: bytes) -> Case:
    return Case(
        name=name,
        public_key=public_key.hex(),
        message=message.hex(),
        signature=signature.hex(),
        valid=is_valid_signature(public_key, message, signature),
    )


if __name__ == "__main__":
    print(json.dumps(make_cases(), indent=0))
