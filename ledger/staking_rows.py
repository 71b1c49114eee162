"""The rows of proof of stake: validators, delegations, the unbonding queue (adr/0008).

    validator | operator                    ValidatorRecord (`ledger.staking_record`)
    validator-key | consensus key           [operator, first height, last height or nil]
    validators | candidates                 [[operator, consensus key, power], ...]
    validators | short                      the same, of who lacks nothing but self-bond
    delegation | operator delegator         Delegation
    unbonding-queue | empty                 [head, tail]: the entries head .. tail - 1 wait
    unbonding | seq u64 BE                  UnbondingEntry
    unbonding-open | operator delegator     how many of its entries wait, if any does

Each is a canonical array; `encode` and `decode` are inverses, `decode` raises InvalidInputError and
nothing else. Amounts are uzynk (u64), times are block times in ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ledger import codec
from ledger.accounts import ACCOUNT_ID_BYTES, StateReader
from ledger.errors import InvalidInputError
from ledger.staking_record import (
    KEY_BYTES,
    SlashEvent,
    ValidatorRecord,
    encode_wide,
    read_wide,
    tokens_of_shares,
    vrf_key_at,
)
from ledger.state import state_key
from ledger.validator_set import TOTAL_POWER_MAX

__all__ = [
    "Candidate",
    "Delegation",
    "Hop",
    "KeyOwner",
    "SlashEvent",
    "UnbondingEntry",
    "ValidatorRecord",
    "read_candidates",
    "read_consensus_key",
    "read_delegation",
    "read_unbonding",
    "read_validator",
    "tokens_of_shares",
    "vrf_key_at",
]

HOPS_MAX = 7
CANDIDATES_MAX = 512
DELEGATION_BYTES_MAX = 64 + HOPS_MAX * 64
UNBONDING_BYTES_MAX = 192
CANDIDATES_BYTES_MAX = CANDIDATES_MAX * 80 + 8
SMALL_ROW_BYTES_MAX = 64

CANDIDATES_KEY = state_key("validators", b"candidates")
SHORT_KEY = state_key("validators", b"short")
QUEUE_KEY = state_key("unbonding-queue", b"")
VALIDATOR_PREFIX = state_key("validator", b"")
VALIDATOR_KEY_PREFIX = state_key("validator-key", b"")
DELEGATION_PREFIX = state_key("delegation", b"")
UNBONDING_PREFIX = state_key("unbonding", b"")
OPEN_ENTRIES_PREFIX = state_key("unbonding-open", b"")


def validator_key(operator: bytes) -> bytes:
    """State key of a validator's record."""
    return VALIDATOR_PREFIX + operator


def consensus_key_key(key: bytes) -> bytes:
    """State key of the row that says whose a consensus key is."""
    return VALIDATOR_KEY_PREFIX + key


def delegation_key(operator: bytes, delegator: bytes) -> bytes:
    """State key of what `delegator` has delegated to the validator `operator`."""
    return DELEGATION_PREFIX + operator + delegator


def unbonding_key(seq: int) -> bytes:
    """State key of an entry of the unbonding queue."""
    return UNBONDING_PREFIX + seq.to_bytes(8, "big")


def open_entries_key(operator: bytes, delegator: bytes) -> bytes:
    """State key of the number of `delegator`'s unbonding entries that left `operator`."""
    return OPEN_ENTRIES_PREFIX + operator + delegator


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """`shares` of a delegation that came from validator `source` at `height` and answer for its
    offences until `until_ms`."""

    source: bytes
    height: int
    until_ms: int
    shares: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Shares of a validator; `index` is the validator's (scaled) up to which rewards were paid.
    `hops` are at most 7, oldest first, and hold no more than `shares` together."""

    shares: int
    index: int
    hops: tuple[Hop, ...] = ()

    @property
    def free_shares(self) -> int:
        """Those under no hop."""
        return self.shares - sum(hop.shares for hop in self.hops)

    def encode(self) -> bytes:
        hops: list[codec.Value] = [[h.source, h.height, h.until_ms, h.shares] for h in self.hops]
        return codec.encode([self.shares, encode_wide(self.index), hops])

    @classmethod
    def decode(cls, data: bytes) -> Delegation:
        """Inverse of `encode`. Raises InvalidInputError."""
        shares, index, hops = codec.read_array(
            codec.decode(data, bytes_max=DELEGATION_BYTES_MAX), 3, "delegation"
        )
        found = []
        for item in codec.read_list(hops, HOPS_MAX, "hops"):
            source, height, until_ms, moved = codec.read_array(item, 4, "hop")
            found.append(
                Hop(
                    source=codec.read_bytes(source, "hop source", length=ACCOUNT_ID_BYTES),
                    height=codec.read_int(height, "hop height"),
                    until_ms=codec.read_int(until_ms, "hop time"),
                    shares=codec.read_int(moved, "hop shares"),
                )
            )
        result = cls(
            shares=codec.read_int(shares, "delegation shares"),
            index=read_wide(index, "delegation index"),
            hops=tuple(found),
        )
        if result.free_shares < 0:
            raise InvalidInputError("hops hold more shares than their delegation")
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbondingEntry:
    """`amount` uzynk that left `operator` at `height` and go to `delegator` at `due_ms`, less what
    slashes took by then. Stake that had hopped answers for `via` too, which it left at
    `via_height`, until `via_until_ms` (empty, 0, 0: it had not)."""

    delegator: bytes
    operator: bytes
    amount: int
    height: int
    due_ms: int
    via: bytes = b""
    via_height: int = 0
    via_until_ms: int = 0

    def encode(self) -> bytes:
        via: codec.Value = [self.via, self.via_height, self.via_until_ms] if self.via else None
        return codec.encode(
            [self.delegator, self.operator, self.amount, self.height, self.due_ms, via]
        )

    @classmethod
    def decode(cls, data: bytes) -> UnbondingEntry:
        """Inverse of `encode`. Raises InvalidInputError."""
        delegator, operator, amount, height, due_ms, hop = codec.read_array(
            codec.decode(data, bytes_max=UNBONDING_BYTES_MAX), 6, "unbonding entry"
        )
        via, via_height, via_until_ms = b"", 0, 0
        if hop is not None:
            via, via_height, via_until_ms = codec.read_array(hop, 3, "hop of unbonding")
            codec.read_bytes(via, "hop source", length=ACCOUNT_ID_BYTES)
        return cls(
            delegator=codec.read_bytes(delegator, "delegator", length=ACCOUNT_ID_BYTES),
            operator=codec.read_bytes(operator, "operator", length=ACCOUNT_ID_BYTES),
            amount=codec.read_int(amount, "unbonding amount"),
            height=codec.read_int(height, "unbonding height"),
            due_ms=codec.read_int(due_ms, "unbonding time"),
            via=via,
            via_height=codec.read_int(via_height, "hop height"),
            via_until_ms=codec.read_int(via_until_ms, "hop time"),
        )


class Candidate(NamedTuple):
    """A validator that may be active."""

    operator: bytes
    consensus_key: bytes
    power: int


class KeyOwner(NamedTuple):
    """Whose a consensus key is or was, and the heights it may vote on (`last` None: no end)."""

    operator: bytes
    first: int
    last: int | None

    def may_vote_at(self, height: int) -> bool:
        return self.first <= height and (self.last is None or height <= self.last)


def read_validator(state: StateReader, operator: bytes) -> ValidatorRecord | None:
    """The validator of an operator account."""
    row = state.get(validator_key(operator))
    return None if row is None else ValidatorRecord.decode(row)


def read_delegation(state: StateReader, operator: bytes, delegator: bytes) -> Delegation | None:
    """What `delegator` has with the validator `operator`, as it was last touched."""
    row = state.get(delegation_key(operator, delegator))
    return None if row is None else Delegation.decode(row)


def read_unbonding(state: StateReader, seq: int) -> UnbondingEntry | None:
    """An entry of the queue."""
    row = state.get(unbonding_key(seq))
    return None if row is None else UnbondingEntry.decode(row)


def read_consensus_key(state: StateReader, key: bytes) -> KeyOwner | None:
    """Who holds or held a consensus key."""
    row = state.get(consensus_key_key(key))
    return None if row is None else decode_key_owner(row)


def read_candidates(state: StateReader, key: bytes = CANDIDATES_KEY) -> list[Candidate]:
    """All that may be active, best first; with `SHORT_KEY`, who lacks nothing but self-bond."""
    row = state.get(key)
    return [] if row is None else decode_candidates(row)


def encode_candidates(candidates: list[Candidate]) -> bytes:
    return codec.encode([list(candidate) for candidate in candidates])


def decode_candidates(data: bytes) -> list[Candidate]:
    """Inverse of `encode_candidates`. Raises InvalidInputError."""
    items = codec.read_list(
        codec.decode(data, bytes_max=CANDIDATES_BYTES_MAX), CANDIDATES_MAX, "candidates"
    )
    found = []
    for item in items:
        operator, key, power = codec.read_array(item, 3, "candidate")
        codec.read_bytes(operator, "operator", length=ACCOUNT_ID_BYTES)
        codec.read_bytes(key, "consensus key", length=KEY_BYTES)
        found.append(Candidate(operator, key, codec.read_int(power, "power", TOTAL_POWER_MAX)))
    return found


def decode_open_entries(data: bytes) -> int:
    """A number of open entries. Raises InvalidInputError."""
    return codec.read_int(codec.decode(data, bytes_max=SMALL_ROW_BYTES_MAX), "open entries")


def encode_key_owner(owner: KeyOwner) -> bytes:
    return codec.encode(list(owner))


def decode_key_owner(data: bytes) -> KeyOwner:
    """Inverse of `encode_key_owner`. Raises InvalidInputError."""
    operator, first, last = codec.read_array(
        codec.decode(data, bytes_max=SMALL_ROW_BYTES_MAX), 3, "validator key"
    )
    return KeyOwner(
        codec.read_bytes(operator, "operator", length=ACCOUNT_ID_BYTES),
        codec.read_int(first, "first height"),
        None if last is None else codec.read_int(last, "last height"),
    )
