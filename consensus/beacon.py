"""The beacon: a chain of seeds, one a height, that nobody can choose (docs/adr/0009-beacon.md).

    seed_1     = H("beacon-genesis", genesis hash)
    output_H   = ECVRF output of the proposer of block H over alpha(seed_H, H)
    seed_{H+1} = H("beacon", seed_H | output_H)

`seed_H` picks the leaders of height H (`consensus.leader`); block H carries the proof of
`output_H`. The view is not part of alpha: a proposer has one output a height, however many views
it leads.
"""

from __future__ import annotations

from consensus.vrf import OUTPUT_BYTES
from ledger.codec import HASH_BYTES, encode, hash_tagged
from ledger.errors import UsageError
from ledger.state import state_key

SEED_BYTES = HASH_BYTES
BEACON_KEY = state_key("beacon", b"seed")
"""Row of the seed of the next height, 32 B: after block H it holds `seed_{H+1}`."""

_ALPHA_PREFIX = b"zynk/beacon-alpha/1\0"


def genesis_seed(genesis_hash: bytes) -> bytes:
    """The seed (32 B) of height 1."""
    _check_length(genesis_hash, HASH_BYTES, "genesis hash")
    return hash_tagged("beacon-genesis", genesis_hash)


def next_seed(seed: bytes, vrf_output: bytes) -> bytes:
    """The seed (32 B) of the height after one with `seed`, whose block has `vrf_output` (64 B)."""
    _check_length(seed, SEED_BYTES, "seed")
    _check_length(vrf_output, OUTPUT_BYTES, "VRF output")
    return hash_tagged("beacon", seed + vrf_output)


def vrf_alpha(seed: bytes, height: int) -> bytes:
    """What the proposer of `height` proves: "zynk/beacon-alpha/1" 00 encode([seed, height])."""
    _check_length(seed, SEED_BYTES, "seed")
    return _ALPHA_PREFIX + encode([seed, height])


def _check_length(data: bytes, length: int, what: str) -> None:
    if len(data) != length:
        raise UsageError(f"bad {what}", expected=f"{length} B", got=f"{len(data)} B")
