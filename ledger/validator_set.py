"""The validators that vote on a height, and the one definition of a quorum.

Order is voting power descending, then key ascending; it is also the order of the bits in a
certificate's bitmap. Total power stays below 2^61, so that `3 * power` fits 64 bits in any
language that verifies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ledger import codec
from ledger.errors import InvalidInputError

VALIDATORS_MAX = 256
TOTAL_POWER_MAX = 2**61 - 1
VALIDATOR_SET_BYTES_MAX = VALIDATORS_MAX * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """A consensus key (32 B Ed25519) and its voting power (1 .. 2^61-1)."""

    public_key: bytes
    power: int


@dataclass(frozen=True)
class ValidatorSet:
    """An ordered, duplicate-free set; build it with `of` or `decode`."""

    validators: tuple[Validator, ...]

    @classmethod
    def of(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Sort and check. Raises InvalidInputError for an empty, oversize or repeated set."""
        ordered = tuple(sorted(validators, key=lambda v: (-v.power, v.public_key)))
        if not 1 <= len(ordered) <= VALIDATORS_MAX:
            raise InvalidInputError(
                "validator set has a wrong size",
                expected=f"1..{VALIDATORS_MAX}",
                got=str(len(ordered)),
            )
        if len({v.public_key for v in ordered}) != len(ordered):
            raise InvalidInputError("validator set names a key twice")
        if any(len(v.public_key) != 32 or v.power < 1 for v in ordered):
            raise InvalidInputError("validator is malformed", expected="32 B key and power >= 1")
        if sum(v.power for v in ordered) > TOTAL_POWER_MAX:
            raise InvalidInputError("total voting power is too large", expected="< 2^61")
        return cls(ordered)

    @classmethod
    def decode(cls, data: bytes) -> ValidatorSet:
        """Inverse of `encode`. Raises InvalidInputError, also for another order."""
        items = codec.read_list(
            codec.decode(data, bytes_max=VALIDATOR_SET_BYTES_MAX), VALIDATORS_MAX, "validator set"
        )
        found = []
        for item in items:
            key, power = codec.read_array(item, 2, "validator")
            found.append(
                Validator(
                    public_key=codec.read_bytes(key, "validator key", length=32),
                    power=codec.read_int(power, "voting power", TOTAL_POWER_MAX),
                )
            )
        result = cls.of(found)
        if list(result.validators) != found:
            raise InvalidInputError("validator set is not in order")
        return result

    @cached_property
    def encoded(self) -> bytes:
        return codec.encode([[v.public_key, v.power] for v in self.validators])

    @cached_property
    def hash(self) -> bytes:
        """32 B; what headers commit to."""
        return codec.hash_tagged("validator-set", self.encoded)

    @cached_property
    def total_power(self) -> int:
        return sum(v.power for v in self.validators)

    @cached_property
    def index_by_key(self) -> dict[bytes, int]:
        return {v.public_key: i for i, v in enumerate(self.validators)}

    @cached_property
    def power_by_key(self) -> dict[bytes, int]:
        return {v.public_key: v.power for v in self.validators}

    def __len__(self) -> int:
        return len(self.validators)

    def __contains__(self, public_key: bytes) -> bool:
        return public_key in self.index_by_key

    def power_of(self, public_key: bytes) -> int:
        """Voting power of a key; 0 for a stranger."""
        index = self.index_by_key.get(public_key)
        return 0 if index is None else self.validators[index].power

    def has_quorum(self, power: int) -> bool:
        """True if `power` is more than 2/3 of the total. The only definition of a quorum."""
        return 3 * power > 2 * self.total_power

    def has_third(self, power: int) -> bool:
        """True if `power` is more than 1/3 of the total, so that an honest validator is among
        those who hold it."""
        return 3 * power > self.total_power
