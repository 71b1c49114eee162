"""Who earns what, without a loop over delegators (adr/0008).

    distribution | empty    [index 32 B, power, dust 32 B, mint rest, start_ms]

Two accumulators, one above the other, in 2^-64 uzynk ("scaled"):

    distribution.index   rewards of a unit of power in the set in force, ever
    validator.index      rewards of a share of that validator, ever

Each block adds its fees and the inflation since its parent to `dust`, and divides what is there by
the power of the set that voted on it. A validator is settled, that is, brought up to the
distribution's index, when its power in force, its shares or its commission change, or somebody asks
for rewards; a delegation when it is touched. Nothing is lost: what a division leaves is in some
`dust`, so that at any time, scaled,

    pool/rewards = dust + over validators (commission owed + dust + power * (index - settled index))
                        + over delegations (shares * (validator's index - paid index))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import msgpack

from ledger import codec
from ledger.accounts import FEES_KEY, StateReader
from ledger.execution import BlockContext, StateView
from ledger.genesis_state import SUPPLY_KEY
from ledger.params import DAY_MS, PPM, ChainParams
from ledger.pools import REWARDS_KEY, add_to_pool, mint, read_amount
from ledger.staking_record import SCALE_BITS, ValidatorRecord, encode_wide, read_wide
from ledger.state import state_key
from ledger.validator_set import TOTAL_POWER_MAX

DISTRIBUTION_KEY = state_key("distribution", b"")
DISTRIBUTION_BYTES_MAX = 128
YEAR_MS = 365 * DAY_MS
MINT_DIVISOR = PPM * YEAR_MS
YEARS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """`power`: of the set that votes on the next height. `mint_rest`: what the last minting left
    over, in uzynk / MINT_DIVISOR. `start_ms`: the time of block 1, when inflation
    began; 0 before it."""

    index: int = 0
    power: int
    dust: int = 0
    mint_rest: int = 0
    start_ms: int = 0

    def encode(self) -> bytes:
        index, dust = encode_wide(self.index), encode_wide(self.dust)
        return codec.encode([index, self.power, dust, self.mint_rest, self.start_ms])

    @classmethod
    def decode(cls, data: bytes) -> Distribution:
        """Inverse of `encode`. Raises InvalidInputError."""
        index, power, dust, rest, start_ms = codec.read_array(
            codec.decode(data, bytes_max=DISTRIBUTION_BYTES_MAX), 5, "distribution"
        )
        return cls(
            index=read_wide(index, "distribution index"),
            power=codec.read_int(power, "distribution power", TOTAL_POWER_MAX),
            dust=read_wide(dust, "distribution dust"),
            mint_rest=codec.read_int(rest, "rest of minting", MINT_DIVISOR - 1),
            start_ms=codec.read_int(start_ms, "start of inflation"),
        )


def read_distribution(state: StateReader) -> Distribution:
    """The accumulator of all validators; genesis wrote it."""
    row = state.get(DISTRIBUTION_KEY)
    assert row is not None, "a chain with staking has the row from genesis on"
    index, power, dust, rest, start_ms = msgpack.unpackb(row)  # this ledger wrote it
    return Distribution(
        index=int.from_bytes(index, "big"),
        power=power,
        dust=int.from_bytes(dust, "big"),
        mint_rest=rest,
        start_ms=start_ms,
    )


def write_distribution(state: StateView, distribution: Distribution) -> None:
    """Put it if it differs."""
    row = distribution.encode()
    if row != state.get(DISTRIBUTION_KEY):
        state.put(DISTRIBUTION_KEY, row)


def mint_inflation(context: BlockContext) -> None:
    """New uzynk for the time since the parent, into `rewards`; it is given out with the fees.

    Nothing in block 1: nobody validated since the genesis time, which may be long ago or 0.
    """
    state = context.state
    before = read_distribution(state)
    if not before.start_ms:
        write_distribution(state, replace(before, start_ms=context.time_ms))
        return
    years = (context.parent_time_ms - before.start_ms) // YEAR_MS
    rate = compute_inflation_ppm(context.params, years)
    elapsed_ms = context.time_ms - context.parent_time_ms
    due = read_amount(state, SUPPLY_KEY) * rate * elapsed_ms + before.mint_rest
    amount, rest = divmod(due, MINT_DIVISOR)
    made = mint(state, REWARDS_KEY, amount)
    dust = before.dust + (made << SCALE_BITS)
    write_distribution(state, replace(before, dust=dust, mint_rest=rest))


@lru_cache(maxsize=16)
def compute_inflation_ppm(params: ChainParams, year: int) -> int:
    """New uzynk in `year` (0 is the first) for a million of supply."""
    rate = params.inflation_ppm
    for _ in range(min(year, YEARS_MAX)):
        rate = rate * (PPM - params.inflation_decay_ppm) // PPM
    return max(rate, params.inflation_ppm_min)


def distribute(context: BlockContext) -> Distribution:
    """Give out the block's fees and what is in `dust` to the set that voted on the block; not
    written yet."""
    state = context.state
    before = read_distribution(state)
    fees = read_amount(state, FEES_KEY)
    add_to_pool(state, FEES_KEY, -fees)
    add_to_pool(state, REWARDS_KEY, fees)
    per_power, dust = divmod(before.dust + (fees << SCALE_BITS), before.power)
    return replace(before, index=before.index + per_power, dust=dust)


def settle(
    record: ValidatorRecord, distribution: Distribution
) -> tuple[ValidatorRecord, Distribution]:
    """Bring a validator up to the distribution's index. Its commission is paid first; what a
    validator without shares earns goes back to all."""
    earned = record.power * (distribution.index - record.settled_index)
    if not earned and not record.dust:
        return replace(record, settled_index=distribution.index), distribution
    commission = (earned * record.commission_ppm // PPM) >> SCALE_BITS
    pot = record.dust + earned - (commission << SCALE_BITS)
    if record.shares:
        per_share, dust = divmod(pot, record.shares)
    else:
        per_share, dust = 0, 0
        distribution = replace(distribution, dust=distribution.dust + pot)
    settled = replace(
        record,
        settled_index=distribution.index,
        index=record.index + per_share,
        dust=dust,
        commission_owed=record.commission_owed + commission,
    )
    return settled, distribution


def settle_now(state: StateView, record: ValidatorRecord) -> ValidatorRecord:
    """`settle` in the middle of a block. The caller writes the record."""
    before = read_distribution(state)
    settled, after = settle(record, before)
    write_distribution(state, after)
    return settled
