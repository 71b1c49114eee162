"""The unbonding queue: stake that has left a validator and still answers for it (adr/0008).

One queue of all, in order of undelegating. At the beginning of a block the entries at its head
whose time has come are paid, at most 256 of them; one that is due sooner than the one before it
(`unbonding_ms` was made shorter) waits for that one. What an entry owes for slashes is known only
then, so that a slash walks no queue: it is recorded once, in the validator's record.
"""

from __future__ import annotations

import msgpack

from ledger import codec
from ledger.accounts import StateReader, credit
from ledger.execution import BlockContext, StateView
from ledger.params import PPM
from ledger.pools import UNBONDING_KEY, add_to_pool, burn
from ledger.staking_events import tell
from ledger.staking_rows import (
    QUEUE_KEY,
    UnbondingEntry,
    read_unbonding,
    read_validator,
    unbonding_key,
)

RELEASED_MAX = 256
"""Entries a block."""


def read_queue(state: StateReader) -> tuple[int, int]:
    """(head, tail): the entries head .. tail - 1 wait."""
    row = state.get(QUEUE_KEY)
    if row is None:
        return 0, 0
    head, tail = msgpack.unpackb(row)  # this ledger wrote it
    return head, tail


def append_unbonding(state: StateView, entry: UnbondingEntry) -> int:
    """Add an entry and its amount; its seq."""
    head, tail = read_queue(state)
    state.put(unbonding_key(tail), entry.encode())
    state.put(QUEUE_KEY, codec.encode([head, tail + 1]))
    add_to_pool(state, UNBONDING_KEY, entry.amount)
    return tail


def compute_released(state: StateReader, entry: UnbondingEntry) -> int:
    """What is left of an entry after the slashes of the validators it answers for."""
    left = _after_slash(state, entry.amount, entry.operator, entry.height, entry.due_ms)
    if entry.via:
        left = _after_slash(state, left, entry.via, entry.via_height, entry.via_until_ms)
    return left


def _after_slash(
    state: StateReader, amount: int, operator: bytes, height: int, until_ms: int
) -> int:
    record = read_validator(state, operator)
    if record is None or record.slash is None or not record.slash.reaches(height, until_ms):
        return amount
    return amount - amount * record.slash.ppm // PPM


def release_due(context: BlockContext) -> None:
    """Pay the entries at the head that are due."""
    state = context.state
    head, tail = read_queue(state)
    seq = head
    while seq < min(tail, head + RELEASED_MAX):
        entry = read_unbonding(state, seq)
        assert entry is not None, "the queue has no gap"
        if entry.due_ms > context.time_ms:
            break
        _release(context, entry)
        state.delete(unbonding_key(seq))
        seq += 1
    if seq > head:
        state.put(QUEUE_KEY, codec.encode([seq, tail]))


def _release(context: BlockContext, entry: UnbondingEntry) -> None:
    state = context.state
    amount = compute_released(state, entry)
    burned = entry.amount - amount
    burn(state, UNBONDING_KEY, burned)
    add_to_pool(state, UNBONDING_KEY, -amount)
    credit(context, entry.delegator, amount)
    tell(
        context,
        "stake.released",
        account=entry.delegator,
        amount=amount,
        burned=burned,
        operator=entry.operator,
    )
