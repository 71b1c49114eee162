"""The unbonding queue: stake that has left a validator and still answers for it (adr/0008).

One queue of all, in order of undelegating. At the beginning of a block the entries at its head
whose time has come are paid, at most `RELEASED_MAX` of them; one that is due sooner than the one
before it (`unbonding_ms` was made shorter) waits for that one. What an entry owes for slashes is
known only then, so that a slash walks no queue: it is recorded once, in the validator's record.

Nobody can make others wait by filling the queue: a block takes in at most `ADDED_MAX` entries and
lets out twice as many, and one account has at most `ENTRIES_MAX` with one validator.
"""

from __future__ import annotations

import msgpack

from ledger import codec
from ledger.accounts import StateReader, credit
from ledger.execution import BlockContext, StateView, TxFailure
from ledger.params import PPM
from ledger.pools import UNBONDING_KEY, add_to_pool, burn
from ledger.staking_events import tell
from ledger.staking_rows import (
    HOPS_MAX,
    QUEUE_KEY,
    UnbondingEntry,
    decode_open_entries,
    open_entries_key,
    read_unbonding,
    read_validator,
    unbonding_key,
)

ENTRIES_MAX = HOPS_MAX + 1
"""Of one account with one validator: a whole stake, with all its hops, can leave at once."""
ADDED_MAX = 160
"""Entries a block takes in."""
RELEASED_MAX = 2 * ADDED_MAX
"""Entries a block lets out; one event an account, which leaves room for those of other modules
(`ledger.tx_result.EVENTS_MAX`)."""


def read_queue(state: StateReader) -> tuple[int, int]:
    """(head, tail): the entries head .. tail - 1 wait."""
    row = state.get(QUEUE_KEY)
    if row is None:
        return 0, 0
    head, tail = msgpack.unpackb(row)  # this ledger wrote it
    return head, tail


def read_open_entries(state: StateReader, operator: bytes, delegator: bytes) -> int:
    """How many entries of `delegator` wait that left `operator`."""
    row = state.get(open_entries_key(operator, delegator))
    return 0 if row is None else decode_open_entries(row)


def append_unbonding(state: StateView, entry: UnbondingEntry) -> int:
    """Add an entry of the block that runs, and its amount; its seq. Raises TxFailure
    `stake/too-many-entries` or `stake/queue-full`."""
    head, tail = read_queue(state)
    first = tail - ADDED_MAX
    earlier = read_unbonding(state, first) if first >= head else None
    if earlier is not None and earlier.height == entry.height:
        raise TxFailure(
            "stake/queue-full",
            "the block takes in no more unbonding entries",
            expected=f"at most {ADDED_MAX}; the next block may",
        )
    count = read_open_entries(state, entry.operator, entry.delegator)
    if count >= ENTRIES_MAX:
        raise TxFailure(
            "stake/too-many-entries",
            "too much of that stake is unbonding already",
            expected=f"at most {ENTRIES_MAX} entries",
        )
    _write_open_entries(state, entry.operator, entry.delegator, count + 1)
    state.put(unbonding_key(tail), entry.encode())
    state.put(QUEUE_KEY, codec.encode([head, tail + 1]))
    add_to_pool(state, UNBONDING_KEY, entry.amount)
    return tail


def _write_open_entries(state: StateView, operator: bytes, delegator: bytes, count: int) -> None:
    key = open_entries_key(operator, delegator)
    if count:
        state.put(key, codec.encode(count))
    else:
        state.delete(key)


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
    """Pay the entries at the head that are due, each account once."""
    state = context.state
    head, tail = read_queue(state)
    seq = head
    paid: dict[bytes, tuple[int, int]] = {}
    while seq < min(tail, head + RELEASED_MAX):
        entry = read_unbonding(state, seq)
        assert entry is not None, "the queue has no gap"
        if entry.due_ms > context.time_ms:
            break
        amount = compute_released(state, entry)
        before, burned = paid.get(entry.delegator, (0, 0))
        paid[entry.delegator] = before + amount, burned + entry.amount - amount
        count = read_open_entries(state, entry.operator, entry.delegator)
        _write_open_entries(state, entry.operator, entry.delegator, count - 1)
        state.delete(unbonding_key(seq))
        seq += 1
    if seq == head:
        return
    state.put(QUEUE_KEY, codec.encode([seq, tail]))
    burn(state, UNBONDING_KEY, sum(burned for _, burned in paid.values()))
    add_to_pool(state, UNBONDING_KEY, -sum(amount for amount, _ in paid.values()))
    for account, (amount, burned) in paid.items():
        credit(context, account, amount)
        tell(context, "stake.released", account=account, amount=amount, burned=burned)
