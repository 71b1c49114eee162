"""Chain parameters: what every node must agree on, held in the state tree.

Row: `state_key("params", b"")` -> canonical array of the fields of `ChainParams` in order.
Amounts are uzynk (u64), times are milliseconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Protocol

from ledger import codec
from ledger.block import BLOCK_TXS_MAX
from ledger.errors import InvalidInputError
from ledger.state import state_key
from ledger.validator_set import VALIDATORS_MAX

PARAMS_BYTES_MAX = 512
# A block's frame (header, a certificate of 256 signatures, framing) has to fit beside its txs.
BLOCK_TX_BYTES_CEILING = 3 * 512 * 1024
DAY_MS = 24 * 3600 * 1000

PPM = 1_000_000
# What may be asked for, in uzynk: a fee that nobody could pay would stop the chain for good.
FEE_BASE_MAX = 1_000_000
FEE_PER_BYTE_MAX = 10_000
SELF_BOND_MAX = 10**12
GOV_DEPOSIT_MAX = 10**12
DOWNTIME_WINDOW_MAX = 2**14

PARAMS_KEY = state_key("params", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainParams:
    """The parameters, with the defaults of a new network.

    `fee_base` and `fee_per_byte`: the least fee of a tx, in uzynk.
    `block_bytes_max`: sum of the wire bytes of a block's txs. `block_weight_max`: sum of the
    weights of its messages (1 = a transfer). `block_txs_max`: number of txs.
    `tx_valid_blocks_max`: how far past the current height a tx may stay valid.
    `time_ahead_max_ms`: how far a fresh block's time may be ahead of a voter's clock.
    `dispute_window_ms`, `did_ops_per_block_max`, `did_ops_per_day_max`: rules of the DID method
    (docs/protocol.md); the two limits are of one DID.
    `audit_leaves_max`: leaves an anchored batch may hold.
    Proof of stake (docs/adr/0008-proof-of-stake.md); ppm are millionths:
    `validators_max`: active validators. `self_bond_min`: below it a validator is not active.
    `commission_change_ppm_max`: how far a commission may move within a day.
    `unbonding_ms`: how long undelegated stake stays liable. `evidence_window_ms`: how old an
    offence may be; less than `unbonding_ms`. `slash_double_sign_ppm`, `slash_downtime_ppm`: what is
    burned.
    `downtime_window`: heights looked back on; a validator that missed more than
    `downtime_missed_max` of them is jailed for `downtime_jail_ms`.
    `vrf_key_delay`: heights until a new VRF key counts.
    `inflation_ppm`: new uzynk a year per million of the supply, falling by `inflation_decay_ppm` a
    year to `inflation_ppm_min`.
    `gov_deposit`, `gov_voting_ms`, `gov_quorum_ppm`, `gov_threshold_ppm`: changing parameters.

    A genesis may choose anything within the bounds below; a vote is held to narrower ones
    (`ledger.params_vote`).
    """

    fee_base: int = 100
    fee_per_byte: int = 1
    block_bytes_max: int = 1024 * 1024
    block_weight_max: int = 8192
    block_txs_max: int = 2048
    tx_valid_blocks_max: int = 20_000
    time_ahead_max_ms: int = 500
    dispute_window_ms: int = 72 * 3600 * 1000
    did_ops_per_block_max: int = 1
    did_ops_per_day_max: int = 32
    audit_leaves_max: int = 1024
    validators_max: int = 100
    self_bond_min: int = 1_000_000
    commission_change_ppm_max: int = 10_000
    unbonding_ms: int = 21 * DAY_MS
    evidence_window_ms: int = 20 * DAY_MS
    slash_double_sign_ppm: int = 50_000
    slash_downtime_ppm: int = 100
    downtime_window: int = 10_000
    downtime_missed_max: int = 5_000
    downtime_jail_ms: int = 600_000
    vrf_key_delay: int = 1000
    inflation_ppm: int = 70_000
    inflation_decay_ppm: int = 100_000
    inflation_ppm_min: int = 10_000
    gov_deposit: int = 1_000_000_000
    gov_voting_ms: int = 7 * DAY_MS
    gov_quorum_ppm: int = 400_000
    gov_threshold_ppm: int = 500_000

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInputError(
                    f"chain parameter {name} is out of range",
                    expected=f"{low}..{high}",
                    got=repr(value)[:40],
                )
        for less, more in (
            ("evidence_window_ms", "unbonding_ms"),
            ("downtime_missed_max", "downtime_window"),
        ):
            if getattr(self, less) >= getattr(self, more):
                raise InvalidInputError(
                    f"chain parameter {less} is out of range",
                    expected=f"less than {more}, {getattr(self, more)}",
                    got=str(getattr(self, less)),
                )

        if 2 * self.downtime_missed_max < self.downtime_window:  # one slow hour would empty the set
            raise InvalidInputError(
                "chain parameter downtime_missed_max is out of range",
                expected=f"at least half of downtime_window, {self.downtime_window}",
                got=str(self.downtime_missed_max),
            )

    @property
    def trusting_period_ms(self) -> int:
        """How long a finalization counts after its block's time: two thirds of the unbonding time,
        so that whoever signed it is still liable when a contradiction comes to light."""
        return self.unbonding_ms * 2 // 3

    def compute_fee_min(self, tx_bytes: int) -> int:
        """The least fee, in uzynk, of a tx of `tx_bytes` wire bytes."""
        return self.fee_base + self.fee_per_byte * tx_bytes

    def encode(self) -> bytes:
        return codec.encode([getattr(self, name) for name in PARAM_NAMES])

    @classmethod
    def decode(cls, data: bytes) -> ChainParams:
        """Inverse of `encode`. Raises InvalidInputError."""
        values = codec.read_array(
            codec.decode(data, bytes_max=PARAMS_BYTES_MAX), len(PARAM_NAMES), "chain parameters"
        )
        return cls(**dict(zip(PARAM_NAMES, values, strict=True)))


PARAM_NAMES = tuple(f.name for f in fields(ChainParams))

_BOUNDS: tuple[tuple[str, int, int], ...] = (
    ("fee_base", 0, FEE_BASE_MAX),
    ("fee_per_byte", 0, FEE_PER_BYTE_MAX),
    ("block_bytes_max", 64 * 1024, BLOCK_TX_BYTES_CEILING),
    ("block_weight_max", 1, 2**32),
    ("block_txs_max", 1, BLOCK_TXS_MAX),
    ("tx_valid_blocks_max", 1, 2**32),
    ("time_ahead_max_ms", 1, 60_000),
    ("dispute_window_ms", 1, 365 * DAY_MS),
    ("did_ops_per_block_max", 1, 1024),
    ("did_ops_per_day_max", 1, 2**32),
    ("audit_leaves_max", 1, 2**20),
    ("validators_max", 1, VALIDATORS_MAX),
    ("self_bond_min", 1, SELF_BOND_MAX),
    ("commission_change_ppm_max", 0, PPM),
    ("unbonding_ms", 1, 365 * DAY_MS),
    ("evidence_window_ms", 1, 365 * DAY_MS),
    ("slash_double_sign_ppm", 0, PPM),
    ("slash_downtime_ppm", 0, PPM),
    ("downtime_window", 20, DOWNTIME_WINDOW_MAX),
    ("downtime_missed_max", 1, DOWNTIME_WINDOW_MAX),
    ("downtime_jail_ms", 1, 365 * DAY_MS),
    ("vrf_key_delay", 2, 2**20),
    ("inflation_ppm", 0, PPM),
    ("inflation_decay_ppm", 0, PPM),
    ("inflation_ppm_min", 0, PPM),
    ("gov_deposit", 0, GOV_DEPOSIT_MAX),
    ("gov_voting_ms", 1, 365 * DAY_MS),
    ("gov_quorum_ppm", 0, PPM),
    ("gov_threshold_ppm", 1, PPM - 1),
)


class _Reader(Protocol):
    def get(self, key: bytes) -> bytes | None: ...


def read_params(state: _Reader) -> ChainParams:
    """The chain's parameters; the defaults of a new network if the state has none."""
    row = state.get(PARAMS_KEY)
    return ChainParams() if row is None else _decode_params(row)


@lru_cache(maxsize=8)
def _decode_params(data: bytes) -> ChainParams:
    return ChainParams.decode(data)
