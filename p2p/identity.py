"""The libp2p peer id of a seed, without loading libp2p.

Source: libp2p specs, "peer-ids": a key of at most 42 bytes is its own identity multihash
(code 0x00) over the protobuf `PublicKey { Type = Ed25519 (1), Data = 32 bytes }`.
"""

from __future__ import annotations

import base58
from nacl.signing import SigningKey

from ledger.errors import InvalidInputError, UsageError
from p2p.config import SEED_BYTES, PeerId

_PUBLIC_KEY_PREFIX = bytes([0x08, 0x01, 0x12, 0x20])
_MULTIHASH_PREFIX = bytes([0x00, len(_PUBLIC_KEY_PREFIX) + 32])
PEER_ID_CHARS_MAX = 64
_MULTIHASH_STARTS = {38: _MULTIHASH_PREFIX, 34: bytes([0x12, 0x20])}  # identity; sha2-256


def peer_id_of_seed(seed: bytes) -> PeerId:
    """Base58 peer id of the Ed25519 key made from a 32-byte seed."""
    if len(seed) != SEED_BYTES:
        raise UsageError("identity seed has a wrong length", expected="32 B", got=f"{len(seed)} B")
    public_key = bytes(SigningKey(seed).verify_key)
    text: str = base58.b58encode(_MULTIHASH_PREFIX + _PUBLIC_KEY_PREFIX + public_key).decode()
    return text


def check_peer_id(text: str) -> PeerId:
    """Return `text` if it is the canonical base58 of a peer id, else raise InvalidInputError."""
    if not 0 < len(text) <= PEER_ID_CHARS_MAX:
        raise InvalidInputError("peer id is malformed", expected="1..64 characters", got=text[:80])
    try:
        raw: bytes = base58.b58decode(text)
    except ValueError as error:
        raise InvalidInputError("peer id is not base58", got=text) from error
    start = _MULTIHASH_STARTS.get(len(raw))
    if start is None or raw[:2] != start or base58.b58encode(raw).decode() != text:
        raise InvalidInputError("peer id is malformed", expected="a multihash", got=text)
    return text


def split_multiaddr(multiaddr: str) -> tuple[PeerId, str]:
    """Split `/ip4/1.2.3.4/tcp/26656/p2p/<id>` into the peer id and the address before it.

    Raises InvalidInputError if there is no peer id at the end or no TCP address before it.
    """
    address, separator, peer = multiaddr.rpartition("/p2p/")
    parts = address.split("/")
    if (
        not separator
        or len(multiaddr) > 512
        or len(parts) != 5
        or parts[0] != ""
        or parts[1] not in ("ip4", "ip6", "dns", "dns4", "dns6")
        or not parts[2]
        or parts[3] != "tcp"
        or not (parts[4].isascii() and parts[4].isdigit() and len(parts[4]) <= 5)
        or not 0 < int(parts[4]) <= 65535
    ):
        raise InvalidInputError(
            "peer address is malformed",
            expected="/ip4|ip6|dns/<host>/tcp/<port>/p2p/<peer id>",
            got=multiaddr[:120],
        )
    return check_peer_id(peer), address
