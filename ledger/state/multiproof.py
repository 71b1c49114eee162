"""State multiproofs: what many keys hold under one root, each node of the tree shown once.

A verifier needs this and nothing else (standard library only, but for the error). The tree is that
of `ledger.state.proof`. The proof is a walk along the keys asked for, from the root, the left side
(bit 0) before the right; each step says what the subtree there is:

    00                     empty
    01                     one leaf, of the one key asked for in it that has a value
    02 key 32 | vhash 32   one leaf, of a key that was not asked for; vhash = sha256(value)
    03                     both sides have keys asked for: the left one follows, then the right
    04                     one side has keys asked for and follows; the other is empty
    05 hash 32             one side has keys asked for and follows; the other has this hash, not 0

For k keys it is shorter than k single proofs by about k * log2(k) hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from ledger.errors import InvalidInputError, UsageError
from ledger.state.proof import DEPTH_MAX, EMPTY, KIND_EMPTY, KIND_INCLUSION

KEYS_MAX = 1024
MULTIPROOF_BYTES_MAX = 4 * 1024 * 1024
_EMPTY, _LEAF, _OTHER, _BOTH, _ONE, _ONE_BESIDE = range(6)


class KeyPath(NamedTuple):
    """Where the path of a key ends. `other` is key 32 | vhash 32 of another key's leaf there, or
    nothing; siblings top to bottom, empty ones included."""

    tree_key: bytes
    kind: int
    other: bytes
    siblings: Sequence[bytes]


class _Keyed(Protocol):
    @property
    def tree_key(self) -> bytes: ...


class _Asked(NamedTuple):
    tree_key: bytes
    value_hash: bytes | None


def verify_state_multiproof(root: bytes, rows: Mapping[bytes, bytes | None], proof: bytes) -> None:
    """Check that under `root` each raw key of `rows` has its value, or (None) has none.

    Raises InvalidInputError if the proof is malformed, shows something else, or leads elsewhere.
    """
    if not 1 <= len(rows) <= KEYS_MAX:
        raise InvalidInputError("wrong number of keys", expected=f"1..{KEYS_MAX}")
    if len(root) != 32 or len(proof) > MULTIPROOF_BYTES_MAX:
        raise InvalidInputError("state root or multiproof has a wrong length")
    asked = sorted(
        _Asked(sha256(key).digest(), None if value is None else sha256(value).digest())
        for key, value in rows.items()
    )
    walk = _Walk(proof)
    found = walk.hash_of(asked, 0)
    if walk.at != len(proof):
        raise InvalidInputError("state multiproof has trailing bytes")
    if found != root:
        raise InvalidInputError(
            "state multiproof leads to another root", expected=root.hex(), got=found.hex()
        )


class _Walk:
    """Reads a proof from front to back. Depth, and with it the call stack, is bounded by 257."""

    def __init__(self, proof: bytes) -> None:
        self._proof = proof
        self.at = 0

    def _take(self, count: int) -> bytes:
        part = self._proof[self.at : self.at + count]
        if len(part) != count:
            raise InvalidInputError("state multiproof has missing bytes")
        self.at += count
        return part

    def hash_of(self, asked: Sequence[_Asked], depth: int) -> bytes:
        """The hash of the subtree at `depth` that all of `asked` lead to. Raises
        InvalidInputError."""
        step = self._take(1)[0]
        if step <= _OTHER:
            return self._end(step, asked, depth)
        if step > _ONE_BESIDE or depth >= DEPTH_MAX:
            raise InvalidInputError("state multiproof is malformed", got=f"step {step} at {depth}")
        middle = _split(asked, depth)
        if (step == _BOTH) is not (0 < middle < len(asked)):
            raise InvalidInputError("state multiproof does not follow the keys")
        if step == _BOTH:
            left = self.hash_of(asked[:middle], depth + 1)
            return _node(left, self.hash_of(asked[middle:], depth + 1))
        beside = EMPTY if step == _ONE else self._take(32)
        if step == _ONE_BESIDE and beside == EMPTY:
            raise InvalidInputError("state multiproof spells out an empty side")
        own = self.hash_of(asked, depth + 1)
        return _node(beside, own) if middle == 0 else _node(own, beside)

    def _end(self, step: int, asked: Sequence[_Asked], depth: int) -> bytes:
        present = [item for item in asked if item.value_hash is not None]
        if len(present) != (step == _LEAF):
            raise InvalidInputError("state multiproof shows other keys than those with a value")
        if step == _EMPTY:
            return EMPTY
        if step == _LEAF:
            key, value_hash = present[0]
            assert value_hash is not None
            return sha256(b"\0" + key + value_hash).digest()
        leaf = self._take(64)
        other = int.from_bytes(leaf[:32], "big")
        if any(item.tree_key == leaf[:32] for item in asked):
            raise InvalidInputError("state multiproof of absence names the key itself")
        if (other ^ int.from_bytes(asked[0].tree_key, "big")) >> (DEPTH_MAX - depth):
            raise InvalidInputError("state multiproof names a key that is not on the path")
        return sha256(b"\0" + leaf).digest()


def encode_multiproof(paths: Sequence[KeyPath]) -> bytes:
    """The proof of keys whose paths are known, in any order. UsageError for a key given twice."""
    ordered = sorted(paths)
    keys = {path.tree_key for path in ordered}
    if not 1 <= len(ordered) <= KEYS_MAX or len(keys) != len(ordered):
        raise UsageError("multiproof needs different keys", expected=f"1..{KEYS_MAX}")
    parts: list[bytes] = []
    _add_steps(ordered, 0, parts)
    return b"".join(parts)


def _add_steps(paths: Sequence[KeyPath], depth: int, parts: list[bytes]) -> None:
    ended = next((path for path in paths if len(path.siblings) == depth), None)
    if ended is not None:  # then they all end here
        if ended.kind == KIND_EMPTY:
            parts.append(bytes((_EMPTY,)))
        elif any(path.kind == KIND_INCLUSION for path in paths):
            parts.append(bytes((_LEAF,)))
        else:
            parts += (bytes((_OTHER,)), ended.other)
        return
    middle = _split(paths, depth)
    if 0 < middle < len(paths):
        parts.append(bytes((_BOTH,)))
        _add_steps(paths[:middle], depth + 1, parts)
        _add_steps(paths[middle:], depth + 1, parts)
        return
    beside = paths[0].siblings[depth]
    parts += (bytes((_ONE,)),) if beside == EMPTY else (bytes((_ONE_BESIDE,)), beside)
    _add_steps(paths, depth + 1, parts)


def _split(items: Sequence[_Keyed], depth: int) -> int:
    """The index of the first key, of ascending ones that share `depth` bits, with the next bit."""
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    return next((i for i, item in enumerate(items) if item.tree_key[byte] & mask), len(items))


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
