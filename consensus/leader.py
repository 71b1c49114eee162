"""Who leads a view: a stake-weighted pick that is a pure function of (seed, view, set).

    pick = int(H("leader", seed || view u64 big-endian)) mod total_power

and the leader is the validator whose interval of the running sum of powers (in set order) holds
`pick`. The hash has 256 bits and total power is below 2^61, so the bias of the remainder is below
2^-195: no rejection sampling is needed.

The seed of height H is the parent block's hash. A proposer can grind it by trying bodies; the
beacon (a VRF output chained into the seed) replaces it behind this same function.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

from ledger.codec import hash_tagged
from ledger.validator_set import ValidatorSet


@lru_cache(maxsize=4096)
def _pick_point(seed: bytes, view: int) -> int:
    return int.from_bytes(hash_tagged("leader", seed + view.to_bytes(8, "big")), "big")


@lru_cache(maxsize=16)
def _running_powers(validators: ValidatorSet) -> list[int]:
    return list(accumulate(v.power for v in validators.validators))


def leader(seed: bytes, view: int, validators: ValidatorSet) -> bytes:
    """Public key (32 B) of the leader of `view` (1 ..) for a height with `seed` (32 B)."""
    point = _pick_point(seed, view) % validators.total_power
    return validators.validators[bisect_right(_running_powers(validators), point)].public_key
