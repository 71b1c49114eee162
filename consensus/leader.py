"""Who leads a view: a stake-weighted pick, a pure function of (seed, view, weights, set).

    point_n = int(H("leader", seed | view u64 BE | n u64 BE)) mod total power of the weights
                                                    (for n = 0 without the last part)

The leader is the validator whose interval of the running sum of powers (in set order) holds
point_0; if that one is not in the set that votes on the height, then of point_1, and so on. The
hash has 256 bits and total power is below 2^61, so the bias of the remainder is below 2^-195: no
rejection sampling is needed.

The weights are an older set (`ledger.validator_rows`), so that nobody can tune a stake against a
seed that it knows; the seed is the beacon's (docs/adr/0009-beacon.md).
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

from ledger.codec import hash_tagged
from ledger.validator_set import ValidatorSet

DRAWS_MAX = 64
"""After so many draws of leavers (a set that is all but new) the voting set gives the weights."""


@lru_cache(maxsize=4096)
def _pick_point(seed: bytes, view: int, draw: int) -> int:
    place = seed + view.to_bytes(8, "big") + (draw.to_bytes(8, "big") if draw else b"")
    return int.from_bytes(hash_tagged("leader", place), "big")


@lru_cache(maxsize=16)
def _running_powers(validators: ValidatorSet) -> list[int]:
    return list(accumulate(v.power for v in validators.validators))


def _pick(point: int, weights: ValidatorSet) -> bytes:
    index = bisect_right(_running_powers(weights), point % weights.total_power)
    return weights.validators[index].public_key


def leader(seed: bytes, view: int, weights: ValidatorSet, validators: ValidatorSet) -> bytes:
    """Public key (32 B) of the leader of `view` (1 ..) for a height with `seed` (32 B) on which
    `validators` vote."""
    for draw in range(DRAWS_MAX):
        key = _pick(_pick_point(seed, view, draw), weights)
        if key in validators.index_by_key:
            return key
    return _pick(_pick_point(seed, view, DRAWS_MAX), validators)
