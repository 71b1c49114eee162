"""The validator sets in the state: who voted last, who votes next, who votes after that.

Rows of the state tree, each a `ValidatorSet`, after block H:

    validators | last            voted on H
    validators | set             votes on H + 1
    validators | next            votes on H + 2
    validators | leaders         its powers weigh the pick of leaders of H + 1
    validators | leaders-next    will do so after the next multiple of 64

A change made in H therefore counts from H + 2, and header H + 1 can name both its own set and the
next one before it is executed. The weights that pick leaders follow at least 64 heights later
(docs/adr/0009-beacon.md): at each multiple of 64 the weights become `leaders-next`, and that
becomes the set in force. Rows are written only when they change.

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
LEADERS_KEY = state_key("validators", b"leaders")
LEADERS_NEXT_KEY = state_key("validators", b"leaders-next")
LEADERS_EPOCH_HEIGHTS = 64
SET_BY_HASH = b"v/s/"
HANDOFF_BY_HEIGHT = b"v/h/"


class _Holder(Protocol):
    """A block that is being executed."""

    height: int
    state: StateView


def genesis_validator_rows(validators: ValidatorSet) -> dict[bytes, bytes]:
    """State rows at height 0: the first set votes on heights 1 and 2."""
    keys = (LAST_KEY, SET_KEY, NEXT_KEY, LEADERS_KEY, LEADERS_NEXT_KEY)
    return dict.fromkeys(keys, validators.encoded)


def move_up_validator_sets(run: _Holder) -> None:
    """Execution of a height is about to end: each set comes one height nearer."""
    _copy(run.state, SET_KEY, LAST_KEY)
    _copy(run.state, NEXT_KEY, SET_KEY)
    if run.height % LEADERS_EPOCH_HEIGHTS == 0:
        _copy(run.state, LEADERS_NEXT_KEY, LEADERS_KEY)
        _copy(run.state, SET_KEY, LEADERS_NEXT_KEY)


def _copy(state: StateView, source: bytes, target: bytes) -> None:
    row = state.get(source)
    if row is not None and row != state.get(target):
        state.put(target, row)


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
