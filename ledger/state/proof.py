"""State proofs: what a verifier needs, and nothing else (standard library only, but for the error).

The tree (docs/protocol.md, "State tree"), over 256-bit keys `sha256(domain | 00 | key)`:
    leaf  = sha256(00 | key 32 | sha256(value) 32)
    node  = sha256(01 | left 32 | right 32)
    empty = 32 zero bytes
A subtree with one leaf is that leaf's hash, so the root says nothing of how the tree is stored.

Proof bytes:
    depth u16 big-endian, 0 .. 256: how many bits of the key lead to where its path ends
    kind u8: 0 the path ends in an empty subtree, 1 in the key's leaf, 2 in another key's leaf
    if kind 2: other key 32 | sha256(other value) 32; the other key differs from the key, and
        shares its first `depth` bits
    bitmap ceil(depth / 8): bit d (most significant first) is 1 if the sibling at depth d + 1 is
        not empty; the bits past `depth` are 0
    siblings 32 each, those that are not empty, bottom to top
"""

from __future__ import annotations

from hashlib import sha256

from ledger.errors import InvalidInputError

EMPTY = bytes(32)
DEPTH_MAX = 256
KIND_EMPTY = 0
KIND_INCLUSION = 1
KIND_OTHER = 2
PROOF_BYTES_MAX = 2 + 1 + 64 + DEPTH_MAX // 8 + DEPTH_MAX * 32
DOMAIN_BYTES_MAX = 32
KEY_BYTES_MAX = 512


def state_key(domain: str, key: bytes) -> bytes:
    """The raw row key of `key` in `domain`: domain, a zero byte, the key's bytes.

    The tree's key is sha256 of that. Raises InvalidInputError unless the domain is 1 to 32
    printable ASCII characters and the key at most 512 bytes.
    """
    if not (0 < len(domain) <= DOMAIN_BYTES_MAX and domain.isascii() and domain.isprintable()):
        raise InvalidInputError("state domain is malformed", expected="ASCII, 1 to 32 characters")
    if len(key) > KEY_BYTES_MAX:
        raise InvalidInputError(
            "state key is too long", expected=f"at most {KEY_BYTES_MAX} B", got=f"{len(key)} B"
        )
    return domain.encode() + b"\0" + key


def verify_state_proof(root: bytes, key: bytes, value: bytes | None, proof: bytes) -> None:
    """Check that under `root` the raw `key` has `value`, or (None) that it has no value.

    Raises InvalidInputError if the proof is malformed, of the other kind, or leads elsewhere.
    """
    if len(root) != 32:
        raise InvalidInputError("state root has a wrong length", expected="32 B")
    if not 3 <= len(proof) <= PROOF_BYTES_MAX:
        raise InvalidInputError("state proof has a wrong length", got=f"{len(proof)} B")
    tree_key = sha256(key).digest()
    depth = int.from_bytes(proof[:2], "big")
    kind = proof[2]
    if depth > DEPTH_MAX or kind > KIND_OTHER:
        raise InvalidInputError("state proof is malformed", got=f"depth {depth}, kind {kind}")
    if (kind == KIND_INCLUSION) != (value is not None):
        raise InvalidInputError("state proof is of the other kind", got=f"kind {kind}")

    at = 3
    if kind == KIND_OTHER:
        current = _other_leaf(tree_key, proof[at : at + 64], depth)
        at += 64
    elif value is not None:
        current = sha256(b"\0" + tree_key + sha256(value).digest()).digest()
    else:
        current = EMPTY

    bitmap_bytes = (depth + 7) // 8
    bitmap = int.from_bytes(proof[at : at + bitmap_bytes], "big")
    unused = bitmap_bytes * 8 - depth
    if len(proof) != at + bitmap_bytes + 32 * bitmap.bit_count() or bitmap % (1 << unused):
        raise InvalidInputError("state proof has missing or trailing bytes or bits")
    bitmap >>= unused
    at += bitmap_bytes

    path = int.from_bytes(tree_key, "big") >> (256 - depth)
    for level in range(depth):  # bottom to top: bit 0 of both is the deepest
        sibling = EMPTY
        if bitmap >> level & 1:
            sibling = proof[at : at + 32]
            at += 32
            if sibling == EMPTY:
                raise InvalidInputError("state proof spells out an empty sibling")
        pair = sibling + current if path >> level & 1 else current + sibling
        current = sha256(b"\1" + pair).digest()
    if current != root:
        raise InvalidInputError(
            "state proof leads to another root", expected=root.hex(), got=current.hex()
        )


def _other_leaf(tree_key: bytes, other: bytes, depth: int) -> bytes:
    """The hash of the other key's leaf, once it is sure that it stands in the way."""
    if len(other) != 64:
        raise InvalidInputError("state proof has missing bytes")
    if other[:32] == tree_key:
        raise InvalidInputError("state proof of absence names the key itself")
    difference = int.from_bytes(tree_key, "big") ^ int.from_bytes(other[:32], "big")
    if difference >> (256 - depth):
        raise InvalidInputError("state proof names a key that is not on the path")
    return sha256(b"\0" + other).digest()


def encode_proof(kind: int, other: bytes, siblings: list[bytes]) -> bytes:
    """The bytes of a proof; `siblings` top to bottom, empty ones included, one a depth."""
    depth = len(siblings)
    bitmap = 0
    for sibling in siblings:
        bitmap = bitmap << 1 | (sibling != EMPTY)
    bitmap_bytes = (depth + 7) // 8
    return b"".join(
        (
            depth.to_bytes(2, "big"),
            bytes((kind,)),
            other,
            (bitmap << (bitmap_bytes * 8 - depth)).to_bytes(bitmap_bytes, "big"),
            *[sibling for sibling in reversed(siblings) if sibling != EMPTY],
        )
    )
