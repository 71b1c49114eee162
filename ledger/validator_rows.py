"""The validator sets in the state: who voted last, who votes next, who votes after that.

Rows of the state tree, each a `ValidatorSet`, after block H:

    validators | last    voted on H
    validators | set     votes on H + 1
    validators | next    votes on H + 2

A change made in H therefore counts from H + 2, and header H + 1 can name both its own set and the
next one before it is executed. Rows are written only when they change.

Rows outside the tree, for whoever verifies from an older set: `v/s/` hash 32 -> set, and
`v/h/` height8 -> hash of the set that header `height` hands over to, where that is another one.
"""

from __future__ import annotations

from typing import Protocol

from ledger.block import Header
from ledger.errors import InvalidInputError
from ledger.execution import StateView
from ledger.state import state_key
from ledger.store import Batch, Reader
from ledger.validator_set import ValidatorSet

LAST_KEY = state_key("validators", b"last")
SET_KEY = state_key("validators", b"set")
NEXT_KEY = state_key("validators", b"next")
SET_BY_HASH = b"v/s/"
HANDOFF_BY_HEIGHT = b"v/h/"


class _Holder(Protocol):
    """Whatever has a state to move."""

    state: StateView


def genesis_validator_rows(validators: ValidatorSet) -> dict[bytes, bytes]:
    """State rows at height 0: the first set votes on heights 1 and 2."""
    return dict.fromkeys((LAST_KEY, SET_KEY, NEXT_KEY), validators.encoded)


def move_up_validator_sets(run: _Holder) -> None:
    """Execution of a height is about to end: each set comes one height nearer."""
    state = run.state
    last, current, following = state.get(LAST_KEY), state.get(SET_KEY), state.get(NEXT_KEY)
    if current is not None and current != last:
        state.put(LAST_KEY, current)
    if following is not None and following != current:
        state.put(SET_KEY, following)


def add_validator_rows(batch: Batch, header: Header, following: ValidatorSet) -> None:
    """Keep what a verifier needs of a final header; `following` votes on the height after it."""
    if header.next_validators_hash == header.validators_hash:
        return
    batch.put(SET_BY_HASH + following.hash, following.encoded)
    batch.put(HANDOFF_BY_HEIGHT + header.height.to_bytes(8, "big"), following.hash)


def read_validator_set(store: Reader, set_hash: bytes) -> ValidatorSet:
    """A set that voted here, by its hash. Raises InvalidInputError if the store has none."""
    row = store.get(SET_BY_HASH + set_hash)
    if row is None:
        raise InvalidInputError("no such validator set", got=set_hash.hex())
    return ValidatorSet.decode(row)


def read_handoff_heights(store: Reader, first: int, last: int, count_max: int) -> list[int]:
    """The heights in first..last whose headers hand over to another set, ascending, at most
    `count_max` of them."""
    found: list[int] = []
    for key, _ in store.iterate(prefix=HANDOFF_BY_HEIGHT, start=_handoff_key(first)):
        height = int.from_bytes(key[len(HANDOFF_BY_HEIGHT) :], "big")
        if height > last or len(found) == count_max:
            break
        found.append(height)
    return found


def read_last_handoff_height(store: Reader, last: int) -> int:
    """The highest height up to `last` whose header hands over to another set; 0 if none does."""
    for key, _ in store.iterate(prefix=HANDOFF_BY_HEIGHT, start=_handoff_key(last), reverse=True):
        return int.from_bytes(key[len(HANDOFF_BY_HEIGHT) :], "big")
    return 0


def _handoff_key(height: int) -> bytes:
    return HANDOFF_BY_HEIGHT + height.to_bytes(8, "big")
