"""The pools: uzynk that is no account's. All balances and pools add up to `supply`.

    pool | fees        of the block that runs, until it ends
    pool | bonded      the tokens of all validators
    pool | unbonding   the entries of the unbonding queue, before slashes
    pool | rewards     given out and not withdrawn, fractions included
    pool | deposits    of open proposals

Each is a u64. Only `mint` and `burn` change the supply.
"""

from __future__ import annotations

import msgpack

from ledger import codec
from ledger.accounts import FEES_KEY, POOL_PREFIX, StateReader
from ledger.execution import StateView
from ledger.genesis_state import SUPPLY_KEY

BONDED_KEY = POOL_PREFIX + b"bonded"
UNBONDING_KEY = POOL_PREFIX + b"unbonding"
REWARDS_KEY = POOL_PREFIX + b"rewards"
DEPOSITS_KEY = POOL_PREFIX + b"deposits"
POOL_KEYS = (FEES_KEY, BONDED_KEY, UNBONDING_KEY, REWARDS_KEY, DEPOSITS_KEY)


def read_amount(state: StateReader, key: bytes) -> int:
    """A pool's uzynk, or the supply."""
    row = state.get(key)
    if row is None:
        return 0
    amount: int = msgpack.unpackb(row)  # this ledger wrote it
    return amount


def add_to_pool(state: StateView, key: bytes, amount: int) -> None:
    """Put `amount` into a pool; below 0 takes it out. Supply stays: it moves, or the caller did."""
    if not amount:
        return
    total = read_amount(state, key) + amount
    assert 0 <= total <= codec.U64_MAX, "pools are parts of the supply"
    state.put(key, codec.encode(total))


def burn(state: StateView, key: bytes, amount: int) -> None:
    """Destroy `amount` of a pool."""
    add_to_pool(state, key, -amount)
    add_to_pool(state, SUPPLY_KEY, -amount)


def mint(state: StateView, key: bytes, amount: int) -> int:
    """Make `amount` new uzynk in a pool, or as much as the supply can still grow; how much it
    was."""
    made = min(amount, codec.U64_MAX - read_amount(state, SUPPLY_KEY))
    add_to_pool(state, SUPPLY_KEY, made)
    add_to_pool(state, key, made)
    return made
