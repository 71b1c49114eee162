"""A key's seed as 24 words, and back (BIP-39, English list).

The words ARE the 32-byte seed: BIP-39's entropy of 256 bits with its 8-bit checksum. No passphrase
and no derivation path: what a key file holds can be written on paper and typed in again.
"""

from __future__ import annotations

from mnemonic import Mnemonic

from ledger.errors import InvalidInputError

WORDS_COUNT = 24
WORDS_TEXT_MAX = 4096

_LIST = Mnemonic("english")


def encode_words(seed: bytes) -> str:
    """24 words, separated by spaces, of a 32-byte seed."""
    return _LIST.to_mnemonic(seed)


def decode_words(text: str) -> bytes:
    """Inverse of `encode_words`; case and white space are free. Raises InvalidInputError, without
    the words in it."""
    words = text.lower().split()
    if len(words) != WORDS_COUNT:
        raise InvalidInputError(
            "wrong number of words", expected=str(WORDS_COUNT), got=str(len(words))
        )
    known = set(_LIST.wordlist)
    for number, word in enumerate(words, start=1):
        if word not in known:
            raise InvalidInputError(
                f"word {number} is not in the list", expected="a word of the BIP-39 English list"
            )
    try:
        return bytes(_LIST.to_entropy(words))
    except (ValueError, LookupError) as error:
        raise InvalidInputError(
            "the words' checksum is wrong",
            expected="the 24 words in their order",
            got="a word mistaken for another, or two exchanged",
        ) from error
