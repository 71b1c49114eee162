"""What a vote may make of the chain's parameters (adr/0008).

`ChainParams` says what a chain can run with, and a genesis may choose any of it: a network for
tests has minutes where others have weeks. A vote is held to less. It can neither make the chain
unpayable or idle, nor take away what its safety and the way back rest on: fees and deposits that
can be paid, room for a proposal in a block, a quorum and a threshold that can be reached, a price
for signing twice, evidence that outlives the trust of light clients.

Only parameters that a proposal names are held to these bounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ledger.block import BLOCK_TXS_MAX
from ledger.errors import InvalidInputError
from ledger.params import (
    BLOCK_TX_BYTES_CEILING,
    DAY_MS,
    DOWNTIME_WINDOW_MAX,
    FEE_BASE_MAX,
    FEE_PER_BYTE_MAX,
    GOV_DEPOSIT_MAX,
    PPM,
    SELF_BOND_MAX,
    ChainParams,
)
from ledger.validator_set import VALIDATORS_MAX

HOUR_MS = 3600 * 1000

VOTE_BOUNDS: dict[str, tuple[int, int]] = {
    "fee_base": (1, FEE_BASE_MAX),
    "fee_per_byte": (0, FEE_PER_BYTE_MAX),
    "block_bytes_max": (64 * 1024, BLOCK_TX_BYTES_CEILING),  # a tx of the largest size fits
    "block_weight_max": (1024, 65_536),  # a proposal weighs 64
    "block_txs_max": (64, BLOCK_TXS_MAX),
    "tx_valid_blocks_max": (100, 1_000_000),
    "time_ahead_max_ms": (100, 10_000),  # a light client allows 10 s
    "dispute_window_ms": (HOUR_MS, 365 * DAY_MS),
    "did_ops_per_block_max": (1, 32),  # a block has room for other DIDs
    "did_ops_per_day_max": (1, 10_000),
    "audit_leaves_max": (1, 2**20),
    "validators_max": (4, VALIDATORS_MAX),  # with fewer, one fault is too many
    "self_bond_min": (1, SELF_BOND_MAX),
    "commission_change_ppm_max": (0, PPM),
    "unbonding_ms": (15 * DAY_MS, 365 * DAY_MS),  # above the trusting period of light clients, 14 d
    "evidence_window_ms": (DAY_MS, 365 * DAY_MS),
    "slash_double_sign_ppm": (10_000, PPM),
    "slash_downtime_ppm": (0, 50_000),
    "downtime_window": (100, DOWNTIME_WINDOW_MAX),
    "downtime_missed_max": (5, DOWNTIME_WINDOW_MAX),
    "downtime_jail_ms": (60_000, 30 * DAY_MS),
    "vrf_key_delay": (64, 100_000),  # no key is picked for seeds that are near
    "inflation_ppm": (0, 200_000),
    "inflation_decay_ppm": (0, PPM),
    "inflation_ppm_min": (0, 200_000),
    "gov_deposit": (1_000_000, GOV_DEPOSIT_MAX),  # 16 slots must not be free to fill
    "gov_voting_ms": (HOUR_MS, 30 * DAY_MS),
    "gov_quorum_ppm": (100_000, 800_000),
    "gov_threshold_ppm": (500_000, 900_000),
}


def check_voted_values(values: Iterable[tuple[str, int]]) -> None:
    """Hold each value to its bounds, whatever the others are. Raises InvalidInputError."""
    for name, value in values:
        low, high = VOTE_BOUNDS[name]
        if not low <= value <= high:
            raise InvalidInputError(
                f"a vote can not set chain parameter {name} to that",
                expected=f"{low}..{high}",
                got=str(value),
            )


def check_voted_together(after: ChainParams, changed: Collection[str]) -> None:
    """What the parameters must be to each other after a vote on those in `changed`. Raises
    InvalidInputError."""
    if {"unbonding_ms", "evidence_window_ms"} & set(changed) and (
        after.evidence_window_ms < after.trusting_period_ms
    ):
        raise InvalidInputError(
            "a vote can not make evidence_window_ms shorter than the trusting period",
            expected=f"at least 2/3 of unbonding_ms, {after.trusting_period_ms}",
            got=str(after.evidence_window_ms),
        )
