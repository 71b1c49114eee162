"""A signature scheme for simulations: as unforgeable as the simulated actors are honest about it.

A signature is a keyed hash under the PUBLIC key, so checking is one hash. Adversaries in this
folder sign with their own keys only, which is what unforgeability would leave them.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b


def sign_with(key: bytes) -> Callable[[bytes], bytes]:
    """The signer of a simulated validator."""

    def sign(message: bytes) -> bytes:
        return blake2b(message, key=key, digest_size=64).digest()

    return sign


def is_valid(key: bytes, message: bytes, signature: bytes) -> bool:
    """The matching check."""
    return blake2b(message, key=key, digest_size=64).digest() == signature
