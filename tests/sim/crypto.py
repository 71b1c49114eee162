"""The signatures of a simulation: a stand-in that costs one hash, or real Ed25519.

The stand-in is as unforgeable as the simulated actors are honest about it: a signature is a keyed
hash under the PUBLIC key, so checking is one hash. Adversaries in this folder sign with their own
keys only, which is what unforgeability would leave them.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol

from ledger.ed25519 import KeyPair, is_valid_signature


def sign_with(key: bytes) -> Callable[[bytes], bytes]:
    """The stand-in's signer."""

    def sign(message: bytes) -> bytes:
        return blake2b(message, key=key, digest_size=64).digest()

    return sign


def is_valid(key: bytes, message: bytes, signature: bytes) -> bool:
    """The stand-in's check."""
    return blake2b(message, key=key, digest_size=64).digest() == signature


class Scheme(Protocol):
    """Makes the keys of a simulation, signs, and checks."""

    def public_key(self, index: int) -> bytes: ...

    def signer(self, public_key: bytes) -> Callable[[bytes], bytes]: ...

    def is_valid(self, key: bytes, message: bytes, signature: bytes) -> bool: ...


class StandIn:
    """Keyed hashes."""

    def public_key(self, index: int) -> bytes:
        return bytes([index + 1]) * 32

    def signer(self, public_key: bytes) -> Callable[[bytes], bytes]:
        return sign_with(public_key)

    def is_valid(self, key: bytes, message: bytes, signature: bytes) -> bool:
        return is_valid(key, message, signature)


class Ed25519:
    """The signatures of the chain."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, KeyPair] = {}

    def public_key(self, index: int) -> bytes:
        pair = KeyPair.from_seed(bytes([index + 1]) * 32)
        self._pairs[pair.public_key] = pair
        return pair.public_key

    def signer(self, public_key: bytes) -> Callable[[bytes], bytes]:
        return self._pairs[public_key].sign

    def is_valid(self, key: bytes, message: bytes, signature: bytes) -> bool:
        return is_valid_signature(key, message, signature)
