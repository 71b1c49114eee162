"""Who controls a DID: key lists with a threshold, the commitment to the next one, recovery tiers.

JSON forms, inside an operation's body:

    key list  {"keys": [Multikey, ... 1..8], "threshold": 1..count}
    control   a key list, and optionally "next": hash of the key list that takes over
    recovery  [key list, ... 1..3], strongest first; left out where there is none

`next` = `encode_hash(sha256("zynk/did-next/1" 00 | JCS(key list)))`. While it is set, nothing but
the revealed key list can update *or deactivate* (pre-rotation): stolen current keys are useless,
and deactivation can not strand the owner behind a key list that no rule accepts.

Authority is 0 for control and 3, 2, 1 for the first, second and third tier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from did import strict_json
from did.multikey import decode_hash, decode_multikey, encode_hash, encode_multikey
from ledger.codec import hash_tagged
from ledger.errors import InvalidInputError

CONTROL_KEYS_MAX = 8
TIERS_MAX = 3
AUTHORITY_CONTROL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """Ed25519 public keys (32 B each), `threshold` of which must sign."""

    keys: tuple[bytes, ...]
    threshold: int

    @classmethod
    def from_json(cls, value: object, what: str) -> KeyList:
        """Read the JSON form. Raises InvalidInputError."""
        if type(value) is not dict or value.keys() != {"keys", "threshold"}:
            raise InvalidInputError(f"{what} is malformed", expected="keys and threshold")
        keys, threshold = value["keys"], value["threshold"]
        if type(keys) is not list or not 1 <= len(keys) <= CONTROL_KEYS_MAX:
            raise InvalidInputError(
                f"{what} has no list of keys", expected=f"1..{CONTROL_KEYS_MAX}"
            )
        if type(threshold) is not int or not 1 <= threshold <= len(keys):
            raise InvalidInputError(
                f"{what} has a bad threshold", expected=f"1..{len(keys)}", got=repr(threshold)[:20]
            )
        decoded = tuple(map(decode_multikey, keys))
        if len(set(decoded)) != len(decoded):
            raise InvalidInputError(f"{what} names a key twice")
        return cls(keys=decoded, threshold=threshold)

    def to_json(self) -> dict[str, Any]:
        return {"keys": [encode_multikey(key) for key in self.keys], "threshold": self.threshold}

    def compute_commitment(self) -> bytes:
        """The 32-byte hash that a `next` member names."""
        return hash_tagged("did-next", strict_json.encode(self.to_json()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The key list in charge, and the commitment to its successor (32 B) if there is one."""

    current: KeyList
    next: bytes | None = None

    @classmethod
    def of(
        cls, keys: Sequence[bytes], threshold: int = 1, next_keys: KeyList | None = None
    ) -> Control:
        """Control by `keys`, committed to `next_keys` if given."""
        return cls(
            current=KeyList(keys=tuple(keys), threshold=threshold),
            next=None if next_keys is None else next_keys.compute_commitment(),
        )

    @classmethod
    def from_json(cls, value: object) -> Control:
        """Read the JSON form. Raises InvalidInputError."""
        commitment = None
        if type(value) is dict and "next" in value:
            commitment = decode_hash(value["next"])
            value = {name: member for name, member in value.items() if name != "next"}
        return cls(current=KeyList.from_json(value, "control"), next=commitment)

    def to_json(self) -> dict[str, Any]:
        form = self.current.to_json()
        if self.next is not None:
            form["next"] = encode_hash(self.next)
        return form


def read_tiers(value: object) -> tuple[KeyList, ...]:
    """Read a `recovery` member. Raises InvalidInputError."""
    if type(value) is not list or not 1 <= len(value) <= TIERS_MAX:
        raise InvalidInputError("recovery is malformed", expected=f"1..{TIERS_MAX} key lists")
    return tuple(KeyList.from_json(item, "recovery tier") for item in value)


def compute_control_hash(control: Control, tiers: Sequence[KeyList]) -> bytes:
    """controlHash: the tagged hash of JCS({"control": ..., "recovery"?: [...]})."""
    form: dict[str, Any] = {"control": control.to_json()}
    if tiers:
        form["recovery"] = [tier.to_json() for tier in tiers]
    return hash_tagged("did-control", strict_json.encode(form))


def authority_of_tier(tier: int) -> int:
    """Authority (3, 2, 1) of the tier at index 0, 1, 2."""
    return TIERS_MAX - tier
