"""Each signature is checked once.

Votes reach a node several times: as the vote, in certificates, in justifies, in the next block.
`SignatureCache` wraps the real check and remembers what was valid, so a certificate made of known
votes costs dictionary look-ups. Only valid triples are remembered, in two generations of bounded
size, so that a flood pushes out old entries and never grows memory.
"""

from __future__ import annotations

from ledger.certificate import SignatureCheck

GENERATION_ENTRIES_MAX = 8192


class SignatureCache:
    """A `SignatureCheck` that remembers valid (key, message, signature) triples."""

    def __init__(self, is_valid: SignatureCheck) -> None:
        self._is_valid = is_valid
        self._young: dict[tuple[bytes, bytes], bytes] = {}
        self._old: dict[tuple[bytes, bytes], bytes] = {}

    def knows(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True if the triple is remembered as valid."""
        slot = (public_key, signature)
        return self._young.get(slot) == message or self._old.get(slot) == message

    def __call__(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        if self.knows(public_key, message, signature):
            return True
        if not self._is_valid(public_key, message, signature):
            return False
        self.remember(public_key, message, signature)
        return True

    def remember(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """Note a triple that is known to be valid, such as one just signed."""
        if len(self._young) >= GENERATION_ENTRIES_MAX:
            self._old, self._young = self._young, {}
        self._young[public_key, signature] = message
