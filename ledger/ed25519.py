"""Ed25519 by libsodium alone.

Verifiers disagree on edge cases (non-canonical S, small-order and mixed-order points; see
"Taming the many EdDSAs", 2020), and two nodes that disagree on one signature fork. So there is one
verifier, and its verdicts on the published edge cases are frozen in tests/vectors.

Keys are 32-byte public keys and 32-byte seeds (RFC 8032 section 5.1.5); signatures are 64 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import nacl.bindings
import nacl.exceptions

from ledger.errors import UsageError

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A signing key. `secret` is libsodium's 64-byte form (seed || public key)."""

    public_key: bytes
    secret: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """Derive the pair of a 32-byte seed. Raises UsageError for another length."""
        if len(seed) != SEED_BYTES:
            raise UsageError("bad seed", expected="32 bytes", got=f"{len(seed)} bytes")
        public_key, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        return cls(public_key, secret)

    @property
    def seed(self) -> bytes:
        return self.secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`."""
        return nacl.bindings.crypto_sign(message, self.secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:  # never print the secret
        return f"KeyPair({self.public_key.hex()})"


def is_valid_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` (64 B) of `message` verifies under `public_key` (32 B).

    Any malformed input is False; nothing is raised. Releases the GIL.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except (nacl.exceptions.BadSignatureError, ValueError):
        return False
    return True
